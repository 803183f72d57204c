"""The law of generation: with a key-value cache, without one, and one `run` a step, all the same.

Positions are those of the whole sequence, and what a cache keeps is what the specs left. It holds
for edits that leave a position's value independent of later tokens, as all here do.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from mechinterp import (
    Prompts,
    Site,
    add,
    edit,
    hooked,
    knockout,
    mean,
    patch,
    put,
    read,
    resample,
    run,
    scale,
    zero,
)
from mechinterp.core.sites import ACTS
from mechinterp.models.facts import fired_points
from mechinterp.models.hook_points import axis_size

PROMPT, NEW = 7, 5
SEEN = PROMPT + NEW - 1  # the last new token is not run
IDS = [[(3 + 5 * i + 3 * row) % 31 for i in range(PROMPT)] for row in range(2)]
NAMES = {"end": [PROMPT - 1] * 2, "S2": [5, 2]}
LINKS = ("attn_scores", "pattern")
BEFORE_LAYERS = ("embed", "pos_embed")


class World:
    """A model, and what another run read at every site of it; prints in a word."""

    def __init__(self, model):
        self.model = model
        fired = fired_points(model)
        self.sites = [
            site
            for name, act in ACTS.items()
            for layer in (range(model.cfg.n_layers) if act.per_layer else (None,))
            if (site := Site(name, layer)).hook in fired
        ]
        other = [[(11 + 7 * i + row) % 31 for i in range(SEEN)] for row in range(2)]
        self.acts = run(model, Prompts.from_ids(other).named(**NAMES), read(*self.sites)).acts

    def __repr__(self):
        return f"World({self.model.cfg.d_model})"


@pytest.fixture(scope="module")
def world(model):
    return World(model)


def looks_at_its_tokens(value, at):
    """An edit that would notice another alignment of its values and the tokens."""
    axes, tokens = at.site.narrowed_axes, at.prompts.tokens
    if "pos" not in axes:  # what a position may know: no token after it
        until = at.prompts.positions(at.site.pos)
        seen = torch.arange(tokens.shape[1]) <= until[:, None]
        factor = 1 + 0.01 * (tokens * seen).sum(1)
        return value * factor.reshape(-1, *[1] * (value.ndim - 1))
    factor = 1 + 0.05 * tokens[:, -value.shape[axes.index("pos")] :]
    shape = [1] * value.ndim
    shape[0], shape[axes.index("pos")] = factor.shape
    return value * factor.reshape(shape)


def mixes_rows(value, at):
    return 0.5 * value + 0.5 * value.mean(0, keepdim=True)


@st.composite
def one_spec(draw, world, *, names=(), generated=True):
    """A spec and the first position that the sequence must have for it to run."""
    model, acts = world.model, world.acts
    sites = [s for s in world.sites if not generated or s.act not in BEFORE_LAYERS]
    if draw(st.integers(0, 5)) == 0:
        layer = draw(st.integers(0, model.cfg.n_layers - 1))
        head = draw(st.none() | st.integers(0, model.cfg.n_heads - 1))
        key = draw(st.integers(0, 4))
        query = draw(st.none() | st.integers(key, SEEN - 1))
        return knockout(layer, head, query, key), query or 0
    site = draw(st.sampled_from(sites))
    narrow = {
        axis: draw(st.none() | st.integers(0, axis_size(model, site.act, axis) - 1))
        for axis in ("head", "neuron")
        if axis in site.axes
    }
    pos = draw(st.none() | st.integers(0, SEEN - 1) | st.sampled_from(names or (0, PROMPT)))
    site = Site(site.act, site.layer, pos=pos, **narrow)
    makers = [
        lambda: scale(site, 0.5),
        lambda: edit(site, mixes_rows),
        lambda: edit(site, looks_at_its_tokens),
    ]
    if site.act not in LINKS and not site.act.endswith("_scale"):  # these would be no model's
        wide = site.narrowed_axes[-1] not in ("prompt", "pos")
        last = acts[site].shape[-1:] if wide else ()
        makers += [
            lambda: zero(site),
            lambda: put(site, 0.7),
            lambda: mean(site, acts),
            lambda: add(site, torch.linspace(-1, 1, max(1, sum(last))).reshape(last), 0.8),
        ]
        if pos is not None:
            makers += [lambda: patch(site, acts), lambda: resample(site, acts, seed=3)]
    elif site.act == "pattern":
        makers += [lambda: zero(site)]
    return draw(st.sampled_from(makers))(), pos if isinstance(pos, int) else 0


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def ran(model, ids, specs, logits_at):
    """The slow reference: the whole sequence, and the specs whose position it has."""
    active = [spec for spec, needed in specs if needed < ids.shape[1]]
    whole = Prompts.from_ids(ids.tolist()).named(**NAMES)
    return run(model, whole, sum(active, ()), logits_at=logits_at).logits


@pytest.mark.parametrize("cached", [True, False])
@settings(max_examples=settings.default.max_examples // 3)
@given(data=st.data())
def test_generating_equals_one_run_a_step(world, cached, data):
    named = data.draw(st.booleans())
    names = ("end", "S2") if named else ()
    specs = data.draw(st.lists(one_spec(world, names=names), min_size=1, max_size=3))
    prompts = Prompts.from_ids(IDS).named(S2=NAMES["S2"])
    with hooked(world.model, sum((s for s, _ in specs), ()), prompts if named else None) as model:
        made = model.generate(
            prompts.tokens,
            max_new_tokens=NEW,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            output_logits=True,
            use_past_kv_cache=cached,
        )
    for step, logits in enumerate(made.logits):
        ids = made.sequences[:, : PROMPT + step]
        close(logits, ran(world.model, ids, specs, PROMPT + step - 1)[:, 0])
        assert torch.equal(made.sequences[:, PROMPT + step], logits.argmax(-1))


@settings(max_examples=settings.default.max_examples // 3)
@given(data=st.data())
def test_a_loop_with_a_cache_of_ones_own(world, data):
    specs = data.draw(st.lists(one_spec(world, generated=False), min_size=1, max_size=3))
    cuts = sorted(data.draw(st.sets(st.integers(1, SEEN - 1), max_size=4)))
    ids = torch.tensor([[(3 + 5 * i + 3 * row) % 31 for i in range(SEEN)] for row in range(2)])
    cache = TransformerLensKeyValueCache.init_cache(world.model.cfg, "cpu", 2)
    found = []
    with hooked(world.model, sum((s for s, _ in specs), ())) as model, torch.no_grad():
        for start, stop in zip([0, *cuts], [*cuts, SEEN], strict=True):
            new = ids[:, start:stop]
            mask = torch.ones_like(new)  # as the library's tokenizer would say
            found.append(model(new, past_kv_cache=cache, attention_mask=mask))
    close(torch.cat(found, 1), ran(world.model, ids, specs, tuple(range(SEEN))))
