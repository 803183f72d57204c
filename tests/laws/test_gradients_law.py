"""The law: a gradient is what small changes of the value do to the metric, at every site.

gradient . step == (metric(value + h step) - metric(value - h step)) / 2h, in double.
"""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import Prompts, Site, edit, log_prob, logit_diff, run
from mechinterp.core.sites import ACTS
from mechinterp.engine.gradients import site_gradients
from mechinterp.models.facts import fired_points
from mechinterp.models.hook_points import axis_size

PROMPTS = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3, 2]]).named(
    S2=[5, 2, 3]
)
METRICS = [log_prob([3, 20, 7]), logit_diff(5, [6, 7, 8], at="S2")]
H = 1e-5


def in_double(model):
    doubled = copy.deepcopy(model).double()
    doubled.cfg.dtype = torch.float64
    return doubled


def running_sites(model):
    fired = fired_points(model)
    sites = []
    for name, act in ACTS.items():
        layers = range(model.cfg.n_layers) if act.per_layer else (None,)
        sites += [Site(name, layer) for layer in layers if Site(name, layer).hook in fired]
    # With split inputs the first norm runs for each head: its axes are others then.
    split = ("ln1_scale", "ln1_normalized") if model.cfg.use_split_qkv_input else ()
    return [site for site in sites if site.act not in (*split, "tokens")]


class World:
    """A model in double, and its gradients at every site that runs; prints in a word."""

    def __init__(self, model):
        self.model = in_double(model)
        self.sites = running_sites(self.model)
        self.slopes = [site_gradients(self.model, PROMPTS, self.sites, m) for m in METRICS]

    def __repr__(self):
        return "world"


@cache
def world_of(model):
    return World(model)


def check_law(data, world):
    whole = data.draw(st.sampled_from(world.sites))
    chosen = {}
    for axis in ("head", "neuron"):
        if axis in whole.axes and data.draw(st.booleans()):
            size = axis_size(world.model, whole.act, axis)
            chosen[axis] = data.draw(st.integers(0, size - 1))
    if "pos" in whole.axes and data.draw(st.booleans()):
        chosen["pos"] = data.draw(st.sampled_from([0, 1, 2, 3, "end", "S2"]))
    site = Site(whole.act, whole.layer, **chosen)
    number = data.draw(st.integers(0, len(METRICS) - 1))
    metric, slope = METRICS[number], world.slopes[number][site]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    step = torch.randn(slope.shape, generator=generator, dtype=slope.dtype)

    def measured(h):
        specs = edit(site, lambda value, at: value + h * step)
        return metric(run(world.model, PROMPTS, specs, logits_at=metric.at))

    differences = (measured(H) - measured(-H)) / (2 * H)
    torch.testing.assert_close(
        (slope * step).reshape(len(slope), -1).sum(1), differences, atol=1e-7, rtol=1e-6
    )


@given(data=st.data())
def test_gradients_are_finite_differences(model, data):
    check_law(data, world_of(model))


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_gradients_are_finite_differences_with_every_point_on(switched_on_model, data):
    check_law(data, world_of(switched_on_model))
