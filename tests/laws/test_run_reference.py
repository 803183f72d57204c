"""A run gives what the library gives by hand: one prompt at a time, unpadded, with plain hooks.

Nothing of ours is in the reference but the table of short names.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import (
    HookError,
    Prompts,
    Site,
    add,
    delete_token,
    edit,
    knockout,
    mean,
    patch,
    put,
    read,
    replace_token,
    resample,
    run,
    scale,
    zero,
)
from mechinterp.core.sites import ACTS

ROWS = ([3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3, 2])
S2 = (5, 2, 3)
SHORTEST = 4
OTHER = ([7, 2, 1, 8, 2, 8, 1], [8, 2, 8, 4], [5, 9, 0, 4, 5, 2])


def close(found, expected):
    """Equal but for rounding; a scale of 0 gives nan on both sides."""
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5, equal_nan=True)


def by_hand(model, ids, hooks=()):
    """Logits `[pos, vocab]` of one prompt, by the library alone."""
    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([ids]), fwd_hooks=list(hooks))[0]


def acts_by_hand(model, ids):
    """Every activation of one prompt, by full name, without the axis of prompts."""
    kept = {}

    def keep(value, hook):
        kept[hook.name] = value[0].clone()

    by_hand(model, ids, [(lambda name: True, keep)])
    return kept


def part_of(act, head, pos, neuron):
    """The index of a part of one prompt's activation, written out for each kind."""
    every = slice(None)
    head, pos = (every if i is None else i for i in (head, pos))
    if act in ("attn_scores", "pattern"):
        return (head, pos)
    if "head" in ACTS[act].axes:
        return (pos, head)
    if "neuron" in ACTS[act].axes:
        return (pos, every if neuron is None else neuron)
    return (pos,)


SIZES = {
    "head": lambda model, act: (
        model.cfg.n_key_value_heads
        if act in ("k", "v", "rot_k", "k_input", "v_input") and model.cfg.n_key_value_heads
        else model.cfg.n_heads
    ),
    "neuron": lambda model, act: model.cfg.d_mlp,
    "pos": lambda model, act: SHORTEST,
}
OPERATIONS = {
    "zero": (lambda site, other: zero(site), lambda old, other: torch.zeros_like(old)),
    "scale": (lambda site, other: scale(site, -0.5), lambda old, other: old * -0.5),
    "put": (lambda site, other: put(site, 0.25), lambda old, other: torch.full_like(old, 0.25)),
    "add": (
        lambda site, other: add(site, torch.tensor(0.5), 3.0),
        lambda old, other: old + 1.5,
    ),
    "edit": (
        lambda site, other: edit(site, lambda value, at: value.tanh()),
        lambda old, other: old.tanh(),
    ),
    "patch": (lambda site, other: patch(site, other), lambda old, other: other),
}


@st.composite
def places(draw, model):
    """An act that runs, and the part of it that is edited."""
    kept = acts_by_hand(model, ROWS[1])
    layer = draw(st.integers(0, model.cfg.n_layers - 1))
    names = [n for n, a in ACTS.items() if a.hook.format(layer=layer) in kept]
    if model.cfg.use_split_qkv_input:  # then the first norm runs for each head: its axes differ
        names = [n for n in names if not n.startswith("ln1")]
    act = draw(st.sampled_from(names))
    chosen = {
        axis: draw(st.none() | st.integers(0, size(model, act) - 1))
        for axis, size in SIZES.items()
        if axis in ACTS[act].axes
    }
    if chosen["pos"] is None:
        chosen["pos"] = draw(st.sampled_from([None, "end", "S2"]))
    return Site(act, layer if ACTS[act].per_layer else None, **chosen)


@given(data=st.data())
def test_every_operation_at_every_kind_of_site(model, data):
    check_one_operation(model, data)


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_every_operation_with_every_hook_point_on(switched_on_model, data):
    check_one_operation(switched_on_model, data)


