"""Files of prompts at the command line: one sentence with file and line, never a traceback."""

import json
import re

import pytest

from mechinterp import load_model
from mechinterp.attribution.methods.batches import attribute_each, read_cases

COMMANDS = {
    "attribute": ("attribute", "--outputs", "1", "--file"),
    "attention": ("attention", "--file"),
    "probe": ("probe", "--file"),
    "patch": ("patch", "--pairs"),
    "circuit": ("circuit", "--pairs"),
}
LINES = {
    "attribute": {"prompt": "bring the map"},
    "attention": {"prompt": "bring the map"},
    "probe": {"text": "bring the map", "label": "a"},
    "patch": {"clean": "bring the map", "corrupt": "bring the key", "answer": "COMPLY"},
}
LINES["circuit"] = LINES["patch"]


def a_file(kind, good):
    """The content of a file that is wrong in this way, and what must be said of it."""
    line = json.dumps(good).encode()
    key = next(iter(good)).encode()
    return {
        "another kind": (b"prompt,label\nbring,a\n", r"x.csv, line 1: a .csv file is not one of"),
        "not UTF-8": (line + b"\n" + b'{"caf\xe9', "line 2 is not UTF-8: byte 0xe9 at place 6"),
        "UTF-16": (line.decode().encode("utf-16"), "x.jsonl is UTF-16"),
        "nested": (line + b"\n" + b"[" * 50_000, "line 2: too deeply nested"),
        "long": (b'{"' + b"a" * 5_000_000, "line 1 is longer than"),
        "a key twice": (b'{"%s": "a", "%s": "b"}' % (key, key), "line 1: .* occurs twice"),
        "another key": (line[:-1] + b', "wrong": 1}', 'line 1: key "wrong" is none of'),
        "a list": (b"[1]", r"line 1: \[1\] is not an object"),
        "nothing": (b"\n \n", "has 0 "),
    }[kind]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["another kind", "not UTF-8", "UTF-16", "nested", "long"])
def test_a_file_that_is_none(mechinterp, tmp_path, command, kind):
    check_refused(mechinterp, tmp_path, command, kind)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["a key twice", "another key", "a list", "nothing"])
def test_a_line_that_is_none(mechinterp, tmp_path, command, kind):
    check_refused(mechinterp, tmp_path, command, kind)


def check_refused(mechinterp, folder, command, kind):
    content, said = a_file(kind, LINES[command])
    file = folder / ("x.csv" if kind == "another kind" else "x.jsonl")
    file.write_bytes(content)
    done = mechinterp(*COMMANDS[command], file, "--model", "toy:trigger")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(rf"mechinterp: {re.escape(str(file))}.*", done.stderr)
    assert re.search(said, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9", "texts.txt, line 1 is not UTF-8"),
        (b"\n\n", "texts.txt is empty. Write one text a line"),
        (b"a\n" * 3 + b"zebra " * 100, "texts.txt: prompt 3 has"),
    ],
)
def test_texts_to_train_on(mechinterp, tmp_path, content, said):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(LINES["patch"]))
    (tmp_path / "texts.txt").write_bytes(content)
    given = ("--pairs", tmp_path / "pairs.jsonl", "--train", tmp_path / "texts.txt")
    done = mechinterp("layers", *given, "--model", "toy:trigger")
    assert done.returncode == 2
    assert said in done.stderr


def test_standard_input(mechinterp, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")  # else how long it took decides where lines are broken
    toy = ("--model", "toy:trigger", "--outputs", "1")
    asked = {"-": "bring the map\n", "bring the map": ""}
    done = [mechinterp("attribute", given, *toy, stdin=stdin) for given, stdin in asked.items()]
    one, other = (re.sub(r"Time: \S+ m?s", "", each.stdout) for each in done)
    assert one == other
    assert "standard input is empty" in mechinterp("attribute", "-", *toy, stdin="\n").stderr


def test_a_prompt_in_a_file_is_never_standard_input(mechinterp, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "-"}')
    done = mechinterp("attention", "--file", file, "--model", "toy:trigger", stdin="bring the map")
    assert "bring" not in done.stdout


def test_chats_of_a_file(smollm2, tmp_path):
    user = {"role": "user", "content": [{"type": "text", "text": "Say hi"}]}
    lines = [[user], [{"role": "system", "content": ""}, user]]
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": line}) for line in lines))
    for scores in attribute_each(smollm2, read_cases(file), 1, units="word"):
        inputs = scores.dropna("input")["input_token"].values.tolist()
        assert inputs == ["Say", " hi"]


def test_a_record_may_hold_any_separator(tmp_path):
    file = tmp_path / "x.jsonl"
    text = "bring\u2028the\u0085map"
    file.write_text(json.dumps({"prompt": text}, ensure_ascii=False), encoding="utf-8")
    (case,) = read_cases(file)
    assert case.prompt == text
    assert attribute_each(load_model("toy:trigger"), [case], 1)[0].sizes["input"] == 4
