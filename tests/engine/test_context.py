"""`hooked` while a model generates; that it equals runs: `tests/laws/test_generation.py`."""

import copy

import pytest
import torch
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

from mechinterp import (
    HookError,
    Prompts,
    Site,
    add,
    edit,
    hooked,
    knockout,
    load_model,
    logit_diff,
    patch,
    read,
    run,
    token_id,
    zero,
)

IDS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
GREEDY = {"do_sample": False, "stop_at_eos": False, "verbose": False}
ONES = {"attention_mask": torch.ones_like(IDS)}


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def generated(model, specs, prompts=None, ids=IDS, **options):
    with hooked(model, specs, prompts):
        return model.generate(ids, **({"max_new_tokens": 4} | GREEDY | options))


def cache_of(model, rows=2):
    return TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", rows)


def step(model, ids, cache):
    return model(ids, past_kv_cache=cache, attention_mask=torch.ones_like(ids))


@pytest.fixture(scope="module")
def toy():
    """With a tokenizer, which pads with the start token."""
    return load_model("toy:induction")


# The library's own generate


def test_the_library_miscounts_and_the_context_does_not(absolute_model):
    options = {"max_new_tokens": 4, "output_logits": True} | GREEDY
    plain = absolute_model.generate(IDS, use_past_kv_cache=False, **options).logits[1]
    miscounted = absolute_model.generate(IDS, **options).logits[1]
    assert (plain - miscounted).abs().max() > 0.1  # else the work-around can go
    with hooked(absolute_model, ()):
        close(absolute_model.generate(IDS, **options).logits[1], plain)


def test_sampling(model):
    specs = zero(Site("z", 1, 0)) + zero(Site("resid_post", 1, pos=5))
    made = []
    for cached in (True, False):
        torch.manual_seed(1)
        made.append(generated(model, specs, do_sample=True, use_past_kv_cache=cached))
    assert torch.equal(*made)


def test_rows_that_have_finished_are_fed_on(absolute_model):
    model, specs = absolute_model, zero(Site("z", 1, 0)) + zero(Site("resid_post", 1, pos=6))
    free = generated(model, specs, max_new_tokens=6)
    (end, *_) = (int(token) for token in free[0, 4:7] if token not in free[1, 4:])
    options = {"stop_at_eos": True, "eos_token_id": end, "output_logits": True}
    made = generated(model, specs, max_new_tokens=6, **options)
    assert made.sequences[0, 7:].tolist() == [end] * 3
    assert len(made.logits) == 6
    for i, logits in enumerate(made.logits):
        active = specs if 4 + i > 6 else specs[:1]
        close(logits, run(model, made.sequences[:, : 4 + i], active).logits[:, 0])


@pytest.mark.parametrize("cached", [True, False])
def test_streaming(toy, cached):
    ids = torch.tensor([[0, 3, 4, 3], [0, 5, 6, 5]])
    specs = zero(Site("z", 1, 0)) + zero(Site("z", 0, pos=5))
    options = {"max_new_tokens": 4, "use_past_kv_cache": cached} | GREEDY
    with hooked(toy, specs) as model:
        made = torch.cat(list(model.generate_stream(ids, **options)), 1)
    for width in range(4, 8):
        active = specs if width > 5 else specs[:1]
        assert torch.equal(
            run(toy, made[:, :width], active).logits[:, 0].argmax(-1), made[:, width]
        )


def test_text_goes_in_and_comes_out(toy):
    options = {"max_new_tokens": 2} | GREEDY
    with hooked(toy, zero(Site("z", 1, pos=6)), "a b c a") as model:  # then nothing is copied
        assert model.generate("a b c a", **(options | {"max_new_tokens": 3})) == "a b c a b c"
    with hooked(toy, (), "a b c a") as model:
        assert model.generate("a b c a", **options) == "a b c a b c"


