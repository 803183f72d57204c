"""A loaded model's probabilities are those of the Hugging Face model that it was made from.

At positions beyond every window and original context, in every precision, for every family that
loads.
"""

import pytest
import torch
import transformers

from mechinterp import load_model, tokenize
from mechinterp.models.checkpoints import from_directory
from mechinterp.models.model_folder import CheckpointError
from mechinterp.models.smollm2 import smollm2_directory

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "max_position_embeddings": 128,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
WINDOW, N_TOKENS = 12, 60
OLDER = {  # what older configurations call the same
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "GPT2": OLDER | {"n_inner": 52},
    "GPTNeo": {
        **{"vocab_size": 61, "hidden_size": 32, "num_layers": 4, "num_heads": 4},
        **{"max_position_embeddings": 128, "window_size": WINDOW},
        **{"attention_types": [[["global", "local"], 2]]},
    },
    "GPTNeoX": SIZES | {"rotary_pct": 0.5},
    "GPTJ": OLDER | {"rotary_dim": 4},
    "OPT": SIZES | {"ffn_dim": 44, "word_embed_proj_dim": 32},
    "Bloom": {"vocab_size": 61, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "Llama": GROUPED | {"tie_word_embeddings": False},
    "Llama with llama3": GROUPED | {"rope_parameters": LLAMA3},
    "Mistral": GROUPED | {"sliding_window": WINDOW},
    "Mixtral": GROUPED | EXPERTS | {"sliding_window": WINDOW},
    "GptOss": GROUPED | EXPERTS | {"head_dim": 8, "sliding_window": WINDOW},
    "GptOss with yarn": GROUPED
    | EXPERTS
    | {"head_dim": 8, "sliding_window": WINDOW, "rope_parameters": YARN},
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Phi": SIZES,
    "Phi3": GROUPED | {"sliding_window": WINDOW, "pad_token_id": 0},
    "Apertus": GROUPED,
    "Olmo3": GROUPED
    | {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "Olmoe": GROUPED | {"num_experts": 4, "num_experts_per_tok": 2},
}
ROUTED = ("Mixtral", "GptOss", "Olmoe")
"""Families where the last bit of a number can choose another expert."""


NOT_FOLDED = ("GptOss", "GptOss with yarn")
"""Families that TransformerLens folds wrongly."""


def made(family):
    name = family.split()[0]
    suffix = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**FAMILIES[family])
    model = getattr(transformers, f"{name}{suffix}")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases and gains too, so that each must arrive
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def tokens_of(seed, rows=1):
    return torch.randint(61, (rows, N_TOKENS), generator=torch.Generator().manual_seed(seed))


def off(loaded, original, tokens):
    """How far log-probabilities are apart, as a share of the largest of them from their mean."""
    with torch.no_grad():
        wanted = original(tokens).logits.float().log_softmax(-1)
        found = loaded(tokens).float().log_softmax(-1)
    return (found - wanted).abs() / (wanted - wanted.mean(-1, keepdim=True)).abs().max()


@pytest.mark.parametrize("weights", ["raw", "folded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_from_an_object(family, weights):
    original = made(family)
    before = {name: value.clone() for name, value in original.state_dict().items()}
    config = original.config.to_dict()
    if weights == "folded" and family in NOT_FOLDED:
        with pytest.raises(CheckpointError, match=r'Unfolded it .*load_model.*weights="raw"'):
            load_model(original, weights=weights)
        return
    loaded = load_model(original, weights=weights)
    assert loaded.cfg.n_ctx > N_TOKENS > 4 * WINDOW
    assert float(off(loaded, original, tokens_of(0, rows=2)).max()) <= 1e-5
    after = original.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert original.config.to_dict() == config


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_in_half_precision(family, dtype):
    """An object in half precision, which is compared with what it is without rounding."""
    original = made(family)
    rounded = made(family).to(dtype)
    before = {name: value.clone() for name, value in rounded.state_dict().items()}
    weights = "raw" if family in NOT_FOLDED else "folded"
    loaded = load_model(rounded, dtype=dtype, weights=weights)
    assert loaded.W_U.dtype == loaded.cfg.dtype == dtype
    apart = off(loaded, original, tokens_of(1))
    worst = apart.quantile(0.5) if family.split()[0] in ROUTED else apart.max()
    assert float(worst) <= 40 * torch.finfo(dtype).eps
    after = rounded.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in rounded.modules())


@pytest.mark.parametrize("family", ["GPT2", "Llama", "GPTNeoX", "Mixtral"])
def test_tiny_models_from_a_directory(family, tmp_path):
    original = made(family)
    original.save_pretrained(tmp_path / "saved")
    loaded = load_model(tmp_path / "saved", weights="raw")
    assert float(off(loaded, original, tokens_of(2, rows=2)).max()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["raw", "folded"])
def test_smollm2(weights):
    original, _ = from_directory(smollm2_directory(), torch.float32)
    loaded = load_model("smollm2", weights=weights)
    texts = [
        "When Mary and John went to the store, John gave a drink to",
        "The war lasted from the year 1732 to the year 17",
        "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return" + " a" * 60,
        "é ü 漢字 and an emoji 🙂",
    ]
    for text in texts:
        tokens = tokenize(loaded, text).tokens
        assert float(off(loaded, original, tokens).max()) <= 2e-5
