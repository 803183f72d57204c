import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechinterp import Site
from mechinterp.core.sites import ACTS, narrow_index


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (Site("z", 9, 6, "end"), "L9H6.z@end"),
        (Site("z", 0), "L0.z"),
        (Site("embed"), "embed"),
        (Site("embed", pos=3), "embed@3"),
        (Site("mlp_post", 1, neuron=7, pos="S2"), "L1.mlp_post[7]@S2"),
        (Site("blocks.0.attn.hook_z"), "L0.z"),
    ],
)
def test_text(site, text):
    assert str(site) == text


def test_hook_names_and_axes():
    assert Site("z", 3, 1).hook == "blocks.3.attn.hook_z"
    assert Site("logits").hook == "unembed.hook_out"
    assert Site("ln_final.hook_scale") == Site("ln_final_scale")
    assert Site("blocks.3.ln1.hook_scale").hook == "blocks.3.ln1.hook_scale"
    assert Site("blocks.3.ln1.hook_scale").axes is None
    assert Site("pattern", 0).axes == ("prompt", "head", "pos", "src")
    assert Site("pattern", 0, 2, "end").narrowed_axes == ("prompt", "src")
    assert Site("z", 0, 2).narrowed_axes == ("prompt", "pos", "d_head")
    assert Site("mlp_post", 0, neuron=2).narrowed_axes == ("prompt", "pos")
    assert Site("z", 0, 2, "end").whole() == Site("z", 0)


def test_a_site_is_a_value():
    assert Site("z", 1, 2) == Site("z", layer=1, head=2)
    assert len({Site("z", 1, 2), Site("z", 1, 2), Site("z", 1)}) == 2


def test_sorted_as_the_model_meets_them():
    ordered = [
        Site("embed"),
        Site("resid_pre", 0),
        Site("q", 0, 0),
        Site("q", 0, 1),
        Site("q", 0),
        Site("z", 0),
        Site("resid_post", 0),
        Site("resid_pre", 1),
        Site("z", 1, 10),
        Site("z", 1, 11),
        Site("resid_pre", 10),
        Site("ln_final_normalized"),
        Site("logits"),
    ]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled) == ordered


def test_acts_name_each_hook_once_and_begin_with_prompts():
    assert len({act.hook for act in ACTS.values()}) == len(ACTS)
    for act in ACTS.values():
        assert act.axes[0] == "prompt"
        assert "pos" in act.axes
        assert act.per_layer == act.hook.startswith("blocks.")


LENGTH = 4
SIZES = {"prompt": 3, "pos": LENGTH, "src": LENGTH, "head": 5, "d_head": 2, "d_model": 6}
SIZES |= {"neuron": 7, "vocab": 8, "one": 1}


@given(data=st.data())
def test_an_index_cuts_out_what_a_loop_would(data):
    act = data.draw(st.sampled_from(sorted(ACTS)))
    axes = ACTS[act].axes
    value = torch.arange(1.0, 1 + torch.Size(SIZES[a] for a in axes).numel())
    value = value.reshape([SIZES[a] for a in axes])
    chosen = {
        axis: data.draw(st.integers(0, SIZES[axis] - 1))
        for axis in ("head", "neuron")
        if axis in axes and data.draw(st.booleans())
    }
    each = data.draw(st.none() | st.lists(st.integers(0, LENGTH - 1), min_size=3, max_size=3))
    layer = 0 if ACTS[act].per_layer else None
    want = Site(act, layer, pos=None if each is None else "end", **chosen)
    rows = []
    for row in range(3):
        part = value[row]
        # From the last axis to the first, so that the number of those before stays as it is.
        for number, axis in reversed(list(enumerate(axes[1:]))):
            if axis in chosen:
                part = part.select(number, chosen[axis])
            elif axis == "pos" and each is not None:
                part = part.select(number, each[row])
        rows.append(part)
    positions = None if each is None else torch.tensor(each)
    found = value[narrow_index(want.whole(), want, positions)]
    assert torch.equal(found, torch.stack(rows))
    assert found.ndim == len(want.narrowed_axes)
