"""Prompts against plain lists of tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechinterp import Prompts
from mechinterp.core.prompts import DELETED

IDS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=4)


def keep_some(data, ids):
    """What to keep of each prompt: at least one token."""
    kept = []
    for prompt in ids:
        flags = data.draw(st.lists(st.booleans(), min_size=len(prompt), max_size=len(prompt)))
        flags[data.draw(st.integers(0, len(prompt) - 1))] = True
        kept.append(flags)
    return kept


def without(prompts, kept):
    """The prompts edited so that only these tokens stay."""
    tokens = prompts.tokens.clone()
    for row, flags in enumerate(kept):
        for pos, keep in enumerate(flags):
            if not keep:
                tokens[row, pos] = DELETED
    return prompts.edited(tokens)


def lists(prompts):
    return [
        row[:n] for row, n in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
    ]


@given(ids=IDS, pad=st.integers(0, 6))
def test_from_lists_and_back(ids, pad):
    prompts = Prompts.from_ids(ids, pad=pad, decode=lambda i: f"<{i}>")
    assert lists(prompts) == ids
    assert len(prompts) == len(ids)
    assert prompts.width == max(map(len, ids))
    assert prompts.mask.sum().item() == sum(map(len, ids))
    padding = prompts.tokens[~prompts.mask]
    assert (padding == pad).all()
    assert prompts.token_text == tuple(tuple(f"<{i}>" for i in prompt) for prompt in ids)
    assert prompts.roles == tuple(("text",) * len(prompt) for prompt in ids)


@given(ids=IDS, data=st.data())
def test_named_positions(ids, data):
    prompts = Prompts.from_ids(ids)
    each = [data.draw(st.integers(0, len(p) - 1)) for p in ids]
    shared = data.draw(st.integers(0, min(map(len, ids)) - 1))
    named = prompts.named(subject=each, first=shared).named(other=torch.tensor(each))
    assert named.positions("subject").tolist() == each
    assert named.positions("other").tolist() == each
    assert named.positions("first").tolist() == [shared] * len(ids)
    assert named.positions(shared).tolist() == [shared] * len(ids)
    assert named.positions("end").tolist() == [len(p) - 1 for p in ids]
    assert named.named(end=each).positions("end").tolist() == each
    assert prompts.names == {}  # the first value is as it was
    for name in ("subject", "S2"):
        with pytest.raises(ValueError, match=f"no position is called '{name}'"):
            prompts.positions(name)
    with pytest.raises(ValueError, match="lies outside prompt"):
        prompts.positions(min(map(len, ids)))


@given(ids=IDS, data=st.data())
def test_deleted_tokens_close_up_and_positions_keep_their_meaning(ids, data):
    each = [data.draw(st.integers(0, len(p) - 1)) for p in ids]
    roles = [[f"role {i}" for i in range(len(p))] for p in ids]
    prompts = Prompts.from_ids(ids, roles=roles).named(subject=each)
    kept = keep_some(data, ids)
    check_edited(without(prompts, kept), ids, kept, each)


@given(ids=IDS, data=st.data())
def test_edited_twice_is_edited_at_once(ids, data):
    each = [data.draw(st.integers(0, len(p) - 1)) for p in ids]
    roles = [[f"role {i}" for i in range(len(p))] for p in ids]
    prompts = Prompts.from_ids(ids, roles=roles).named(subject=each)
    first = keep_some(data, ids)
    once = without(prompts, first)
    second = keep_some(data, lists(once))
    kept = []
    for before, after in zip(first, second, strict=True):
        left = iter(after)
        kept.append([flag and next(left) for flag in before])
    check_edited(without(once, second), ids, kept, each)


def test_each_token_has_a_role(refuses):
    refuses(
        lambda: Prompts.from_ids([[1, 2], [3]], roles=[["text"], ["text"]]),
        "[1, 1] roles for prompts of [2, 1] tokens",
    )


def check_edited(edited, ids, kept, each):
    rows = range(len(ids))
    left = [[i for i, keep in enumerate(flags) if keep] for flags in kept]
    assert lists(edited) == [[ids[row][i] for i in left[row]] for row in rows]
    assert edited.roles == tuple(tuple(f"role {i}" for i in left[row]) for row in rows)
    assert edited.width == max(map(len, left))
    lasts = [len(p) - 1 for p in ids]
    for name, given_at in (("subject", each), ("end", lasts)):
        assert edited.given_positions(name).tolist() == given_at
        if all(given_at[row] in left[row] for row in rows):
            now = [left[row].index(given_at[row]) for row in rows]
            assert edited.positions(name).tolist() == now
            assert edited.reading_positions(name).tolist() == now
        else:
            row = next(r for r in rows if given_at[r] not in left[r])
            with pytest.raises(ValueError, match=f"of prompt {row} was deleted by the same arm"):
                edited.positions(name)
            before = [sum(i <= given_at[row] for i in left[row]) - 1 for row in rows]
            if min(before) >= 0:
                assert edited.reading_positions(name).tolist() == before
            else:
                with pytest.raises(ValueError, match="Keep a token before it"):
                    edited.reading_positions(name)


@given(ids=IDS, data=st.data())
def test_find(ids, data):
    prompts = Prompts.from_ids(ids, decode=lambda i: f" w{i}")
    wanted = data.draw(st.integers(0, 6))
    nth = data.draw(st.none() | st.integers(-2, 3))
    places = [[i for i, token in enumerate(p) if token == wanted] for p in ids]
    there = [len(at) == 1 if nth is None else 0 <= nth < len(at) for at in places]
    if all(there):
        assert prompts.find(f" w{wanted}", nth) == [at[nth or 0] for at in places]
    else:
        row = there.index(False)
        with pytest.raises(ValueError, match=f"prompt {row} has {len(places[row])} tokens ' w"):
            prompts.find(f" w{wanted}", nth)


def test_find_takes_whole_tokens_alone():
    prompts = Prompts.from_ids([[0, 1]], decode=lambda i: (" Mary", " Mar")[i])
    assert prompts.find(" Mar") == [1]
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens 'Mar'"):
        prompts.find("Mar")


def test_positions_by_role():
    roles = [["bos", "template", "text", "text", "template"], ["bos"] * 2]
    prompts = Prompts.from_ids([[1, 2, 3, 4, 5], [1, 2]], roles=roles)
    assert prompts.positions_of("text") == [2, 3]
    assert prompts.positions_of("bos", "template") == [0, 1, 4]
    assert prompts.positions_of("output") == []


def test_named_positions_that_cannot_be():
    prompts = Prompts.from_ids([[1, 2, 3], [4, 5]])
    with pytest.raises(ValueError, match="position 'a' of prompt 1 is 2, outside 0 to 1"):
        prompts.named(a=2)
    with pytest.raises(ValueError, match="position 'a' of prompt 0 is -1, outside 0 to 2"):
        prompts.named(a=[-1, 0])
    with pytest.raises(ValueError, match="position 'a': 3 given for 2 prompts"):
        prompts.named(a=[0, 0, 0])


def test_it_shows_what_it_holds():
    text = repr(Prompts.from_ids([[1, 2, 3], [4]]).named(S2=0))
    assert "[3, 1]" in text
    assert "S2" in text


def test_some_of_the_prompts_in_an_order(ragged):
    edited = ragged.edited(ragged.tokens.where(ragged.tokens != 4, -1))
    some = edited.rows(torch.tensor([2, 0, 2]))
    assert some.lengths.tolist() == edited.lengths[[2, 0, 2]].tolist()
    assert some.token_text == tuple(edited.token_text[i] for i in (2, 0, 2))
    assert some.roles == tuple(edited.roles[i] for i in (2, 0, 2))
    assert some.positions("S2").tolist() == edited.positions("S2")[[2, 0, 2]].tolist()
    assert some.given_positions("end").tolist() == [5, 6, 5]
