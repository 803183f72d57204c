"""What TransformerLens overlooks is found at every length, in every precision, and refused."""

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mechinterp import load_model
from mechinterp.models import comparison
from mechinterp.models.comparison import spread_positions
from mechinterp.models.model_folder import CheckpointError

KINDS = {
    "neox": (GPTNeoXForCausalLM, GPTNeoXConfig),
    "llama": (LlamaForCausalLM, LlamaConfig),
    "mistral": (MistralForCausalLM, MistralConfig),
    "phi3": (Phi3ForCausalLM, Phi3Config),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
}
SINGLE_AND_HALF = (torch.float32, torch.bfloat16)


def tiny(kind, **options):
    sizes = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    if kind == "qwen3":
        sizes["head_dim"] = 8
    if kind == "neox":
        del sizes["num_key_value_heads"]
    build, config = KINDS[kind]
    torch.manual_seed(0)
    made = build(config(**(sizes | options))).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.endswith("bias"):
                weight.add_(0.3 * torch.randn_like(weight))
    return made


def is_refused(kind, dtype, match="differs from the original by", **options):
    with pytest.raises(CheckpointError, match=match):
        load_model(tiny(kind, **options).to(dtype), dtype=dtype, weights="raw")


WINDOWED = {"use_sliding_window": True, "sliding_window": 12}


@pytest.mark.parametrize("dtype", SINGLE_AND_HALF)
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "options",
    [
        WINDOWED | {"max_window_layers": 0},
        WINDOWED | {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 126, "max_window_layers": 0},
    ],
)
def test_a_window_that_the_conversion_ignores(kind, options, dtype):
    is_refused(kind, dtype, **options)


def test_a_window_that_no_prompt_exceeds_does_not_matter():
    options = {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 0}
    assert load_model(tiny("qwen2", **options)).cfg.n_ctx == 128
    off = {"use_sliding_window": False, "sliding_window": 12}
    assert load_model(tiny("qwen2", **off)).cfg.n_ctx == 128


@pytest.mark.parametrize("dtype", SINGLE_AND_HALF)
@pytest.mark.parametrize("original", [64, 120])
def test_a_scaling_that_begins_beyond_an_original_context(original, dtype, monkeypatch):
    """Below it, this one changes nothing: `short_factor` is 1, and so is what it multiplies."""
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.5] * 4,
        "original_max_position_embeddings": original,
        "attention_factor": 1.0,
    }
    options = {"rope_parameters": scaling, "original_max_position_embeddings": original}
    is_refused("phi3", dtype, "at positions from 0 to 127", **options)


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "rope_theta": 1e4,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize("dtype", [*SINGLE_AND_HALF, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        {"rope_parameters": LINEAR},
        {"rope_parameters": LINEAR, "initializer_range": 0.02},
        {"rope_parameters": LINEAR | {"factor": 1.1}, "initializer_range": 0.02},
        {"rope_parameters": YARN, "initializer_range": 0.02},
        {"rope_parameters": LINEAR | {"rope_theta": 5e5}, "max_position_embeddings": 131_072},
        {"attention_bias": True},
        {"mlp_bias": True},
    ],
)
def test_a_part_that_the_conversion_ignores(options, dtype):
    is_refused("llama", dtype, **options)


@pytest.mark.parametrize("dtype", SINGLE_AND_HALF)
def test_what_is_right_is_not_refused_at_far_positions(dtype):
    """Rotations of 131,072 positions are rounded by a hundredth of a turn."""
    far = tiny("llama", max_position_embeddings=131_072, rope_theta=5e5).to(dtype)
    assert load_model(far, dtype=dtype).cfg.n_ctx == 131_072


@pytest.mark.parametrize("window", [12, 600])
def test_a_long_window_is_compared_in_pieces(window, monkeypatch):
    monkeypatch.setattr(comparison, "_AT_ONCE", 100)
    options = {"sliding_window": window, "max_position_embeddings": 700}
    assert load_model(tiny("mistral", **options)).cfg.n_ctx == 700
    ignored = comparison._of_converted

    def without_window(model, *arguments, **options):
        model.cfg.window_size = 10_000
        return ignored(model, *arguments, **options)

    monkeypatch.setattr(comparison, "_of_converted", without_window)
    with pytest.raises(CheckpointError, match="differs from the original"):
        load_model(tiny("mistral", **options))


def test_a_context_is_the_models_own():
    """The library caps these families at 2,048."""
    for kind, options in (("mistral", {"sliding_window": None}), ("qwen3", {})):
        own = tiny(kind, max_position_embeddings=5_000, **options)
        assert load_model(own).cfg.n_ctx == 5_000


def test_rounded_frequencies_are_not_part_of_the_original():
    """A whole model that is cast rounds its table of frequencies too; its weights are the model."""
    cast = tiny("neox", max_position_embeddings=2_048).bfloat16()
    rounded = cast.gpt_neox.rotary_emb.inv_freq
    assert rounded.dtype == torch.bfloat16
    load_model(cast, dtype=torch.bfloat16)
    assert cast.gpt_neox.rotary_emb.inv_freq is rounded


def test_an_original_that_does_not_run_is_told():
    broken = tiny("llama")
    broken.model.layers[1].mlp.forward = lambda x: x[..., :3]
    with pytest.raises(CheckpointError, match="does not run on 12 tokens"):
        load_model(broken)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in broken.modules())


def test_a_precision_in_which_it_is_not_finite_is_told():
    large = tiny("llama")
    with torch.no_grad():
        large.model.layers[0].mlp.down_proj.weight.mul_(1e5)
        large.model.layers[1].mlp.up_proj.weight.mul_(1e5)
    with pytest.raises(CheckpointError, match=r"in float16 its logits are not finite.*float32"):
        load_model(large, dtype=torch.float16)


@pytest.mark.parametrize("n_ctx", [1, 5, 17, 8_192, 1 << 20])
def test_positions_reach_from_the_first_to_the_last(n_ctx):
    places = spread_positions(n_ctx, (64,))
    assert places[0] == 0
    assert places[-1] == n_ctx - 1
    assert places == sorted(set(places))
    assert len(places) < 40
    assert {62, 63, 64, 65} <= set(places) or n_ctx < 66
