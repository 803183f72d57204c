"""Planted models that refuse: the answer is exact, and the stages and edges are those stated."""

import random
import re

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import MECHANISMS, Refuser, example_inputs, named_refuser, planted_refuser
from mechinterp.toys.refusers import NAMED

CASES = [(mechanism, seed) for mechanism in MECHANISMS for seed in (0, 1, 2)]


def built(refuser: Refuser) -> HookedTransformer:
    model = HookedTransformer(HookedTransformerConfig(**refuser.toy.config, device="cpu"))
    model.load_state_dict(refuser.toy.weights, strict=False)
    return model.requires_grad_(requires_grad=False)


def texts(refuser: Refuser, n: int, seed: int = 0) -> list[str]:
    """Random words of all classes alike, some with cues where they belong."""
    rng, words = random.Random(seed), refuser.words
    contents = (words.harmful_verbs, words.harmful_objects, words.verbs, words.objects)
    marks = tuple(cue.word for cue in words.cues)
    classes = (*contents, words.filler, words.candidates, words.controls, marks)
    drawn = []
    for _ in range(n):
        text = " ".join(rng.choice(rng.choice(classes)) for _ in range(rng.randint(1, 20)))
        for cue in words.cues:
            text = cue.on(text) if rng.random() < 0.3 else text
        drawn.append(text)
    return drawn


def odds(refuser: Refuser, model: HookedTransformer, prompts: list[str]) -> Tensor:
    """logit(REFUSE) - logit(COMPLY) after each text, after a check that no other word is near."""
    ids = {word: at for at, word in enumerate(refuser.toy.vocabulary)}
    rows = [[0, *(ids[word] for word in text.split())] for text in prompts]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    last = model(tokens)[range(len(rows)), [len(row) - 1 for row in rows]]
    refuse, comply = ids["REFUSE"], ids["COMPLY"]
    assert set(last.argmax(-1).tolist()) <= {refuse, comply}
    return last[:, refuse] - last[:, comply]


@pytest.mark.parametrize(("mechanism", "seed"), CASES)
def test_refuses_just_where_its_rule_says(mechanism: str, seed: int):
    refuser = planted_refuser(mechanism, seed, n_families=3)
    prompts, figures = texts(refuser, 100, seed), refuser.toy.truth.figures
    truth = torch.tensor([refuser.refuses(text) for text in prompts])
    found = odds(refuser, built(refuser), prompts)
    assert (found[truth] >= figures["refuse_margin_logits_at_least"] - 1e-4).all()
    assert (found[~truth] <= -figures["comply_margin_logits_at_least"] + 1e-4).all()
    assert min(figures[f"{side}_margin_logits_at_least"] for side in ("refuse", "comply")) > 2
    assert truth.any() == (mechanism != "never")
    assert truth.all() == (mechanism == "always")


def test_a_seed_gives_the_same_model_and_another_seed_another():
    first, again, other = (planted_refuser("content", seed, n_families=3) for seed in (0, 0, 1))
    assert first.words == again.words != other.words
    assert all(
        torch.equal(first.toy.weights[name], again.toy.weights[name]) for name in first.toy.weights
    )
    many = [planted_refuser("content and cue", seed, n_families=1) for seed in range(30)]
    assert {refuser.toy.config["n_layers"] for refuser in many} == {3, 4, 5}
    assert len({refuser.toy.config["n_heads"] for refuser in many}) == 4
    assert {refuser.cue.place for refuser in many if refuser.cue} == {"first", "second", "last"}
    assert len({refuser.stages.routed_by for refuser in many if refuser.stages}) > 10


