"""Two runs, and how a difference between them is signed and read."""

import numpy as np

from mechinterp import kl, logit_diff, run
from mechinterp.circuits import Contrast


def test_of_a_distance_what_carries_it_is_positive(absolute_model, pair):
    base = run(absolute_model, pair.clean).logits[:, 0]
    other = run(absolute_model, pair.corrupt)
    contrast = Contrast.from_pair(absolute_model, pair, kl(base))
    np.testing.assert_allclose(contrast.base_scores, 0, atol=1e-5)
    np.testing.assert_allclose(contrast.embedding_effect, kl(base)(other), atol=1e-5)
    assert (contrast.embedding_effect > 0).all()


def test_what_is_read_before_any_change_is_read_there(absolute_model, pair):
    early = logit_diff([7, 11], [20, 3], at=1)  # the pair differs from position 2 on
    contrast = Contrast.from_pair(absolute_model, pair, early)
    alone = early(run(absolute_model, pair.clean, logits_at=1))
    np.testing.assert_allclose(contrast.base_scores, alone, atol=1e-5)
    np.testing.assert_allclose(contrast.embedding_effect, 0, atol=1e-5)