def check_one_operation(model, data):
    site = data.draw(places(model))
    make, operate = OPERATIONS[data.draw(st.sampled_from(sorted(OPERATIONS)))]
    # What is put on links to padding is seen through it, so that these prompts are run one by one.
    batches = [[0], [1], [2]] if "src" in ACTS[site.act].axes else [[0, 1, 2]]
    for batch in batches:
        named = {"S2": [S2[i] for i in batch]}
        prompts = Prompts.from_ids([ROWS[i] for i in batch]).named(**named)
        others = Prompts.from_ids([OTHER[i] for i in batch]).named(**named)
        other = run(model, others, read(site.whole())).acts
        found = run(model, prompts, make(site, other), logits_at=("end", 1))
        for row, i in enumerate(batch):
            pos = {"end": len(ROWS[i]) - 1, "S2": S2[i]}.get(site.pos, site.pos)
            part = part_of(site.act, site.head, pos, site.neuron)
            theirs = acts_by_hand(model, OTHER[i])[site.hook][part]

            def hook(value, hook, part=part, theirs=theirs):
                value = value.clone()
                value[0][part] = operate(value[0][part], theirs)
                return value

            expected = by_hand(model, ROWS[i], [(site.hook, hook)])
            close(found.logits[row], expected[[-1, 1]])


def test_what_is_read_is_what_the_library_has(switched_on_model):
    model = switched_on_model
    prompts = Prompts.from_ids(ROWS).named(S2=list(S2))
    by_row = [acts_by_hand(model, ids) for ids in ROWS]
    for layer in range(model.cfg.n_layers):
        for act, kind in ACTS.items():
            site = Site(act, layer if kind.per_layer else None)
            if site.hook not in by_row[0] or act.startswith("ln1"):
                continue
            head, neuron = (0 if axis in kind.axes else None for axis in ("head", "neuron"))
            parts = {pos: Site(act, site.layer, head, pos, neuron) for pos in ("end", "S2")}
            whole = run(model, prompts, read(site)).acts
            cut = run(model, prompts, read(*parts.values())).acts
            for row, ids in enumerate(ROWS):
                n, kept = len(ids), by_row[row][site.hook]
                tokens = tuple(slice(n if a in ("pos", "src") else None) for a in kind.axes[1:])
                close(whole[site][row][tokens], kept)
                for pos, part in parts.items():
                    number = n - 1 if pos == "end" else S2[row]
                    for acts in (whole, cut):
                        value = acts[part][row]
                        value = value[:n] if "src" in kind.axes else value
                        close(value, kept[part_of(act, head, number, neuron)])


def test_what_is_read_stays_when_a_later_edit_writes_in_place(model):
    def twice(value, at):
        return value.mul_(2)

    kept = acts_by_hand(model, ROWS[0])
    for act, kind in ACTS.items():
        site = Site(act, 1 if kind.per_layer else None)
        if site.hook in kept:
            found = run(model, torch.tensor(ROWS[0]), read(site) + edit(site, twice))

            def hook(value, hook):
                return value * 2

            close(found.acts[site][0], kept[site.hook])
            close(found.logits[0, 0], by_hand(model, ROWS[0], [(site.hook, hook)])[-1])


@pytest.mark.parametrize("head", [None, 1])
@pytest.mark.parametrize("query", [None, "end", 3])
@pytest.mark.parametrize("key", [0, 2, "S2"])
def test_knockout(model, head, query, key):
    prompts = Prompts.from_ids(ROWS).named(S2=[2, 1, 3])
    found = run(model, prompts, knockout(1, head, query, key), logits_at=("end", 3))
    for row, ids in enumerate(ROWS):
        k = (2, 1, 3)[row] if key == "S2" else key
        queries = {None: range(k + 1, len(ids)), "end": [len(ids) - 1], 3: [3]}[query]

        def hook(scores, hook, k=k, queries=queries):
            for q in queries:
                for h in range(scores.shape[1]):
                    if head in (None, h):
                        scores[0, h, q, k] = -torch.inf
            return scores

        close(
            found.logits[row],
            by_hand(model, ids, [("blocks.1.attn.hook_attn_scores", hook)])[[-1, 3]],
        )


@pytest.mark.parametrize("pos", [0, 2, "S2"])
def test_a_deleted_token_is_a_prompt_without_it(model, pos):
    prompts = Prompts.from_ids(ROWS).named(S2=list(S2))
    last = zero(Site("resid_pre", 1, pos="end"))
    found = run(model, prompts, delete_token(pos) + last, logits_at=("end", 3))
    for row, ids in enumerate(ROWS):
        at = S2[row] if pos == "S2" else pos
        shorter = ids[:at] + ids[at + 1 :]

        def hook(resid, hook):
            resid[0, -1] = 0
            return resid

        expected = by_hand(model, shorter, [("blocks.1.hook_resid_pre", hook)])
        read_at = 3 - (at <= 3)  # position 3 as given, or the last one before it that is left
        close(found.logits[row], expected[[-1, read_at]])


