import pytest
import torch

from mechinterp.tasks.capitals import CAPITALS, country_capitals


@pytest.fixture(params=["pairs", "digits", "words"])
def speaker(request):
    return request.getfixturevalue(request.param)


def test_answers_are_the_capitals(speaker, at, said):
    made = country_capitals(speaker, n=30)
    clean, corrupt = at(made.pair.clean, "subject"), at(made.pair.corrupt, "subject")
    assert said(speaker, made.answers) == [CAPITALS[country] for country in clean]
    assert said(speaker, made.others) == [CAPITALS[country] for country in corrupt]
    assert all(one != other for one, other in zip(clean, corrupt, strict=True))
    assert set(at(made.pair.clean, "end")) == {"is"}


def test_every_capital_is_of_one_country():
    assert len(set(CAPITALS.values())) == len(CAPITALS)


def test_all_that_there_are(digits, at, refuses):
    # France and London are several tokens of this tokenizer: so neither France nor England
    known = set(CAPITALS) - {"France", "England"}
    made = country_capitals(digits, n=len(known))
    assert set(at(made.pair.clean, "subject")) == known
    assert set(at(made.pair.corrupt, "subject")) < known
    more = len(known) + 1
    refuses(
        lambda: country_capitals(digits, n=more),
        f"capitals: n={more}",
        f"Ask for 1 to {len(known)}.",
    )


def test_the_metric_is_the_logit_difference(speaker, measured):
    made = country_capitals(speaker, n=6)
    value, logits = measured(made, speaker)
    rows = torch.arange(6)
    assert torch.equal(value, logits[rows, made.answers] - logits[rows, made.others])


def test_too_few_countries(without, refuses):
    countries, cities = list(CAPITALS), list(CAPITALS.values())
    refuses(lambda: country_capitals(without(*countries[1:])), "capitals", "countries", "only 1")
    disjoint = without(*countries[:20], *cities[20:])
    refuses(
        lambda: country_capitals(disjoint),
        "capitals: only 0 of its 50 countries",
        "with their capitals",
    )
