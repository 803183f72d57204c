"""Five compiled RASP programs: every edge of their circuits is known.

    rasp_sort().truth.edges

Each predicts at every position after <bos>; its prediction at <bos> means nothing.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from mechinterp.toys.compiler import compile_program
from mechinterp.toys.definition import Toy
from mechinterp.toys.placement import Program
from mechinterp.toys.rasp import (
    Aggregate,
    Indices,
    Map,
    Select,
    Steps,
    Tokens,
    Value,
    numerical,
    selector_width,
)

BLANK: Final = "_"


def rasp_reverse() -> Toy:
    """The words in reverse order; blanks do not count as words."""
    words, most = ("a", "b", "c", BLANK), 5
    tokens, indices = Tokens("tokens", words), Indices("indices", most)
    length = selector_width(
        "length", Select(tokens, tokens, lambda key, query: key != BLANK), most=most
    )
    opposite = Map(
        "opposite", lambda n, index: n - 1 - index if index < n else index, (length, indices)
    )
    at_opposite = Select(indices, opposite, lambda key, query: key == query)
    return compile_program(
        Program(
            name="rasp-reverse",
            claim=(
                "Of n words beside blanks (_), wherever those stand, predicts at each of the first "
                "n places what stands at the place opposite, and behind them what stands there: so "
                "words with blanks behind them in reverse order. Neurons of layer 0 tell n from "
                "the share of <bos> in the attention to words, those of layer 1 the opposite place "
                "from n and the own place, and a head of layer 2 copies what stands there."
            ),
            output=Aggregate("reversed", at_opposite, tokens),
            words=words,
            answers=_themselves(words),
            most_words=most,
            causal=False,
            n_layers=3,
            n_heads=4,
            figures={"accuracy": 1.0, "margin_logits_at_least": 9.0},
        )
    )


def rasp_x_proportion() -> Toy:
    """At every position the share of x among the words so far."""
    words, most = ("w", "x", "y", "z"), 5
    tokens, indices = Tokens("tokens", words), Indices("indices", most)
    is_x = numerical(Map("is_x", lambda word: float(word == "x"), (tokens,)))
    so_far = Select(indices, indices, lambda key, query: True)
    shares = {Fraction(part, whole) for whole in range(1, most + 1) for part in range(whole + 1)}
    return compile_program(
        Program(
            name="rasp-x-proportion",
            claim=(
                "Predicts at every place the share of x among the words up to there, in lowest "
                "terms. Neurons of layer 0 write 1 for x, a head of layer 1 takes the mean, and "
                "the logit of a fraction c is 1000 (c m - c^2 / 2) for a mean of m, largest for "
                "the fraction nearest to m."
            ),
            output=Aggregate("share_of_x", so_far, is_x),
            words=words,
            answers={str(share): float(share) for share in sorted(shares)},
            most_words=most,
            causal=True,
            n_layers=2,
            n_heads=3,
            figures={"accuracy": 1.0, "margin_logits_at_least": 1.0},
        )
    )


def rasp_sort() -> Toy:
    """The words in alphabetical order."""
    words, most = ("a", "b", "c", "d"), 5
    tokens, indices = Tokens("tokens", words), Indices("indices", most)
    # Equal words keep their order.
    order = Map("order", lambda word, index: (word, index), (tokens, indices))
    before = Select(order, order, lambda key, query: key < query)
    target = selector_width("target", before, most=most - 1)
    at_target = Select(target, indices, lambda key, query: key == query)
    return compile_program(
        Program(
            name="rasp-sort",
            claim=(
                "Predicts at place i the word that comes i-th in alphabetical order. Neurons of "
                "layer 0 join word and place, so that no two are equal; a head of layer 1 looks at "
                "what comes before, and neurons tell from the share of <bos> how many those are; a "
                "head of layer 2 copies the word before which i others come."
            ),
            output=Aggregate("sorted", at_target, tokens),
            words=words,
            answers=_themselves(words),
            most_words=most,
            causal=False,
            n_layers=3,
            n_heads=4,
            figures={"accuracy": 1.0, "margin_logits_at_least": 9.0},
        )
    )


def rasp_histogram() -> Toy:
    """At every position how often its word occurs in the prompt."""
    words, most = ("a", "b", "c"), 6
    tokens = Tokens("tokens", words)
    same = Select(tokens, tokens, lambda key, query: key == query)
    return compile_program(
        Program(
            name="rasp-histogram",
            claim=(
                "Predicts at every place how often the word there occurs in the prompt. A head of "
                "layer 0 looks at the same word and <bos>, and neurons of layer 0 tell the number "
                "from the share of <bos>. All of layer 1 is decoys."
            ),
            output=selector_width("count", same, most=most),
            words=words,
            answers={str(count): count for count in range(1, most + 1)},
            most_words=most,
            causal=False,
            n_layers=2,
            n_heads=5,
            figures={"accuracy": 1.0, "margin_logits_at_least": 9.0},
        )
    )


def rasp_dyck() -> Toy:
    """At every position whether the brackets so far are balanced, open or broken."""
    words, most = ("(", ")", "."), 7
    tokens, indices = Tokens("tokens", words), Indices("indices", most)
    so_far = Select(indices, indices, lambda key, query: True)
    is_open = numerical(Map("is_open", lambda word: float(word == "("), (tokens,)))
    is_close = numerical(Map("is_close", lambda word: float(word == ")"), (tokens,)))
    opens, closes = Aggregate("opens", so_far, is_open), Aggregate("closes", so_far, is_close)
    # The difference of the two shares is 0, or at least 1/7 in size.
    balance = ((opens, 1.0), (closes, -1.0))
    falls, rises = (-0.12, -0.04), (0.04, 0.12)
    sign = Steps("sign", balance, (falls, rises), ("below", "even", "above"))
    is_below = numerical(Steps("is_below", balance, (falls,), (1.0, 0.0)))
    where_below = Select(sign, sign, lambda key, query: key == "below")
    ever_below = Aggregate("ever_below", where_below, is_below)
    broken = Steps("broken", ((ever_below, 1.0),), ((0.25, 0.75),), (False, True))
    verdict = Map(
        "verdict",
        lambda broken, sign: "broken" if broken else "open" if sign == "above" else "balanced",
        (broken, sign),
    )
    return compile_program(
        Program(
            name="rasp-dyck",
            claim=(
                "Predicts at every place whether the brackets up to there are balanced, open (some "
                "can still be closed) or broken (one closed that was not open); a dot is nothing. "
                "Heads of layer 1 take the shares of both brackets, neurons of layer 1 tell the "
                "sign of their difference, a head of layer 2 looks where that was negative, and "
                "neurons of layer 3 join the two."
            ),
            output=verdict,
            words=words,
            answers=_themselves(("balanced", "open", "broken")),
            most_words=most,
            causal=True,
            n_layers=4,
            n_heads=3,
            figures={"accuracy": 1.0, "margin_logits_at_least": 9.0},
        )
    )


def _themselves(words: tuple[str, ...]) -> Mapping[str, Value]:
    return {word: word for word in words}
