"""Hostile and damaged folders: each refused in one sentence, before anything in it is believed."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mechinterp import load_model
from mechinterp.models.model_folder import CheckpointError, entries, read_json
from mechinterp.models.tokenizer_files import growth

SCRIPT = Path(__file__).parents[2] / "scripts/proofs/hostile_folders.py"
spec = importlib.util.spec_from_file_location("hostile_folders", SCRIPT)
hostile = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hostile)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    hostile.write_plain_folder(folder)
    return folder


def test_the_plain_folder_loads(plain):
    assert hostile.try_to_load(plain) == ("LOADED", [])


@pytest.mark.parametrize("name", hostile.FOLDERS)
def test_a_hostile_folder_is_refused_and_nothing_runs(name, plain, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    hostile.FOLDERS[name](folder)
    said, seen = hostile.try_to_load(folder)
    assert not seen
    assert not said.startswith(("LOADED", "RAISED"))
    assert "\n" not in said
    assert len(said) < 700 + 10 * len(str(folder))


@pytest.mark.parametrize("name", list(hostile.FOLDERS)[::16])
def test_a_refusal_takes_little_time_and_memory(name, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "model")
    hostile.FOLDERS[name](tmp_path / "model")
    said, seen, seconds, megabytes = hostile.measure(tmp_path / "model")
    assert said != "DIED"
    assert not seen
    assert seconds < hostile.SECONDS
    assert megabytes < hostile.MEGABYTES


def test_what_is_missing_or_left_over_is_named(plain, tmp_path):
    for name, said in {
        "a weight missing": r"They lack transformer\.h\.1\.mlp\.c_fc\.weight\.",
        "a weight too many": r"They have besides transformer\.h\.7\.mlp\.c_fc\.weight\.",
        "a weight of another shape": r"They have in another shape transformer\.wpe\.weight",
        "layers 3 of 2": r"They lack transformer\.h\.2\..* and 7 more\.",
    }.items():
        folder = tmp_path / name
        shutil.copytree(plain, folder)
        hostile.FOLDERS[name](folder)
        with pytest.raises(CheckpointError, match=said):
            load_model(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_and_known_buffers_are_not_missed(tied, tmp_path):
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "hidden_size": 12, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 20, "vocab_size": 17, "tie_word_embeddings": tied}
    original = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    original.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved/model.safetensors"
    held = load_file(file)
    assert ("lm_head.weight" in held) != tied
    held["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)  # in older files
    save_file(held, file, {"format": "pt"})
    loaded, tokens = load_model(tmp_path / "saved", weights="raw"), torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens), original(tokens).logits, atol=1e-5, rtol=0)


def test_shards_and_links_within_a_cache_are_read(plain, original, tmp_path):
    """As the hub's cache has them: links to files elsewhere, under names of its own."""
    sharded = tmp_path / "sharded"
    original.save_pretrained(sharded, max_shard_size="2KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, file in enumerate(sharded.iterdir()):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    loaded, tokens = load_model(snapshot, weights="raw"), torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens), original(tokens).logits, atol=1e-5, rtol=0)


def test_a_hub_name_is_loaded_like_its_folder(plain, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns, **options):
        asked.append((name, allow_patterns))
        return str(plain)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_model("somebody/something").cfg.n_layers == 2
    assert [name for name, _ in asked] == ["somebody/something"] * 2
    assert "model.safetensors" in asked[1][1]
    assert not any("safetensors" in pattern for pattern in asked[0][1])


def test_files_of_json(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": [{"b": 1}], "c": {"d": {"e": 2}}}')
    assert dict(entries(read_json(file)))["e"] == 2
    for content, said in {"7": "holds 7", '"x"': "holds 'x'", "{": "is not JSON"}.items():
        file.write_text(content)
        with pytest.raises(CheckpointError, match=re.escape(said)):
            read_json(file)
    with pytest.raises(CheckpointError, match="is not a file"):
        read_json(tmp_path)


def test_how_much_a_tokenizer_can_lengthen_a_text():
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    usual = {"normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}}
    assert growth(usual) == 1
    assert growth(usual | {"pre_tokenizer": {"type": "ByteLevel"}}) == 1
    double = {"type": "Replace", "pattern": {"Regex": "."}, "content": "ab"}
    nested = {"type": "Sequence", "normalizers": [usual["normalizer"], double]}
    assert growth({"normalizer": nested}) == 3
    assert growth({"normalizer": double, "pre_tokenizer": double}) == 9
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": pair[:1], "pair": pair}
    assert growth({"post_processor": template}) == 1
    assert growth({"post_processor": template | {"single": pair * 100}}) > 10


@pytest.mark.parametrize("name", ["heads 0", "layers two", "config 5", "cut in the middle"])
def test_the_command_line_says_one_sentence(name, plain, tmp_path, mechinterp):
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    hostile.FOLDERS[name](folder)
    done = mechinterp("describe", folder)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"mechinterp: {folder}")
    assert "Traceback" not in done.stderr


def test_a_folder_is_not_changed(plain, tmp_path):
    before = {file.name: file.read_bytes() for file in plain.iterdir()}
    load_model(plain)
    assert {file.name: file.read_bytes() for file in plain.iterdir()} == before
    assert json.loads(before["config.json"])["n_layer"] == 2
