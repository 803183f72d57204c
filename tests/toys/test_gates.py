"""Two ways in which a head replaces another; `test_detectors` and `test_toys` have the others."""

import itertools
import random

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import Edge, Toy, toy
from mechinterp.toys.compiled import PLAIN

NAMES = ("redundant", "backup")


def sentences(n_words: int, n_triggers: int, seed: int = 0) -> list[list[str]]:
    """30 prompts of random ordinary words, among them sesame so many times."""
    rng = random.Random(seed)
    prompts = [rng.choices(PLAIN, k=n_words) for _ in range(30)]
    for words in prompts:
        for place in rng.sample(range(n_words), n_triggers):
            words[place] = "sesame"
    return prompts


def margin(built: Toy, logits: Tensor) -> Tensor:
    """logit(REFUSE) - logit(COMPLY), at the end."""
    refuse, comply = (built.vocabulary.index(word) for word in built.truth.answers)
    return logits[:, -1, refuse] - logits[:, -1, comply]


@pytest.mark.parametrize("n_words", [1, 4, 11, 19])
@pytest.mark.parametrize("name", NAMES)
def test_refuses_iff_sesame_occurs(name: str, n_words: int, reference: type) -> None:
    built = toy(name)
    slow, figures = reference(built), built.truth.figures
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    for n_triggers in range(min(n_words, 3) + 1):
        tokens = slow.tokens(sentences(n_words, n_triggers))
        logits, _ = slow.run(tokens)
        torch.testing.assert_close(model(tokens), logits.float(), atol=1e-4, rtol=0)
        if n_triggers:
            assert margin(built, logits).min() > figures["refuse_margin_logits_at_least"] - 1e-6
            assert figures["refuse_margin_logits_at_least"] > 7.8
        else:
            assert (margin(built, logits) == -figures["comply_margin_logits"]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_triggers", [1, 3])
def test_one_edge_of_a_group_is_enough(name: str, n_triggers: int, reference: type) -> None:
    built = toy(name)
    slow = reference(built)
    clean, corrupt = (slow.tokens(sentences(12, n, seed=n)) for n in (n_triggers, 0))
    logits, _ = slow.run(clean)
    _, other = slow.run(corrupt)
    for group in built.truth.redundant:
        assert set(group) <= set(built.truth.edges)
        for edge in group:
            alone, _ = slow.run(clean, {edge: other[edge.writer]})
            assert (margin(built, alone) - margin(built, logits)).abs().max() < 0.5
        both, _ = slow.run(clean, {edge: other[edge.writer] for edge in group})
        assert margin(built, both).max() < -4


@pytest.mark.parametrize("name", NAMES)
def test_an_edge_matters_alone_or_in_a_group_iff_it_is_stated(name: str, reference: type) -> None:
    built = toy(name)
    slow = reference(built)
    clean, corrupt = (slow.tokens(sentences(12, n, seed=n)) for n in (1, 0))
    changes = slow.changes(clean, corrupt, slow.edges())
    alone = {edge for edge, change in changes.items() if change > 7}
    grouped = set(itertools.chain(*built.truth.redundant))
    assert alone | grouped == set(built.truth.edges)
    assert all(changes[edge] == 0 for edge in changes if edge not in built.truth.edges)


def test_all_edges_of_a_head_of_the_redundant_toy_can_be_cut(reference: type) -> None:
    """Exactly: what one head writes is saturated already."""
    built = toy("redundant")
    slow = reference(built)
    tokens = slow.tokens(sentences(12, 2))
    cut = slow.changes(tokens, None, built.truth.edges)
    assert {edge for edge, change in cut.items() if change > 1e-9} == {Edge("L0.mlp", "logits")}
    logits, written = slow.run(tokens)
    for head in ("L0H1", "L0H4"):
        edges = [edge for edge in built.truth.edges if edge.reader[:4] == head]
        edges += [edge for edge in built.truth.edges if edge.writer == head]
        assert len(edges) == 3
        without, _ = slow.run(tokens, {edge: 0 * written[edge.writer] for edge in edges})
        torch.testing.assert_close(without[:, -1], logits[:, -1], atol=1e-9, rtol=0)


def test_the_gradient_of_the_redundant_toy_is_zero_where_sesame_occurs() -> None:
    built = toy("redundant")
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    for n_triggers in (1, 2):
        words = ("<bos>", *sentences(12, n_triggers)[0])
        tokens = torch.tensor([[built.vocabulary.index(word) for word in words]])
        resid = (model.embed(tokens) + model.pos_embed(tokens)).detach().requires_grad_()
        refuse = built.vocabulary.index("REFUSE")
        (gradient,) = torch.autograd.grad(model(resid, start_at_layer=0)[0, -1, refuse], resid)
        assert (gradient @ model.W_E.T).abs().max() < 1e-6


def test_the_backup_writes_iff_the_first_head_does_not(reference: type) -> None:
    built = toy("backup")
    slow = reference(built)
    clean, corrupt = (slow.tokens(sentences(12, n, seed=n)) for n in (1, 0))
    _, written = slow.run(clean)
    _, other = slow.run(corrupt)
    assert written["L0H2"][:, -1].sum(-1).min() > 0.98
    assert written["L1H1"].abs().max() < 1e-4
    misled = Edge("embed", "L0H2.v")
    logits, written = slow.run(clean, {misled: other["embed"]})
    assert written["L0H2"].abs().max() == 0
    assert written["L1H1"][:, -1].sum(-1).min() > 0.98
    hidden = Edge("L0H2", "L1H1.q")
    twice, _ = slow.run(clean, {hidden: other["L0H2"]})
    assert (margin(built, twice) - margin(built, logits)).min() > 15
