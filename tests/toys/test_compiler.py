"""What compiles, computes; what would not is refused."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys.compiler import compile_program
from mechinterp.toys.placement import Program, place_program
from mechinterp.toys.rasp import (
    Aggregate,
    Indices,
    Map,
    Select,
    SOp,
    Steps,
    Tokens,
    numerical,
    selector_width,
)

WORDS = ("a", "b", "c")
MOST = 3
PROMPTS = list(itertools.product(WORDS, repeat=MOST))
TOKENS, INDICES = Tokens("tokens", WORDS), Indices("indices", MOST)
TABLES = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=3, max_size=3)


def program(output: SOp, *, causal: bool = False, n_heads: int = 2) -> Program:
    return Program(
        name="tried",
        claim="",
        output=output,
        words=WORDS,
        answers={str(value): value for value in output.values or (0.0, 1.0)},
        most_words=MOST,
        causal=causal,
        n_layers=1,
        n_heads=n_heads,
        figures={},
    )


def written(output: SOp, *, causal: bool = False) -> Tensor:
    """What stands in the block of the output, for all prompts, <bos> left out."""
    tried = program(output, causal=causal)
    built = compile_program(tried)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    ids = [[0, *(built.vocabulary.index(word) for word in words)] for words in PROMPTS]
    _, acts = model.requires_grad_(False).run_with_cache(torch.tensor(ids))
    return acts["resid_post", -1][:, 1:, place_program(tried).blocks[output]]


def values(output: SOp, *, causal: bool = False) -> list[list[object]]:
    """The value of a categorical output, of which no direction holds something in between."""
    found = written(output, causal=causal)
    assert (found * (1 - found)).abs().max() < 0.02
    assert (found.sum(-1) - 1).abs().max() < 0.02
    return [[output.values[at] for at in row] for row in found.argmax(-1).tolist()]


def select(table: Sequence[Sequence[bool]], keys: SOp = TOKENS) -> Select:
    """Which words look at which keys, by a table with a row for each word."""
    return Select(
        keys,
        TOKENS,
        lambda key, query: table[WORDS.index(query)][keys.values.index(key)],
    )


def seen(words: Sequence[str], at: int, causal: bool) -> Sequence[str]:
    return words[: at + 1] if causal else words


@given(outputs=st.lists(st.sampled_from("pqr"), min_size=9, max_size=9))
@settings(max_examples=settings.default.max_examples // 3)
def test_a_map_of_two_is_its_function(outputs: list[str]) -> None:
    table = dict(zip(itertools.product(WORDS, range(MOST)), outputs, strict=True))
    joined = Map("joined", lambda word, index: table[word, index], (TOKENS, INDICES))
    wanted = [[table[word, at] for at, word in enumerate(words)] for words in PROMPTS]
    assert values(joined) == wanted


@pytest.mark.parametrize("causal", [False, True])
@given(table=TABLES)
@settings(max_examples=settings.default.max_examples // 2)
def test_a_selector_width_is_how_many_keys_are_selected(
    causal: bool, table: list[list[bool]]
) -> None:
    width = selector_width("width", select(table), most=MOST)
    wanted = [
        [
            sum(table[WORDS.index(word)][WORDS.index(key)] for key in seen(words, at, causal))
            for at, word in enumerate(words)
        ]
        for words in PROMPTS
    ]
    assert values(width, causal=causal) == wanted


@pytest.mark.parametrize("causal", [False, True])
@given(table=TABLES, numbers=st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=3, max_size=3))
@settings(max_examples=settings.default.max_examples // 2)
def test_an_aggregate_is_the_mean_over_what_is_selected(
    causal: bool, table: list[list[bool]], numbers: list[float]
) -> None:
    """Of nothing it is 0: <bos> is looked at, and holds nothing."""
    number = numerical(Map("number", lambda word: numbers[WORDS.index(word)], (TOKENS,)))
    found = written(Aggregate("mean", select(table), number), causal=causal).squeeze(2)
    for words, row in zip(PROMPTS, found.tolist(), strict=True):
        for at, (word, value) in enumerate(zip(words, row, strict=True)):
            ids = [WORDS.index(key) for key in seen(words, at, causal)]
            selected = [numbers[key] for key in ids if table[WORDS.index(word)][key]]
            wanted = sum(selected) / len(selected) if selected else 0
            assert value == pytest.approx(wanted, abs=0.05)


def test_steps_are_flat_but_for_their_ramps() -> None:
    first, second = (
        numerical(Map(name, lambda word, name=name: float(word == name), (TOKENS,)))
        for name in "ab"
    )
    ramps = ((-0.75, -0.25), (0.25, 0.75))
    steps = Steps("sign", ((first, 1.0), (second, -1.0)), ramps, ("minus", "none", "plus"))
    sign = {"a": "plus", "b": "minus", "c": "none"}
    assert values(steps) == [[sign[word] for word in words] for words in PROMPTS]


def test_a_layer_without_a_head_left() -> None:
    table = [[True, False, False]] * 3
    u, v, w, x = (selector_width(name, select(table), most=1) for name in "uvwx")
    first, second = (Map("pair", lambda *both: both, pair) for pair in [(u, v), (w, x)])
    output = Map("all", lambda *both: both, (first, second))
    with pytest.raises(ValueError, match=r"^x_share: layer 0 has no head left. Raise n_heads."):
        compile_program(program(output, n_heads=3))
    assert len(compile_program(program(output, n_heads=4)).truth.heads["decoy"]) == 2 * 4


def test_keys_that_hold_something_at_the_start() -> None:
    n_words = selector_width("n_words", Select(TOKENS, TOKENS, lambda key, query: True), most=MOST)
    same = Select(n_words, n_words, lambda key, query: key == query)
    with pytest.raises(ValueError, match=r"^mean: its keys, n_words, hold something unknown at"):
        compile_program(program(Aggregate("mean", same, TOKENS)))
    joined = Map("joined", lambda n, index: (n, index), (n_words, INDICES))
    same = Select(joined, joined, lambda key, query: key == query)
    assert values(Aggregate("mean", same, TOKENS)) == [list(words) for words in PROMPTS]
