"""Labelled prompts: what is read from a file, and what would let a test set leak."""

import json
from functools import partial

import numpy as np
import pytest

from mechinterp import load_model, tokenize
from mechinterp.models.tokenization import ordinary_tokens
from mechinterp.probing import Labelled, gather, probe_layers, probe_model, read_labelled


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


@pytest.fixture(scope="module")
def twice():
    """A toy, and 60 prompts of five words with random labels, also with one more space."""
    model, rng = load_model("toy:trigger"), np.random.default_rng(0)
    known = [model.tokenizer.convert_ids_to_tokens(i) for i in ordinary_tokens(model)]
    texts = [" ".join(rng.choice(known, 5)) for _ in range(60)]
    labels = rng.integers(2, size=60).tolist()
    return model, texts + [text.replace(" ", "  ", 1) for text in texts], labels * 2


def test_prompts_of_the_same_tokens_are_one_group(twice):
    model, texts, labels = twice
    given = Labelled.of(texts, labels)
    assert len(set(given.groups)) == 120
    acts = gather(model, tokenize(model, texts))
    probed = probe_layers(acts, given, n_shuffles=0)
    assert probed.attrs["n_groups"] == 60
    blind = probe_layers(acts.drop_vars("content"), given, n_shuffles=0)
    right, leaked = (d["mean"].sel(of="task", measure="accuracy").max() for d in (probed, blind))
    assert right < 0.6 < 0.65 < leaked  # where one of two alike is trained on, the other is known
    groups = given.by_content(acts["content"].values.tolist()).group_numbers
    assert groups.tolist() == [*range(60)] * 2


@pytest.mark.parametrize("groups", [None, [*range(120)]])
def test_the_same_tokens_in_two_classes_or_groups_are_refused(twice, groups, refuses):
    model, texts, labels = twice
    if groups is None:
        labels = [*labels[:60], *(1 - label for label in labels[:60])]
    given = Labelled.of(texts, labels, groups)
    said = ["prompts 0 and 60 are the same", "(the same tokens)"]
    said.append("with the labels" if groups is None else "one could be trained on")
    acts = gather(model, tokenize(model, texts))
    for probe in (partial(probe_layers, acts, given), partial(probe_model, model, given)):
        refuses(probe, *said, kind=ValueError)


def test_a_template_that_strips_makes_the_same_tokens(twice, refuses):
    model = load_model("toy:trigger")
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
    chats = [[{"role": "user", "content": text}] for text in ("the map", " the map ", "the key")]
    given = Labelled.of(chats, [0, 1, 1])
    refuses(lambda: probe_model(model, given), "prompts 0 and 1 are the same", kind=ValueError)
