"""A seal holds for every byte of a file."""

import json
import random

import pytest
import safetensors.torch
import torch

from mechinterp.storage.seals import (
    NOT_SEALED,
    check_seal,
    is_sealed,
    metadata_of,
    seal,
    sealed_json,
    sealed_tensors,
)


def files():
    nested = {"cfg": {"n": 3}, "settings": {"text": '"seal": "no"', "seal": NOT_SEALED}}
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.bfloat16)}
    return {
        "json": sealed_json({"scores": [1.5, -2], "text": "é \u2028"}),
        "nested": seal(json.dumps(nested).encode()),
        "tensors": sealed_tensors(tensors, {"format": "x", "more": '{"a": 1}'}),
    }


@pytest.mark.parametrize("kind", ["json", "nested", "tensors"])
def test_any_byte_that_changes_is_seen(kind):
    content, chance = files()[kind], random.Random(0)
    assert content == files()[kind]
    assert is_sealed(content, kind)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises(ValueError, match=r"is damaged"):
            check_seal(bytes(changed), kind, is_new=True)


def test_sealed_tensors_are_safetensors():
    content = files()["tensors"]
    assert metadata_of(content)["format"] == "x"
    found = safetensors.torch.load(content)
    assert found["b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["a"].dtype == torch.bfloat16


def test_a_second_seal_is_refused(refuses):
    refuses(lambda: sealed_json({"attrs": {"seal": "0" * 64}}), '2 keys "seal"', "rename it")


def test_a_file_from_before_has_none(caplog):
    check_seal(b"{}", "old.json", is_new=False)
    assert "old.json has no seal" in caplog.text
