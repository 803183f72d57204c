"""The protocols that everything outside `models` relies on."""

import torch

from mechinterp import load_model
from mechinterp.models import Model, ModelConfig, Tokenizer


def test_a_hooked_transformer_is_a_model(model):
    assert isinstance(model, Model)
    assert isinstance(model.cfg, ModelConfig)


def test_its_tokenizer_has_what_is_used():
    assert isinstance(load_model("toy:trigger").tokenizer, Tokenizer)


def test_another_module_is_no_model():
    assert not isinstance(torch.nn.Linear(2, 3), Model)