@pytest.mark.parametrize("options", [{}, {"use_past_kv_cache": False}])
def test_padding_that_moves_positions_is_refused(toy, options, refuses):
    z = zero(Site("z", 1, 0))
    says = ["hides tokens of prompt 0 as padding", "prompts of one length"]
    refuses(lambda: generated(toy, z, ids=["a b", "a b c a"], **options), *says, kind=HookError)
    ends_in_pad = torch.tensor([[0, 3, 4, toy.tokenizer.pad_token_id]])
    refuses(lambda: generated(toy, z, ids=ends_in_pad, **options), *says, kind=HookError)
    generated(toy, z, ids=["a b", "b a"], **options)


def test_a_mask_of_padding_on_the_right_is_none(toy, ragged):
    specs = zero(Site("z", 1, pos="S2"))
    mask = ragged.mask.long()
    with hooked(toy, specs, ragged) as model:
        found = model(ragged.tokens, attention_mask=mask)[torch.arange(3), ragged.lengths - 1]
    close(found, run(toy, ragged, specs).logits[:, 0])


# Positions


@pytest.mark.parametrize("cached", [True, False])
def test_a_position_that_is_not_reached(absolute_model, cached, refuses):
    def call(pos, **options):
        specs = zero(Site("z", 1, pos=pos))
        return lambda: generated(absolute_model, specs, use_past_kv_cache=cached, **options)

    call(6)()  # 4 + 4 tokens, of which the last is not run
    says = ["zero L1.z@7 never ran", "ended at position 6"]
    refuses(call(7), *says, kind=HookError)
    refuses(call(7, prompts=Prompts.from_ids(IDS.tolist())), *says)
    refuses(lambda: hooked(absolute_model, zero(Site("z", 1, pos=17))), "has 17 tokens")


def test_every_sequence_has_to_be_long_enough(absolute_model, refuses):
    def call():
        with hooked(absolute_model, zero(Site("z", 1, pos=5))) as model:
            model.generate(IDS, max_new_tokens=4, **GREEDY)
            model.generate(IDS, max_new_tokens=2, **GREEDY)

    refuses(call, "zero L1.z@5 never ran", "ended at position 4", kind=HookError)


def test_end_is_the_end_of_the_prompts(model):
    prompts = Prompts.from_ids(IDS.tolist())
    seen = []

    def look(value, at):
        seen.append((value.shape[1], at.prompts.positions("end").tolist(), at.prompts.roles[0]))
        return value

    by_name = zero(Site("z", 1, pos="end")) + edit(Site("z", 2), look)
    made = generated(model, by_name, prompts, output_logits=True)
    by_number = generated(model, zero(Site("z", 1, pos=3)), output_logits=True)
    for one, other in zip(made.logits, by_number.logits, strict=True):
        close(one, other)
    text = ("text",) * 4
    assert seen == [
        (4, [3, 3], text),
        *((1, [3, 3], (*text, *("output",) * n)) for n in (1, 2, 3)),
    ]


def test_what_an_edit_sees_under_a_cache(model):
    seen = []

    def look(value, at):
        seen.append((value.shape[1], at.prompts.tokens.tolist()))
        return value

    made = generated(model, edit(Site("z", 1), look))
    assert seen == [
        (width, made[:, :length].tolist()) for width, length in ((4, 4), (1, 5), (1, 6), (1, 7))
    ]


def test_what_was_read_before_is_there_at_a_position(model, refuses):
    early, late = Site("resid_pre", 1, pos=2), Site("resid_pre", 1, pos=5)
    copied = read(early) + edit(late, lambda value, at: at.acts[early])
    made = generated(model, copied, output_logits=True)
    close(made.logits[-1], run(model, made.sequences[:, :-1], copied).logits[:, 0])
    whole = read(early.whole()) + edit(late, lambda value, at: at.acts[early])
    says = ["from position 5 on", f"Add read({early!r})"]
    refuses(lambda: generated(model, whole), *says, kind=HookError)
    of_this_pass = read(early.whole()) + edit(late, lambda value, at: at.acts[late])
    assert torch.equal(generated(model, of_this_pass), generated(model, ()))


