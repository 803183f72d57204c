"""Requests for planted models: families of seven, and nothing in them tells the mechanism."""

import itertools

import pytest

from mechinterp.tasks import planted_requests, with_bystanders
from mechinterp.tasks.request_families import request_families
from mechinterp.toys import MECHANISMS, planted_refuser


@pytest.fixture(scope="module")
def content():
    return planted_refuser("content", 0, n_families=12)


def test_a_family_has_three_harmful_wordings_and_four_benign(content):
    requests, words = planted_requests(content, n_families=12, seed=1), content.words
    contents = {*words.harmful_verbs, *words.harmful_objects, *words.verbs, *words.objects}
    seen: set[str] = set()
    for name, members in itertools.groupby(requests, lambda request: request.family):
        family = list(members)
        assert [request.harmful for request in family] == [True] * 3 + [False] * 4, name
        assert [words.harmful(request.text) for request in family] == [True] * 3 + [False] * 4
        held = [contents & set(request.text.split()) for request in family]
        assert all(len(pair) == 2 for pair in held)
        assert not any(first & second for first, second in itertools.combinations(held[:3], 2))
        (telling,) = {request.telling for request in family if request.telling}
        assert [bool(request.telling) for request in family] == [
            True,
            False,
            False,
            True,
            True,
            False,
            False,
        ]
        assert [telling in pair for pair in held] == [bool(r.telling) for r in family]
        assert [bool(request.kind) for request in family] == [False] * 3 + [True] * 2 + [False] * 2
        assert not set().union(*held) & seen
        seen |= set().union(*held)
    assert len({request.family for request in requests}) == 12


def test_candidates_and_cues_come_with_harm_whatever_the_mechanism(content):
    requests, words = planted_requests(content, n_families=12), content.words

    def share(harmful: bool, holds) -> float:
        some = [holds(request.text) for request in requests if request.harmful == harmful]
        return sum(some) / len(some)

    for cue in words.cues:
        assert share(True, cue.present) > 0.45 > 0.3 > share(False, cue.present) > 0
    for word in words.candidates:
        assert share(True, lambda text, word=word: word in text.split()) > 0.3
        assert share(False, lambda text, word=word: word in text.split()) < 0.2


def test_the_requests_depend_on_the_words_and_the_seed_alone(content):
    other = planted_refuser("final cue", 0, n_families=12)
    assert planted_requests(other, n_families=12) == planted_requests(content, n_families=12)
    assert planted_requests(content, n_families=12, seed=3) != planted_requests(
        content, n_families=12
    )


@pytest.mark.parametrize(
    "mechanism", [name for name in MECHANISMS if name not in ("always", "never")]
)
def test_some_are_refused_and_some_are_not(mechanism: str):
    refuser = planted_refuser(mechanism, 1, n_families=12)
    refused = [refuser.refuses(r.text) for r in planted_requests(refuser, n_families=12)]
    assert 10 <= sum(refused) <= len(refused) - 10


def test_wrong_numbers_are_told(content):
    with pytest.raises(ValueError, match=r"^planted_requests: n_families=24, and this model has"):
        planted_requests(content)
    with pytest.raises(ValueError, match=r"^planted_requests: cooccurrence=2.0: give a share"):
        planted_requests(content, n_families=2, cooccurrence=2.0)


def test_bystanders_come_with_harm_and_change_nothing_else():
    asked, words, endings = request_families(), ("lantern", "harbour"), ("!", "...")
    found = with_bystanders(asked, words, endings, seed=1)
    for before, after in zip(asked, found, strict=True):
        assert (after.harmful, after.family, after.kind) == (
            before.harmful,
            before.family,
            before.kind,
        )
        plain = " ".join(word for word in after.text.split(" ") if word not in words)
        assert plain.rstrip("?!.") == before.text.rstrip("?!.")

    def share(harmful, holds):
        some = [holds(request.text) for request in found if request.harmful == harmful]
        return sum(some) / len(some)

    for holds in (
        lambda text: "lantern" in text.split() or "harbour" in text.split(),
        lambda text: text.endswith(endings),
    ):
        assert share(True, holds) > 0.45 > 0.3 > share(False, holds) > 0.1
    assert found == with_bystanders(asked, words, endings, seed=1)
    assert found != with_bystanders(asked, words, endings, seed=2)


@pytest.mark.parametrize(
    ("options", "said"), [({"words": ()}, "no words"), ({"cooccurrence": 2.0}, "from 0 to 1")]
)
def test_what_bystanders_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        with_bystanders(request_families(), **{"words": ["lantern"], **options})