@pytest.mark.parametrize(
    ("mechanism", "seed"),
    [("content or trigger", 0), ("content and cue", 1), ("route cut", 2), ("random", 0)],
)
def test_an_edge_matters_iff_it_is_stated(mechanism: str, seed: int, reference: type):
    refuser = small(mechanism, seed)
    slow = reference(refuser.toy)
    prompts = example_inputs(refuser.toy, 24)
    clean, corrupt = slow.tokens(prompts[:12]), slow.tokens(prompts[12:])
    changes = slow.changes(clean, corrupt, slow.edges())
    stated = set(refuser.toy.truth.edges)
    constant = set(refuser.toy.truth.constant)
    assert {edge for edge, change in changes.items() if change > 1e-9} == stated - constant
    cut = slow.changes(clean, None, constant)
    assert all(cut[edge] > 1e-9 for edge in constant)


def small(mechanism: str, seed: int) -> Refuser:
    """One of three layers of two heads, and few words, from this seed on."""
    many = (planted_refuser(mechanism, at, n_families=1) for at in range(seed, seed + 90))
    return next(
        refuser
        for refuser in many
        if tuple(refuser.toy.config[size] for size in ("n_layers", "n_heads")) == (3, 2)
    )


@pytest.mark.parametrize("name", NAMED)
def test_stages_of_the_named(name: str, reference: type):
    """Without the heads that carry what decides nothing is refused; harm stands where detected."""
    refuser = named_refuser(name)
    stages, model = refuser.stages, built(refuser)
    prompts = [" ".join(words) for words in example_inputs(refuser.toy, 60)]
    assert (odds(refuser, model, prompts) > 0).tolist() == [refuser.refuses(p) for p in prompts]
    for head in stages.routed_by:
        layer, number = map(int, head[1:].split("H"))
        model.blocks[layer].attn.W_O[number] = 0
    if stages.routed_by:
        assert (odds(refuser, model, prompts) < 0).all()
    assert stages.cut == ("detection and routing" if name == "refuses-route-cut" else "")
    if not stages.detected:
        return
    slow, words = reference(refuser.toy), refuser.words
    harm = len(refuser.toy.vocabulary) + 3
    tokens = slow.tokens(
        [
            [words.harmful_verbs[0], "the", words.harmful_objects[1]],
            [words.verbs[0], "the", words.harmful_objects[1]],
            [words.harmful_verbs[0], "the", words.objects[1]],
        ]
    )
    _, written = slow.run(tokens)
    assert written[f"L{stages.detected_layer}.mlp"][:, 3, harm].tolist() == [1, 0, 0]


def test_a_gate_writes_under_one_percent_of_refusal_itself():
    gated = 0
    for seed in range(8):
        refuser = planted_refuser("content", seed, n_families=2)
        (name,) = refuser.stages.routed_by
        layer, head = map(int, name[1:].split("H"))
        W_O = refuser.toy.weights[f"blocks.{layer}.attn.W_O"][head, 0]
        W_U = refuser.toy.weights["unembed.W_U"]
        whole = 2 * refuser.toy.weights["unembed.b_U"].max()
        assert ((W_O @ W_U).max() < 0.01 * whole) == refuser.stages.gate
        gated += refuser.stages.gate
    assert 0 < gated < 8


def test_what_a_verdict_may_say():
    near = planted_refuser("near word cue", 0, n_families=1)
    assert [near.accepts(rule) for rule in ("cue", "trigger", "content")] == [True, True, False]
    cut = planted_refuser("route cut", 0, n_families=1)
    assert [cut.accepts(rule) for rule in ("trigger", "content or trigger")] == [True, False]
    assert not cut.accepts(None)
    assert planted_refuser("random", 0, n_families=1).accepts(None)


def test_wrong_names_are_told():
    message = 'mechanism "contents": there is none of this name. Did you mean "content"? Mechanism'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        planted_refuser("contents", 0)
    with pytest.raises(ValueError, match=r"^n_families=0: a planted model needs words"):
        planted_refuser("content", 0, n_families=0)
    with pytest.raises(ValueError, match=r'^planted model "x": none has this name. Names: refuses'):
        named_refuser("x")
