"""The stream's length and direction, against the residual stream of a plain run."""

import itertools

import numpy as np
import torch

from mechinterp import Prompts, Site, read, run
from mechinterp.layers import residual_stream


def test_norms_and_cosines(model):
    prompts = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5]])
    sites = [Site("resid_pre", 0), *(Site("resid_post", n) for n in range(model.cfg.n_layers))]
    acts = run(model, prompts, read(*sites), logits_at=()).acts
    for at, rows in (("end", [6, 3]), (1, [1, 1])):
        found = residual_stream(model, prompts, at=at)
        for prompt, row in enumerate(rows):
            each = [acts[site][prompt, row].double() for site in sites]
            here = found.isel(prompt=prompt)
            np.testing.assert_allclose(here["norm"], [x.norm() for x in each], rtol=1e-5)
            added = [float((b - a).norm()) for a, b in itertools.pairwise(each)]
            np.testing.assert_allclose(here["written"][1:], added, rtol=1e-5)
            cosines = [torch.cosine_similarity(x, each[-1], dim=0) for x in each]
            np.testing.assert_allclose(here["cosine"], cosines, atol=1e-6)
            assert np.isnan(here["written"][0])
