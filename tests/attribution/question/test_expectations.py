import itertools

import numpy as np
import pytest
import xarray as xr

from mechinterp import attribute, load_model
from mechinterp.attribution.question.expectations import average_precision, compare, p_value_of

WORDS = ("<bos>", "please", " bring", " the", " ses", "ame", " now")


def scored(*rows, words=WORDS):
    return xr.DataArray(
        np.array(rows, dtype=float),
        dims=("output", "input"),
        coords={
            "output": range(len(rows)),
            "input": range(len(words)),
            "output_token": ("output", [f"out{i}" for i in range(len(rows))]),
            "input_token": ("input", list(words)),
        },
    )


SCORES = scored([np.nan, 0.1, -0.5, 0.0, 4.0, 2.0, 3.0])


def test_all_expected_on_top_is_as_expected():
    (found,) = compare(SCORES, ["sesame", " now"])
    assert found.verdict == "as expected"
    assert [(r.input, r.rank) for r in found.expected] == [(4, 1), (6, 2), (5, 3)]
    assert found.unexpected_above == ()
    assert (found.precision_at_k, found.average_precision) == (1.0, 1.0)
    assert found.share_of_mass == pytest.approx(9 / 9.6)
    assert found.p_value == pytest.approx(1 / 20)  # one of the 20 ways to choose 3 of 6


def test_an_unexpected_token_above_is_named_first_and_changes_the_verdict():
    (found,) = compare(SCORES, ["sesame"])
    assert [r.token for r in found.unexpected_above] == [" now"]
    assert found.verdict == "not as expected"
    assert "now" in found.reason
    assert "rank 2" in found.reason
    # ranks 1 and 3: (1 + 2/3) / 2; as good: {1,2} {1,3} of 15 choices
    assert found.average_precision == pytest.approx(5 / 6)
    assert found.p_value == pytest.approx(2 / 15)


def test_many_tokens_make_a_near_hit_partly_as_expected():
    words = tuple(f" w{i}" for i in range(40))
    row = np.zeros(40)
    row[[3, 7, 9]] = [5.0, 4.0, 3.0]
    (found,) = compare(scored(row, words=words), [" w3", " w9"])
    assert found.verdict == "partly as expected"
    assert found.p_value < 0.05


def test_a_strong_negative_score_ranks_by_its_size():
    (found,) = compare(scored([np.nan, 1.0, -9.0, 0.0, 0.0, 0.0, 0.0]), ["bring"])
    assert found.expected[0].rank == 1
    assert found.expected[0].score == -9.0


def test_nothing_matters_is_not_as_expected():
    (found,) = compare(scored([np.nan, 0, 0, 0, 0, 0, 0]), ["now"])
    assert found.verdict == "not as expected"
    assert "No input token" in found.reason


def test_one_list_gives_the_mean_and_each_output_a_mapping_those_it_names():
    both = scored([np.nan, 0, 0, 0, 0, 0, 4.0], [np.nan, 2.0, 0, 0, 0, 0, 0])
    overall, first, second = compare(both, ["now"])
    assert (overall.output, first.output, second.output) == (None, 0, 1)
    assert [c.expected[0].score for c in (overall, first, second)] == [2.0, 4.0, 0.0]
    (only,) = compare(both, {1: ["please"]})
    assert (only.output, only.output_token, only.verdict) == (1, "out1", "as expected")


@pytest.mark.parametrize(
    ("item", "positions"),
    [("now", [6]), ("sesame", [4, 5]), ("the sesame", [3, 4, 5]), (2, [2]), ((4, 5), [4, 5])],
)
def test_expected_tokens_are_words_phrases_positions_or_spans(item, positions):
    (found,) = compare(SCORES, [item])
    assert sorted(r.input for r in found.expected) == positions


@pytest.mark.parametrize("item", ["same", "bos", "<bos>", 0, 99, (5, 7), ""])
def test_an_expected_token_that_is_not_there_is_an_error_with_those_that_are(item):
    with pytest.raises(ValueError, match=r"not among the attributed.*' now'"):
        compare(SCORES, [item])


def test_an_output_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="the outputs are 0 to 0"):
        compare(SCORES, {3: ["now"]})


def test_a_bare_string_is_refused():
    with pytest.raises(ValueError, match="give a list"):
        compare(SCORES, "now")


def test_average_precision_against_its_definition():
    hits = np.array([False, True, True, False, True])
    assert average_precision(hits) == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize(("n", "k"), [(5, 1), (6, 3), (7, 7)])
def test_chance_counts_every_choice(n, k):
    values = []
    for chosen in itertools.combinations(range(n), k):
        hits = np.zeros(n, dtype=bool)
        hits[list(chosen)] = True
        values.append(average_precision(hits))
    for value in set(values):
        at_least = sum(v >= value - 1e-12 for v in values) / len(values)
        assert p_value_of(value, n, k, seed=0) == pytest.approx(at_least)


def test_chance_by_draws_is_close_to_the_exact_one_and_repeats():
    n, k = 60, 4
    perfect = p_value_of(1.0, n, k, seed=1)
    assert perfect == p_value_of(1.0, n, k, seed=1)
    assert perfect < 0.001
    assert p_value_of(0.0, n, k, seed=1) == 1.0


def test_an_expectation_of_everything_says_nothing():
    scores = attribute(load_model("toy:trigger"), "the sesame", outputs=1)
    with pytest.raises(ValueError, match="every attributed input is expected"):
        compare(scores, ["the", "sesame"])
