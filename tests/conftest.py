"""Tiny models of four architectures, sizes all different, so that a swapped axis fails."""

import warnings

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import Prompts

torch.set_num_threads(1)

SHARED = {"n_layers": 3, "act_fn": "gelu_new", "init_weights": False, "device": "cpu"}
ARCHITECTURES = {
    "absolute": {
        "d_model": 20,
        "d_head": 6,
        "n_heads": 4,
        "d_mlp": 28,
        "d_vocab": 37,
        "n_ctx": 17,
        "normalization_type": "LN",
    },
    "grouped": {
        "d_model": 22,
        "d_head": 8,
        "n_heads": 6,
        "n_key_value_heads": 2,
        "d_mlp": 26,
        "d_vocab": 41,
        "n_ctx": 19,
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "rotary_dim": 8,
    },
    "parallel": {
        "d_model": 24,
        "d_head": 10,
        "n_heads": 5,
        "d_mlp": 30,
        "d_vocab": 43,
        "n_ctx": 18,
        "normalization_type": "LNPre",
        "parallel_attn_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": 4,
    },
    "attention_only": {
        "d_model": 21,
        "d_head": 7,
        "n_heads": 5,
        "d_vocab": 39,
        "n_ctx": 16,
        "attn_only": True,
        "normalization_type": None,
    },
}
SWITCHES = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")


def tiny_model(architecture: str, *, switched_on: bool = False) -> HookedTransformer:
    """A model with random weights, large enough for effects to be seen; the same at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(**(SHARED | ARCHITECTURES[architecture]))
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(len(architecture))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if cfg.normalization_type else 0.2
            spread = torch.randn(weight.shape, generator=generator) * scale
            weight.copy_(1 + spread if name.endswith(".w") else spread)  # a norm's gain: near 1
    for switch in SWITCHES if switched_on else ():
        setattr(model.cfg, switch, True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def model(request):
    """Each of the four architectures."""
    return tiny_model(request.param)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def switched_on_model(request):
    """Each of the four, with every gated hook point on."""
    return tiny_model(request.param, switched_on=True)


@pytest.fixture(scope="session")
def absolute_model():
    return tiny_model("absolute")


@pytest.fixture(scope="session")
def grouped_model():
    return tiny_model("grouped")


@pytest.fixture(scope="session")
def attention_only_model():
    return tiny_model("attention_only")


@pytest.fixture
def ragged():
    """Three prompts of 7, 4 and 6 tokens, with a named position."""
    ids = [[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3, 2]]
    return Prompts.from_ids(ids).named(S2=[5, 2, 3])


@pytest.fixture(scope="session")
def smollm2():
    """The real model; its tests are marked slow."""
    from mechinterp import load_model

    return load_model("smollm2")
