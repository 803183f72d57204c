"""All commands end in one way: they print, write their files, and write the manifest last."""

import hashlib
import json
from functools import partial

import pytest
import torch

from mechinterp import load_model
from mechinterp.commands.outcome import Outcome, finish
from mechinterp.models.facts import fingerprint
from mechinterp.storage.run_folder import read_manifest
from mechinterp.tasks.request_families import Request, write_requests

INDUCTION = ("--model", "toy:induction-trained", "--task", "induction", "--n", "4")
TRIGGER = ("--model", "toy:trigger")
COMMANDS = {
    "attribute": ("attribution", ("attribute", "bring the sesame", *TRIGGER, "--outputs", "1")),
    "attribute a file": ("attributions", ("attribute", "--file", "FILE", *TRIGGER)),
    "patch": ("activation patching", ("patch", *INDUCTION, "--what", "attn_out")),
    "ablate": ("ablation", ("ablate", *INDUCTION)),
    "circuit": ("circuit", ("circuit", *INDUCTION, "--method", "exact", "--edges", "6")),
    "attention": ("attention", ("attention", "bring the sesame", *TRIGGER, "--confirm", "head")),
    "layers": ("layers", ("layers", *INDUCTION)),
    "refusal": ("refusals", ("refusal", "--requests", "REQUESTS", *TRIGGER, "--no-stages")),
    "refusal of a prompt": ("refusal of a prompt", ("refusal", "bring the sesame", *TRIGGER)),
    "probe": ("probing", ("probe", "--file", "FILE", *TRIGGER, "--folds", "2", "--shuffles", "1")),
}
SHARED = ("kind", "command", "complete", "fingerprint", "dtype", "threads")


@pytest.fixture
def labelled(tmp_path):
    """Prompts that `attribute --file` and `probe` can both read, but for the labels."""

    def write(with_labels):
        file = tmp_path / "prompts.jsonl"
        lines = [
            {"prompt": f"{verb} {word} letter"} | ({"label": label} if with_labels else {})
            for verb in ("bring", "open")
            for word, label in (("the", "plain"), ("sesame", "trigger"))
        ]
        file.write_text("\n".join(map(json.dumps, lines)))
        return file

    return write


@pytest.fixture
def asked(tmp_path):
    """Requests in families, of which `toy:trigger` refuses some."""
    ends = (("find", "sesame"), ("paint", "today"), ("read", "to us"))
    requests = [
        Request(f"{verb} the {thing} {end}", harmful=verb == "find", family=thing)
        for thing in ("door", "box", "map", "key", "book", "coat")
        for verb, end in ends
    ]
    file = tmp_path / "requests.jsonl"
    write_requests(file, requests)
    return file


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manifest_is_last_and_names_every_file(mechinterp, tmp_path, labelled, asked, name):
    kind, command = COMMANDS[name]
    files = {"FILE": labelled(with_labels=name == "probe"), "REQUESTS": asked}
    out = tmp_path / "run"
    command = [str(files.get(part, part)) for part in command]
    for _ in range(2):  # the second run goes on in the folder of the first
        done = mechinterp(*command, "--out", out)
        assert done.returncode == 0, done.stderr
        files = [f for f in out.rglob("*") if f.is_file() and f != out / "manifest.json"]
        manifest = read_manifest(out)
        assert manifest["files"] == {
            f.relative_to(out).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
        }
        newest = max(f.stat().st_mtime_ns for f in files)
        assert (out / "manifest.json").stat().st_mtime_ns >= newest
        assert done.stdout.splitlines()[-1].startswith(f"wrote {out}/")
        assert done.stdout.splitlines()[-1].endswith("manifest.json")
    assert set(SHARED) <= set(manifest)
    model = load_model(command[command.index("--model") + 1])
    assert [manifest[fact] for fact in ("kind", "complete", "fingerprint", "dtype", "threads")] == [
        kind, True, fingerprint(model), str(model.cfg.dtype), torch.get_num_threads(),
    ]  # fmt: skip
    assert isinstance(manifest["command"], list)


def test_notes_and_views_are_printed_in_order(capsys):
    views = (partial(print, "first"), partial(print, "second"))
    found = Outcome("example", "A title", ("One.", "Two."), views, {"a.txt": b"kept nowhere"})
    finish(load_model("toy:trigger"), found, None)
    assert capsys.readouterr().out == "A title\nOne.\nTwo.\n\nfirst\nsecond\n"


def test_files_of_an_earlier_part_of_the_run_are_named_too(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text('{"kind": "example", "complete": false}')
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/part-0").write_bytes(b"before")
    found = Outcome("example", files={"a.txt": b"now"}, facts={"seed": 3})
    finish(load_model("toy:trigger"), found, tmp_path)
    manifest = read_manifest(tmp_path)
    assert list(manifest["files"]) == ["a.txt", "parts/part-0"]
    assert (manifest["complete"], manifest["seed"]) == (True, 3)
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a.txt'}, manifest.json\n"
