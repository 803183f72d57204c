"""Labelled prompts: what is read from a file, and what would let a test set leak."""

import json

import pytest

from mechinterp.probing import Labelled, read_labelled


def test_a_file(tmp_path):
    chat = [{"role": "user", "content": "Hello"}]
    rows = [
        {"text": "one", "label": "b", "group": 1},
        {"prompt": chat, "label": "a", "group": 1},
        {"text": "two", "label": "b", "group": 2},
    ]
    file = tmp_path / "labelled.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = read_labelled(file)
    assert found.prompts == ("one", chat, "two")
    assert found.classes == ("a", "b")
    assert found.y.tolist() == [1, 0, 1]
    assert found.group_numbers.tolist() == [0, 0, 1]
    assert len(read_labelled(file, n=2)) == 2
    assert found.rows([2, 0]).prompts == ("two", "one")


def test_without_groups_the_same_text_is_one_group():
    found = Labelled.of(["x", "y", "x"], [0, 1, 0])
    assert found.group_numbers.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((["x", "y"], ["a"]), "1 labels for 2 prompts"),
        ((["x", "y"], ["a", "b"], ["g"]), "1 groups for 2 prompts"),
        ((["x", "y"], ["a", "a"]), "all 'a'"),
        (([], []), "no prompts"),
        ((["x", "x"], ["a", "b"]), "prompts 0 and 1 are the same, 'x', with the labels"),
        ((["x", "y", "x"], ["a", "b", "a"], [0, 1, 2]), "one could be trained on"),
    ],
)
def test_what_is_refused(given, said, refuses):
    refuses(lambda: Labelled.of(*given), said, kind=ValueError)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: this is not JSON"),
        ("[1]", "line 2: [1] is not an object"),
        ('{"text": "x", "lable": "a"}', 'Did you mean "label"?'),
        ('{"label": "a"}', 'give either "prompt" or "text"'),
        ('{"text": "x", "prompt": "x", "label": "a"}', 'give either "prompt" or "text"'),
        ('{"text": "x"}', '"label" is missing'),
        ('{"text": "x", "label": 1.5}', "neither a text nor a whole number"),
        ('{"text": "", "label": "a"}', '"text" is empty'),
        ('{"text": "x", "label": "a", "group": [1]}', '"group" is [1]'),
        ('{"text": "x", "label": "a", "group": 1}', 'give "group" in every line, or in none'),
        ('{"text": "first", "label": "a"}', "are the same, 'first', with the labels"),
    ],
)
def test_lines_that_are_refused(line, said, tmp_path, refuses):
    file = tmp_path / "labelled.jsonl"
    file.write_text('{"text": "first", "label": "b"}\n' + line)
    refuses(lambda: read_labelled(file), said, str(file), kind=ValueError)


def test_files_that_are_refused(tmp_path, refuses):
    (tmp_path / "empty.jsonl").write_text("")
    refuses(lambda: read_labelled(tmp_path / "empty.jsonl"), "has 0 prompts", kind=ValueError)
    refuses(lambda: read_labelled(tmp_path / "none.jsonl"), "cannot be read", kind=ValueError)
