"""Each program predicts what it says on every input that there is, by the edges that it states."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import Toy, example_inputs, toy


def reversed_words(words: Sequence[str]) -> list[str]:
    n = sum(word != "_" for word in words)
    return [*words[:n][::-1], *words[n:]]


def share_of_x(words: Sequence[str]) -> list[str]:
    prefixes = (words[: end + 1] for end in range(len(words)))
    return [str(Fraction(prefix.count("x"), len(prefix))) for prefix in prefixes]


def counts(words: Sequence[str]) -> list[str]:
    return [str(words.count(word)) for word in words]


def verdicts(words: Sequence[str]) -> list[str]:
    found = []
    depth, is_broken = 0, False
    for word in words:
        depth += (word == "(") - (word == ")")
        is_broken = is_broken or depth < 0
        found.append("broken" if is_broken else "open" if depth else "balanced")
    return found


PROGRAMS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "rasp-reverse": reversed_words,
    "rasp-x-proportion": share_of_x,
    "rasp-sort": sorted,
    "rasp-histogram": counts,
    "rasp-dyck": verdicts,
}


@cache
def build(name: str) -> tuple[Toy, HookedTransformer]:
    built = toy(name)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    return built, model.requires_grad_(False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_input_gives_the_right_answer_at_every_place(name: str) -> None:
    built, model = build(name)
    ids = {word: at for at, word in enumerate(built.vocabulary)}
    margins = []
    for length in range(1, len(built.places) + 1):
        inputs = list(itertools.product(*built.places[:length]))
        tokens = torch.tensor([[0, *(ids[word] for word in words)] for words in inputs])
        right = torch.tensor([[ids[word] for word in PROGRAMS[name](words)] for words in inputs])
        logits = model(tokens)[:, 1:]
        chosen = logits.gather(2, right[..., None]).squeeze(2)
        others = logits.scatter(2, right[..., None], -torch.inf).amax(2)
        margins.append((chosen - others).min().item())
    assert min(margins) >= built.truth.figures["margin_logits_at_least"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_edge_carries_another_prompt_iff_it_is_stated(name: str, reference: type) -> None:
    """By brute force; an edge that is constant is cut instead."""
    built, _ = build(name)
    slow, truth = reference(built), built.truth
    tokens = slow.tokens(example_inputs(built, 40))
    changes = slow.changes(tokens[:20], tokens[20:], slow.edges())
    assert {edge for edge, change in changes.items() if change > 5} == {*truth.edges} - {
        *truth.constant
    }
    assert all(change == 0 for change in changes.values() if change <= 5)
    cut = slow.changes(tokens[:20], None, slow.edges())
    assert {edge for edge, change in cut.items() if change > 5} == {*truth.edges}
    assert all(change == 0 for change in cut.values() if change <= 5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_edge_that_is_not_stated_carries_something_all_the_same(
    name: str, reference: type
) -> None:
    """Every head and MLP reads every earlier writer: only where it leads to tells them apart."""
    built, _ = build(name)
    slow = reference(built)
    _, written = slow.run(slow.tokens(example_inputs(built, 40)))
    for edge in slow.edges():
        if edge.reader != "logits":
            assert slow.seen(edge, written[edge.writer]).std() > 0.002, edge


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_slow_run_is_that_of_the_library(name: str, reference: type) -> None:
    built, model = build(name)
    slow = reference(built)
    tokens = slow.tokens(example_inputs(built, 40))
    logits, _ = slow.run(tokens)
    torch.testing.assert_close(model(tokens), logits.float(), atol=2e-3, rtol=1e-5)


def test_the_edges_of_the_histogram_by_hand() -> None:
    truth = toy("rasp-histogram").truth
    ((_, head),) = truth.heads["count_share"]
    assert {(edge.writer, edge.reader) for edge in truth.edges} == {
        ("embed", f"L0H{head}.q"),
        ("embed", f"L0H{head}.k"),
        ("embed", f"L0H{head}.v"),
        (f"L0H{head}", "L0.mlp"),
        ("L0.mlp", "logits"),
    }
    assert [edge.reader for edge in truth.constant] == [f"L0H{head}.v"]  # only <bos> is read