def test_a_source_of_all_positions_is_refused_at_a_step(model, refuses):
    site = Site("resid_pre", 1)
    for ids in (IDS, IDS[:, :1]):  # of one token it would have fitted
        acts = run(model, ids, read(site)).acts
        says = [f"patch {site}", "key-value cache", "Narrow the site to a position"]
        refuses(lambda i=ids, a=acts: generated(model, patch(site, a), ids=i), *says)
        here = Site("resid_pre", 1, pos=0)
        unchanged = generated(model, patch(here, acts), ids=ids)
        assert torch.equal(unchanged, generated(model, (), ids=ids))


def test_a_knockout_of_a_key_that_is_still_to_come(model, refuses):
    specs = knockout(1, None, None, 5)
    made = generated(model, specs, output_logits=True)
    close(made.logits[-1], run(model, made.sequences[:, :-1], specs).logits[:, 0])
    never = knockout(1, None, None, 7)
    refuses(lambda: generated(model, never), never[0].name, "position 7 was not reached")
    named = knockout(1, None, None, "end")
    refuses(lambda: hooked(model, named), named[0].name, "hooked(model, specs, prompts)")


def test_prompts_that_are_given(model, ragged, refuses):
    prompts, specs = Prompts.from_ids(IDS.tolist()), zero(Site("z", 1, pos="end"))
    other = IDS.flip(1)
    refuses(lambda: generated(model, specs, prompts, ids=other), "other tokens", "[2, 4]")
    refuses(lambda: generated(model, specs, prompts, ids=IDS[:1]), "other tokens, [1, 4]")
    embed = zero(Site("embed", pos="end"))
    with pytest.raises(HookError, match="other tokens"), hooked(model, embed, prompts):
        model(IDS[:1])
    says = ["prompts of different lengths", "prompts of one length"]
    refuses(lambda: generated(model, specs, ragged, ids=ragged.tokens), *says, kind=HookError)


def test_names_that_lie_in_different_passes(model, refuses):
    prompts = Prompts.from_ids(IDS.tolist()).named(S2=[0, 3])

    def in_two_passes():
        cache = cache_of(model)
        with hooked(model, zero(Site("z", 1, pos="S2")), prompts):
            step(model, IDS[:, :2], cache)

    refuses(in_two_passes, "zero L1.z@S2", "Run the prompts in one pass", kind=HookError)


# What runs before the layers, and without tokens


def test_sites_before_the_layers(absolute_model, refuses):
    for act in ("embed", "pos_embed"):
        for options in ({}, {"use_past_kv_cache": False}):
            specs = zero(Site(act, pos=1))
            says = [f"zero {act}@1", 'Use Site("resid_pre", 0)']
            refuses(lambda s=specs, o=options: generated(absolute_model, s, **o), *says)


def test_embeddings_of_unknown_tokens(model, refuses):
    z = zero(Site("z", 1))
    resid = run(model, IDS, read(Site("resid_pre", 1), Site("embed"))).acts
    embeddings = resid[Site("embed")]
    refuses(lambda: generated(model, z, ids=embeddings), "tokens that are not known")

    def from_layer_1():
        with hooked(model, z):
            model(resid[Site("resid_pre", 1)], start_at_layer=1)

    refuses(from_layer_1, "started at layer 1", kind=HookError)


# Caches of one's own


def test_a_cache_that_was_filled_elsewhere(model, refuses):
    cache = cache_of(model)
    with torch.no_grad():
        step(model, IDS, cache)

    def go_on(cache):
        with hooked(model, zero(Site("z", 1))):
            step(model, IDS[:, :1], cache)

    says = ["holds 4 positions that ran outside this context", "Fill it inside"]
    refuses(lambda: go_on(cache), *says, kind=HookError)

    def copied():
        with hooked(model, zero(Site("z", 1))):
            cache = cache_of(model)
            step(model, IDS, cache)
            step(model, IDS[:, :1], copy.deepcopy(cache))

    refuses(copied, "or is a copy", kind=HookError)


