"""Where weights come from, and what is refused."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp import load_model
from mechinterp.models.checkpoints import from_directory
from mechinterp.models.model_folder import CheckpointError


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