def test_the_last_token_deleted(model):
    found = run(model, Prompts.from_ids(ROWS), delete_token("end"), logits_at=("end", 0))
    for row, ids in enumerate(ROWS):
        close(found.logits[row], by_hand(model, ids[:-1])[[-1, 0]])


def test_several_tokens_deleted_and_replaced(model):
    prompts = Prompts.from_ids(ROWS).named(S2=list(S2))
    specs = replace_token(0, 11) + delete_token("S2") + delete_token(1)
    found = run(model, prompts, specs + zero(Site("z", 0, 1, 3 if S2[2] != 3 else 0)))
    for row, ids in enumerate(ROWS):
        left = [11, *(t for i, t in enumerate(ids) if i not in (0, 1, S2[row]))]

        def hook(z, hook):
            z[0, 0, 1] = 0
            return z

        close(found.logits[row, 0], by_hand(model, left, [("blocks.0.attn.hook_z", hook)])[-1])


def test_padding_changes_nothing(model):
    everywhere = tuple(range(SHORTEST))
    together = run(model, Prompts.from_ids(ROWS, pad=30), logits_at=(*everywhere, "end"))
    for row, ids in enumerate(ROWS):
        expected = by_hand(model, ids)[[*everywhere, -1]]
        close(together.logits[row], expected)
        alone = run(model, torch.tensor(ids), logits_at=(*everywhere, "end"))
        close(alone.logits[0], expected)


def test_specs_act_from_left_to_right_and_in_the_models_order(model):
    site, earlier = Site("resid_pre", 2, pos=1), Site("embed", pos=1)
    prompts = Prompts.from_ids(ROWS)
    specs = scale(site, 3.0) + read(site) + put(site, 0.5) + scale(site, 2.0) + scale(earlier, 4.0)
    found = run(model, prompts, specs)
    for row, ids in enumerate(ROWS):
        seen = []

        def embed(value, hook):
            value[0, 1] *= 4
            return value

        def resid(value, hook, seen=seen):
            seen.append(value[0, 1] * 3)
            value[0, 1] = 1.0
            return value

        hooks = [("hook_embed", embed), ("blocks.2.hook_resid_pre", resid)]
        close(found.logits[row, 0], by_hand(model, ids, hooks)[-1])
        close(found.acts[site][row], seen[0])


def test_mean_is_over_the_tokens_that_are_there(model):
    everywhere, end = Site("attn_out", 1), Site("attn_out", 1, pos="end")
    acts = run(model, Prompts.from_ids(OTHER), read(everywhere)).acts
    kept = [acts_by_hand(model, ids)["blocks.1.hook_attn_out"] for ids in OTHER]
    means = {everywhere: torch.cat(kept).mean(0), end: torch.stack([v[-1] for v in kept]).mean(0)}
    for site, average in means.items():
        found = run(model, Prompts.from_ids(ROWS), mean(site, acts))
        for row, ids in enumerate(ROWS):

            def hook(value, hook, site=site, average=average):
                value[0, slice(None) if site.pos is None else -1] = average
                return value

            close(found.logits[row, 0], by_hand(model, ids, [("blocks.1.hook_attn_out", hook)])[-1])


def test_a_mean_that_does_not_fit_names_the_spec(absolute_model):
    prompts, site = Prompts.from_ids(ROWS), Site("attn_scores", 1, 0, 1)
    acts = run(absolute_model, prompts, read(site)).acts
    with pytest.raises(HookError, match=r"mean L1H0\.attn_scores@1: the source has shape"):
        run(absolute_model, prompts, mean(site, acts) + delete_token("end"))


def test_resample_is_a_patch_from_drawn_prompts(model):
    site = Site("z", 1, 2, "end")
    acts = run(model, Prompts.from_ids(OTHER), read(site)).acts
    drawn = set()
    for seed in range(12):
        after = edit(site, lambda value, at: value) + read(site)
        seen = run(model, Prompts.from_ids(ROWS), resample(site, acts, seed) + after).acts[site]
        again = run(model, Prompts.from_ids(ROWS), resample(site, acts, seed) + after).acts[site]
        assert torch.equal(seen, again)
        rows = [[torch.equal(v, o) for o in acts[site]].index(True) for v in seen]
        drawn.add(tuple(rows))
    assert len(drawn) > 5
    assert {row for rows in drawn for row in rows} == {0, 1, 2}
