"""A folder of parts takes only its own, whole; it is sealed last."""

import hashlib
import json
import os

import pytest

from mechinterp.core.hashes import hash_of
from mechinterp.storage.manifests import manifest_of, write_manifest
from mechinterp.storage.parts_folder import PartsFolder, read_parts

FACTS = {"prompts": "those"}


def filled(path, n=3, facts=FACTS):
    """A folder of some parts that are not finished."""
    folder = PartsFolder(path, "example", facts)
    for number in range(n):
        if folder.load(number, ".txt") is None:
            folder.save(number, ".txt", f"{facts} {number}".encode())
    return folder


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_what_is_finished_is_read(tmp_path, refuses):
    folder = filled(tmp_path)
    refuses(lambda: read_parts(tmp_path, "example"), "is not finished", "continues from there")
    folder.finish(3, {"unit": "nats"})
    found = read_parts(tmp_path, "example")
    assert found.manifest["unit"] == "nats"
    assert [found.content(number) for number in range(3)][1] == b"{'prompts': 'those'} 1"
    refuses(lambda: read_parts(tmp_path, "sweep"), "holds 'example', not a sweep")
    before = content(tmp_path)
    filled(tmp_path).finish(3, {"unit": "nats"})
    assert content(tmp_path) == before


def test_a_part_of_other_work_is_never_sealed(tmp_path):
    """F3: a part of another sweep was taken, after the same sweep ran again and sealed it."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    filled(mine).finish(3, {})
    filled(other, facts={"prompts": "others"}).finish(3, {})
    before = content(mine)
    for foreign in other.glob("part-00001*"):
        (mine / foreign.name).write_bytes(foreign.read_bytes())
        for own in mine.glob("part-00001*"):
            if own.name in before:
                own.write_bytes(foreign.read_bytes())
    filled(mine).finish(3, {})
    assert content(mine) == before


def test_a_part_that_is_damaged_between_its_save_and_the_end_is_not_sealed(tmp_path, refuses):
    """F3: it was sealed with the hash of the damaged file."""
    folder = filled(tmp_path)
    part = next(tmp_path.glob("part-00001*"))
    part.write_bytes(part.read_bytes() + b"x")
    refuses(lambda: folder.finish(3, {}), "part-00001", "was changed since it was written")
    refuses(lambda: read_parts(tmp_path, "example"), "not finished")
    filled(tmp_path).finish(3, {})
    assert read_parts(tmp_path, "example").content(1).endswith(b" 1")


def test_names_exchanged_or_changed_are_seen(tmp_path, refuses):
    """F3: no hash in a name was checked."""
    filled(tmp_path).finish(3, {})
    first, second, third = sorted(tmp_path.glob("part-*"))
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    refuses(lambda: read_parts(tmp_path, "example").check(), "part-00000", "damaged")
    first.write_bytes(one)
    second.write_bytes(two)
    third.rename(tmp_path / "part-00002-0123456789abcdef.txt")
    refuses(lambda: read_parts(tmp_path, "example").check(), "part-00002", "cannot be read")


def test_a_part_under_another_number_is_not_its_part(tmp_path):
    filled(tmp_path)
    _, second, third = sorted(tmp_path.glob("part-*"))
    second.rename(tmp_path / second.name.replace("part-00001", "part-00002"))
    third.unlink()
    assert PartsFolder(tmp_path, "example", FACTS).load(2, ".txt") is None


def forged(path, files):
    """Seal a manifest that names other files, as somebody might who knows how."""
    manifest = manifest_of(path) | {"files": files}
    del manifest["seal"]
    write_manifest(path, manifest)


def test_a_part_has_the_hash_of_the_manifest(tmp_path, refuses):
    filled(tmp_path).finish(3, {})
    files = manifest_of(tmp_path)["files"]
    last = sorted(files)[-1]
    forged(tmp_path, files | {last: hash_of(b"something else")})
    refuses(lambda: read_parts(tmp_path, "example").check(), last, "damaged")


@pytest.mark.parametrize("name", ["../out.txt", "/etc/hostname", "part-00000-../../../x.txt", ""])
def test_names_outside_the_folder_are_refused(tmp_path, refuses, name):
    """F3: a name with ../ was read."""
    folder = tmp_path / "in"
    (tmp_path / "out.txt").write_text("secret")
    filled(folder).finish(3, {})
    digits = hashlib.sha256(b"secret").hexdigest()
    forged(folder, {name: digits})
    refuses(lambda: read_parts(folder, "example"), "does not name each part once")


def test_no_files_and_missing_numbers_are_refused(tmp_path, refuses):
    """F3: `files: {}` was a finished sweep of nothing."""
    filled(tmp_path).finish(3, {})
    files = manifest_of(tmp_path)["files"]
    forged(tmp_path, {})
    refuses(lambda: read_parts(tmp_path, "example"), "does not name each part once")
    forged(tmp_path, dict(sorted(files.items())[1:]))
    refuses(lambda: read_parts(tmp_path, "example"), "does not name each part once")


def test_a_relative_folder_stays_where_it_was(tmp_path, monkeypatch):
    """F6: a relative `out` followed a chdir."""
    monkeypatch.chdir(tmp_path)
    folder = PartsFolder("out", "example", FACTS)
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    folder.save(0, ".txt", b"x")
    folder.finish(1, {})
    assert read_parts(tmp_path / "out", "example").content(0) == b"x"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_parts_of_others_without_a_manifest_are_left_alone(tmp_path, refuses):
    filled(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    before = content(tmp_path)
    refuses(lambda: filled(tmp_path, facts={"prompts": "others"}), "parts of other work")
    assert content(tmp_path) == before
    filled(tmp_path).finish(3, {})


def test_a_manifest_without_its_seal_is_damaged(tmp_path, refuses):
    filled(tmp_path).finish(3, {})
    found = json.loads((tmp_path / "manifest.json").read_text())
    del found["seal"]
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    refuses(lambda: read_parts(tmp_path, "example"), "has no seal")
    (tmp_path / "manifest.json").write_text("[" * 100000)
    refuses(lambda: read_parts(tmp_path, "example"), "manifest.json is damaged")


@pytest.mark.parametrize("name", ["prompt-00000.json", "activations.npy"])
def test_results_of_before_that_have_no_hash_are_refused_and_say_why(tmp_path, refuses, name):
    (tmp_path / name).write_bytes(b"{}")
    refuses(lambda: filled(tmp_path), "of mechinterp 0.2, which have no hash", "another folder")
