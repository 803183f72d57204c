"""An arm: what the specs touch, and what is done before anything runs."""

import pytest

from mechinterp import (
    Site,
    delete_token,
    edit,
    knockout,
    read,
    replace_token,
    scale,
    zero,
)
from mechinterp.core.sites import ACTS
from mechinterp.engine.arms import prepare_arm


@pytest.mark.parametrize(
    ("specs", "first_layer", "last_layer", "first_pos"),
    [
        ((), 3, -1, 6),
        (zero(Site("embed")), 0, 0, 0),
        (zero(Site("z", 1, pos=2)), 1, 1, 2),
        (zero(Site("z", 2, pos=3)) + zero(Site("resid_pre", 1)), 1, 2, 0),
        (read(Site("resid_post", 2)), 2, 2, 0),
        (delete_token(1) + zero(Site("z", 2, pos="end")), 0, 2, 1),
        (zero(Site("unembed_in")), 3, 3, 0),
        (zero(Site("z", 1, pos="S2")) + scale(Site("logits", pos=3), 2.0), 1, 3, 2),
        (read(Site("ln_final_scale")), 3, 3, 0),
        (knockout(2, None, "end", 0), 2, 2, 3),
        (zero(Site("blocks.1.ln1.hook_scale")), 0, 0, 0),
    ],
)
def test_where_an_arm_begins(absolute_model, ragged, specs, first_layer, last_layer, first_pos):
    arm = prepare_arm(absolute_model, ragged, specs)
    assert (arm.first_layer, arm.last_layer, arm.first_pos) == (first_layer, last_layer, first_pos)
    assert arm.alone == any(spec.site.act not in ACTS for spec in specs)


def test_tokens_are_edited_before_anything_runs(absolute_model, ragged):
    whole = Site("tokens")
    specs = replace_token(0, 30) + read(whole) + delete_token("S2")
    arm = prepare_arm(absolute_model, ragged, specs)
    assert arm.prompts.lengths.tolist() == [6, 3, 5]
    assert arm.prompts.tokens[:, 0].tolist() == [30, 30, 30]
    assert arm.activations[whole][:, 0].tolist() == [30, 30, 30]
    assert arm.activations[whole].shape == (3, 7)
    assert arm.fired == {0, 1, 2}


def test_an_edit_of_tokens_sees_its_prompts_and_what_was_read(absolute_model, ragged):
    first = Site("tokens", pos=0)

    def as_the_first(value, at):
        assert at.prompts.tokens.tolist() == ragged.tokens.tolist()
        return at.acts[first] + 1

    specs = read(first) + edit(Site("tokens", pos="end"), as_the_first)
    tokens = prepare_arm(absolute_model, ragged, specs).prompts.tokens
    assert tokens[[0, 1, 2], [6, 3, 5]].tolist() == [4, 7, 9]
