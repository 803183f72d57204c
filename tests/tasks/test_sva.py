import pytest
import torch

from mechinterp.tasks.sva import NOUNS, PREPOSITIONS, subject_verb

PLURALS = set(NOUNS.values())


@pytest.fixture(params=["pairs", "digits", "words"])
def speaker(request):
    return request.getfixturevalue(request.param)


def test_the_verb_agrees_with_the_subject_and_not_with_the_attractor(speaker, at, said):
    made = subject_verb(speaker, n=40)
    clean = made.pair.clean
    right, wrong = said(speaker, made.answers), said(speaker, made.others)
    assert right == ["are" if word in PLURALS else "is" for word in at(clean, "subject")]
    assert wrong == ["are" if word in PLURALS else "is" for word in at(clean, "attractor")]
    assert wrong == ["is" if verb == "are" else "are" for verb in right]
    assert 8 < right.count("is") < 32
    assert torch.equal(clean.positions("end"), clean.positions("attractor"))
    assert {len(row) for row in clean.token_text} == {6}  # <bos> and five words


def test_the_corrupt_subject_is_the_same_noun_in_the_other_number(speaker, at):
    pair = subject_verb(speaker, n=40).pair
    other = NOUNS | {plural: singular for singular, plural in NOUNS.items()}
    assert at(pair.corrupt, "subject") == [other[word] for word in at(pair.clean, "subject")]
    assert at(pair.corrupt, "attractor") == at(pair.clean, "attractor")
    assert all(
        other[s] != a != s
        for s, a in zip(at(pair.clean, "subject"), at(pair.clean, "attractor"), strict=True)
    )


def test_nouns_need_both_numbers(digits, at):
    clean = subject_verb(digits, n=300).pair.clean  # "children" is several tokens
    found = {*at(clean, "subject"), *at(clean, "attractor")}
    assert not found & {"child", "children"}
    assert {"cabinet", "cabinets"} <= found


def test_the_metric_is_the_logit_difference(speaker, measured):
    made = subject_verb(speaker, n=6)
    value, logits = measured(made, speaker)
    rows = torch.arange(6)
    assert torch.equal(value, logits[rows, made.answers] - logits[rows, made.others])


def test_too_few_words(without, refuses):
    refuses(lambda: subject_verb(without("are")), "sva", "verbs", "only 1", "2 are needed")
    refuses(lambda: subject_verb(without(*PREPOSITIONS)), "sva", "prepositions", "only 0")
    plurals = without(*list(NOUNS)[1:])
    refuses(lambda: subject_verb(plurals), "sva: only 1 of its 30 nouns", "both numbers")


def test_as_many_as_there_are(without, refuses):
    few = without(*list(NOUNS)[2:], *PREPOSITIONS[1:])
    # two nouns, in both orders, one preposition, two numbers
    rows = subject_verb(few, n=4).pair.clean.tokens.tolist()
    assert len({tuple(row) for row in rows}) == 4
    refuses(lambda: subject_verb(few, n=5), "sva: n=5", "Ask for 1 to 4.")
