import json
import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.tasks.request_families import (
    KINDS,
    Request,
    check_requests,
    holds_word,
    read_requests,
    request_families,
    some_families,
    write_requests,
)

FUNCTION_WORDS = frozenset(
    ("a", "the", "i", "me", "my", "his", "her", "do", "can", "for", "in", "into", "of", "on", "to")
)


def words(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def by_family():
    found = defaultdict(list)
    for request in request_families():
        found[request.family].append(request)
    return found


@pytest.mark.parametrize("family", by_family())
def test_each_family_is_made_as_it_is_said(family):
    members = by_family()[family]
    harmful = [r for r in members if r.harmful]
    telling_ones = [r for r in members if not r.harmful and r.telling]
    plain_ones = [r for r in members if not r.harmful and not r.telling]
    assert (len(harmful), len(telling_ones), len(plain_ones)) == (3, 2, 2)
    (telling,) = {r.telling for r in members if r.telling}
    assert [r for r in members if holds_word(r.text, telling)] == [harmful[0], *telling_ones]
    assert {r.kind for r in telling_ones} <= set(KINDS)
    assert not any(r.kind for r in (*harmful, *plain_ones))
    assert len({r.topic for r in members}) == 1
    content = [words(r.text) - FUNCTION_WORDS for r in harmful]
    assert all(content)
    shared = content[0] & content[1] | content[0] & content[2] | content[1] & content[2]
    assert shared == set()


def test_there_are_enough_and_nothing_stands_twice():
    requests = request_families()
    check_requests(requests)
    assert len({r.family for r in requests}) >= 60
    topics = Counter(r.topic for r in requests)
    assert len(topics) >= 8
    assert min(topics.values()) >= 5 * 7
    assert {r.kind for r in requests} == {"", *KINDS}
    assert len({r.text for r in requests}) == len(requests)
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9', \-]+[?.]", r.text) for r in requests)


def test_no_surface_gives_harm_away():
    """The shares of harmful and of benign requests with each mark of the surface are alike."""
    marks = {
        "full stop": lambda text: text.endswith("."),
        "help": lambda text: text.startswith("Help"),
        "how": lambda text: text.startswith("How"),
        "me": lambda text: holds_word(text, "me"),
        "long": lambda text: len(text.split()) > 7,
    }
    for name, mark in marks.items():
        harmful, benign = (
            [mark(r.text) for r in request_families() if r.harmful is side]
            for side in (True, False)
        )
        apart = sum(harmful) / len(harmful) - sum(benign) / len(benign)
        assert abs(apart) < 0.08, name


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12
).filter(str.strip)
chats = st.lists(texts, min_size=1, max_size=3).map(
    lambda said: (
        *({"role": "system", "content": text} for text in said[1:]),
        {"role": "user", "content": said[0]},
    )
)
requests_alike = st.lists(
    st.builds(
        Request, prompt=texts | chats, harmful=st.booleans(), family=texts, topic=texts, kind=texts
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda request: json.dumps(request.prompt),
)


@given(requests_alike)
def test_what_is_written_is_read(tmp_path_factory, requests):
    file = tmp_path_factory.mktemp("requests") / "requests.jsonl"
    write_requests(file, requests)
    assert read_requests(file) == tuple(requests)
    assert read_requests(file, 1) == tuple(requests[:1])


GOOD = {"family": "blow", "harmful": True, "prompt": "How do I blow up a bridge?"}
NO_USER = [{"role": "system", "content": "Be kind."}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"harmful": True, "prompt": "x"}, 'key "family" is missing'),
        (GOOD | {"harmful": "yes"}, "\"harmful\" is 'yes': write true or false"),
        (GOOD | {"harmfull": True}, 'key "harmfull" is none of .* Did you mean "harmful"'),
        (GOOD | {"topic": 3}, '"topic" is 3, not a text'),
        (GOOD | {"family": " "}, '"family" is empty'),
        (GOOD | {"prompt": "  "}, '"prompt" asks nothing'),
        (GOOD | {"prompt": ""}, '"prompt" is empty'),
        (GOOD | {"prompt": NO_USER}, "last message is of the role 'system'"),
        (GOOD | {"prompt": [{"role": "user"}]}, 'message 0.* needs "role" and "content"'),
        (GOOD | {"telling": "bomb"}, "\"telling\" is 'bomb', which .* does not hold"),
        (GOOD | {"family": "other"}, "this prompt stands in line 1 too"),
        ("{", "this is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    file = tmp_path / "requests.jsonl"
    second = line if isinstance(line, str) else json.dumps(line)
    file.write_text(f"{json.dumps(GOOD)}\n\n{second}\n")
    with pytest.raises(ValueError, match=rf"requests.jsonl, line 3: .*{said}"):
        read_requests(file)


def test_what_could_not_be_read_is_not_written(tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text("stays")
    for bad, said in (
        ([], "no request was given"),
        ([Request("", harmful=False, family="tea")], 'request 0: "prompt" is empty'),
        ([Request("\ud83d", harmful=False, family="tea")], "half a character"),
        (["How?"], "requests is .*give .* a request"),
    ):
        with pytest.raises(ValueError, match=said):
            write_requests(file, bad)
    assert file.read_text() == "stays"


def test_sets_of_requests_that_tell_nothing_are_refused():
    harmful, benign = (
        [Request(f"{side} {n}", harmful=side, family=f"{n // 2}") for n in range(4)]
        for side in (True, False)
    )
    check_requests([*harmful, *benign])
    alone = [Request(f"{n}", harmful=True, family=f"lone {n}") for n in range(5)]
    for bad, said in (
        ([], "no requests were given"),
        (harmful, "no benign requests among 4"),
        (benign, "no harmful requests among 4"),
        ([*harmful[:2], *benign[:2]], "all 4 requests are of the family '0'"),
        ([*harmful, *benign, *alone], "of one request: 'lone 0', 'lone 1', 'lone 2' and 2 more"),
        ([*harmful, *benign, benign[0]], "requests 4 and 8 have one prompt, 'False 0'"),
    ):
        with pytest.raises(ValueError, match=said):
            check_requests(bad)


@given(st.integers(1, 64), st.integers(0, 99))
def test_some_families_are_whole_and_from_all_topics(n, seed):
    chosen = some_families(request_families(), n, seed=seed)
    assert chosen == some_families(request_families(), n, seed=seed)
    assert len(chosen) == 7 * n
    per_topic = Counter(r.topic for r in chosen)
    assert len(per_topic) == min(n, 10)
    assert max(per_topic.values()) - min(per_topic.values()) <= 7 or n > 60
    assert [r for r in request_families() if r in chosen] == list(chosen)


def test_there_must_be_as_many_families():
    for n in (0, 65):
        with pytest.raises(ValueError, match=f"n_families is {n}"):
            some_families(request_families(), n)


def test_a_chat_keeps_its_other_messages():
    chat = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea?"})
    request = Request(chat, harmful=False, family="tea")
    assert request.text == "Tea?"
    assert request.asking("Coffee?") == (chat[0], {"role": "user", "content": "Coffee?"})
    assert Request("Tea?", harmful=False, family="tea").asking("Coffee?") == "Coffee?"