def test_two_caches_in_turn(model):
    early, late = Site("resid_pre", 1, pos=2), Site("resid_pre", 1, pos=4)
    specs = read(early) + edit(late, lambda value, at: value + at.prompts.tokens[:, :1, None][:, 0])
    both, more = (IDS, IDS.flip(0) + 1), (torch.tensor([[7], [8]]), torch.tensor([[1], [2]]))
    caches = [cache_of(model), cache_of(model)]
    with hooked(model, specs), torch.no_grad():
        for ids, cache in zip(both, caches, strict=True):
            step(model, ids, cache)
        found = [step(model, i, cache)[:, -1] for i, cache in zip(more, caches, strict=True)]
    for first, then, logits in zip(both, more, found, strict=True):
        close(logits, run(model, torch.cat([first, then], 1), specs).logits[:, 0])


def test_what_one_sequence_read_no_other_gets(model, refuses):
    early, late = Site("resid_pre", 1, pos=2), Site("resid_pre", 1, pos=4)
    specs = read(early) + edit(late, lambda value, at: at.acts[early])

    def call():
        caches = [cache_of(model), cache_of(model)]
        with hooked(model, specs):
            for cache in caches:
                step(model, IDS, cache)
            step(model, IDS[:, :1], caches[0])

    refuses(call, f"{early} was not read", kind=HookError)


def test_a_frozen_cache_is_gone_on_from_twice(model, refuses):
    def call(pos, *lengths):
        specs, cache = zero(Site("z", 1, pos=pos)), cache_of(model)
        found = []
        with hooked(model, specs), torch.no_grad():
            step(model, IDS, cache)
            cache.freeze()
            for length in lengths:
                found.append(step(model, IDS[:, :length], cache))
        return found

    first, second = call(5, 2, 3)
    specs = zero(Site("z", 1, pos=5))
    for logits, n in ((first, 2), (second, 3)):
        close(logits[:, -1], run(model, torch.cat([IDS, IDS[:, :n]], 1), specs).logits[:, 0])
    refuses(lambda: call(6, 3, 2), "ended at position 5", kind=HookError)


# Steering


@pytest.mark.slow
def test_a_difference_of_means_steers_the_text(smollm2):
    good = [
        "I loved this film, it was wonderful and",
        "The meal was delicious, and the staff were kind and",
        "What a beautiful day, I feel happy and",
        "The concert was fantastic, everyone was",
        "This book is a delight, the writing is",
        "Our trip was perfect, the hotel was",
    ]
    bad = [
        "I hated this film, it was terrible and",
        "The meal was disgusting, and the staff were rude and",
        "What a horrible day, I feel sad and",
        "The concert was awful, everyone was",
        "This book is a disaster, the writing is",
        "Our trip was ruined, the hotel was",
    ]
    asked = "I went to the new restaurant and the food was"
    others = [asked, "Yesterday we saw the play, and it was", "The lecture this morning was"]
    site, end = Site("resid_pre", 15), Site("resid_pre", 15, pos="end")
    means = [run(smollm2, texts, read(end)).acts[end].mean(0) for texts in (good, bad)]
    vector = means[0] - means[1]
    sentiment = logit_diff(token_id(smollm2, " good"), token_id(smollm2, " bad"))

    def effect(direction):
        up, down = (run(smollm2, others, add(site, direction, s)) for s in (1.0, -1.0))
        return float((sentiment(up) - sentiment(down)).mean())

    generator = torch.Generator().manual_seed(0)
    controls = [torch.randn(vector.shape, generator=generator) for _ in range(4)]
    controls = [abs(effect(c * vector.norm() / c.norm())) for c in controls]
    assert effect(vector) > 2 * max(controls)

    texts = []
    for scale in (0.0, -2.0):
        with hooked(smollm2, add(site, vector, scale)) as model:
            options = {"max_new_tokens": 3} | GREEDY
            texts.append(model.generate(asked, **options))
            assert model.generate(asked, use_past_kv_cache=False, **options) == texts[-1]
    assert "amazing" in texts[0]
    assert "terrible" in texts[1]
