import pytest
import torch

from mechinterp.tasks.greater_than import NOUNS, greater_than_years


def years(prompts):
    """Century, year, century again: read off the text."""
    texts = ["".join(row[1:]) for row in prompts.token_text]
    words = [text.split() for text in texts]
    return [(int(w[6][:2]), int(w[6][2:]), int(w[-1])) for w in words], {w[1] for w in words}


def test_years_of_two_tokens(pairs, at, said):
    made = greater_than_years(pairs, n=60)
    found, nouns = years(made.pair.clean)
    assert all(2 <= year <= 98 and century == end for century, year, end in found)
    assert {century for century, _, _ in found} == set(range(11, 18))
    assert nouns < set(NOUNS)
    assert "war" not in nouns  # two tokens of this tokenizer
    assert at(made.pair.clean, "XX") == at(made.pair.clean, "end") == [str(c) for c, _, _ in found]
    assert at(made.pair.clean, "YY") == [f"{year:02}" for _, year, _ in found]
    assert said(pairs, made.answers) == [f"{year + 1:02}" for _, year, _ in found]
    assert said(pairs, made.others) == [f"{year:02}" for _, year, _ in found]


def test_years_of_a_token_for_each_digit(digits, at, said):
    made = greater_than_years(digits, n=60)
    found, _ = years(made.pair.clean)
    assert all(10 <= year <= 98 and year % 10 < 9 and c == end for c, year, end in found)
    assert (
        at(made.pair.clean, "XX")
        == at(made.pair.clean, "end")
        == [str(c % 10) for c, _, _ in found]
    )
    assert at(made.pair.clean, "YY") == [str(year // 10) for _, year, _ in found]
    assert said(digits, made.answers) == [str(year // 10) for _, year, _ in found]
    assert said(digits, made.others) == [str(year // 10 - 1) for _, year, _ in found]


def test_the_corrupt_year_ends_in_01(model):
    made = greater_than_years(model, n=30)
    clean, corrupt = (years(side)[0] for side in (made.pair.clean, made.pair.corrupt))
    assert [(c, 1, e) for c, _, e in clean] == corrupt
    year = made.pair.clean.positions("YY")[:, None]
    places = torch.arange(made.pair.clean.width)
    digits = 1 if len(made.pair.clean.token_text[0][int(year[0])]) == 2 else 2
    assert not bool((made.pair.differ & ~((places >= year) & (places < year + digits))).any())


def test_the_metric_by_hand(model, measured):
    made = greater_than_years(model, n=20)
    value, logits = measured(made, model)
    two = len(made.pair.clean.token_text[0][int(made.pair.clean.positions("YY")[0])]) == 2
    for row, (_, year, _) in enumerate(years(made.pair.clean)[0]):
        probs = logits[row].double().softmax(-1)
        expected = 0.0
        for candidate in range(100 if two else 10):
            token = model.tokenizer.convert_tokens_to_ids(
                f"{candidate:02}" if two else str(candidate)
            )
            right = candidate > year if two else candidate >= year // 10
            expected += float(probs[token]) * (1 if right else -1)
        assert float(value[row]) == pytest.approx(expected, abs=1e-12)


def test_the_metric_goes_from_minus_one_to_one(model, measured):
    made = greater_than_years(model, n=8)
    for tokens, expected in ((made.answers, 1.0), (made.others, -1.0)):
        sure = torch.zeros(8, model.cfg.d_vocab)
        sure[torch.arange(8), tokens] = 200.0
        torch.testing.assert_close(
            measured(made, model, sure)[0], torch.full((8,), expected).double()
        )
    elsewhere = torch.zeros(8, model.cfg.d_vocab)
    elsewhere[:, model.tokenizer.bos_token_id] = 200.0
    torch.testing.assert_close(measured(made, model, elsewhere)[0], torch.zeros(8).double())


def test_the_metric_is_for_these_prompts(model, measured, refuses):
    made = greater_than_years(model, n=8)
    refuses(
        lambda: measured(made, model, torch.zeros(5, model.cfg.d_vocab)), "prob_diff: 8 answers"
    )


def test_years_that_are_one_word(words, refuses):
    refuses(
        lambda: greater_than_years(words),
        "greater-than: this model's tokenizer reads ' 1732' as ['1732']",
        "use another model",
        kind=ValueError,
    )


def test_as_many_as_there_are(digits, refuses):
    refuses(lambda: greater_than_years(digits, n=10**6), "greater-than: n=1000000", "Ask for 1 to")
    # tens digits 1 to 9, last digits 0 to 8, seven centuries, all nouns but "war"
    possible = 9 * 9 * 7 * (len(NOUNS) - 1)
    refuses(lambda: greater_than_years(digits, n=possible + 1), f"there are {possible}")


@pytest.mark.slow
def test_smollm2_is_asked_the_tens_digit(smollm2, at, said):
    made = greater_than_years(smollm2, n=12)
    found, _ = years(made.pair.clean)
    assert (
        at(made.pair.clean, "YY")
        == said(smollm2, made.answers)
        == [str(y // 10) for _, y, _ in found]
    )
    assert at(made.pair.clean, "end") == [str(c % 10) for c, _, _ in found]
