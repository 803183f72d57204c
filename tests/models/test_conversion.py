"""What TransformerLens cannot convert: each refusal says what is in the way and what to try."""

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from mechinterp import load_model
from mechinterp.models import conversion
from mechinterp.models.model_folder import CheckpointError

SIZES = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 28,
    "max_position_embeddings": 40,
}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def same(loaded, original):
    with torch.no_grad():
        found, wanted = (m(TOKENS) for m in (loaded, original))
    torch.testing.assert_close(
        found.log_softmax(-1), wanted.logits.log_softmax(-1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_phi_whose_share_of_rotated_dimensions_has_moved(share):
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    sizes = SIZES | {"hidden_size": 32, "rope_parameters": rope}
    phi = PhiForCausalLM(PhiConfig(**sizes)).eval()
    loaded = load_model(phi)
    assert loaded.cfg.rotary_dim == 8 * share
    same(loaded, phi)


@pytest.mark.parametrize("options", [{"word_embed_proj_dim": 12}, {"do_layer_norm_before": False}])
def test_opt_of_the_350m_kind(options):
    sizes = SIZES | {"ffn_dim": 28, "word_embed_proj_dim": 24} | options
    with pytest.raises(CheckpointError, match=r"opt-350m\. The other sizes of OPT load"):
        load_model(OPTForCausalLM(OPTConfig(**sizes)))


@pytest.mark.parametrize(
    ("build", "config"), [(Gemma2ForCausalLM, Gemma2Config), (Olmo2ForCausalLM, Olmo2Config)]
)
def test_families_that_the_library_knows_by_name_alone(build, config):
    with pytest.raises(CheckpointError, match=r"by name: HookedTransformer\.from_pretrained"):
        load_model(build(config(**SIZES, num_key_value_heads=2)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_packed(original, dtype):
    packed = GPT2LMHeadModel(original.config)
    weight = packed.transformer.h[1].mlp.c_fc.weight
    packed.transformer.h[1].mlp.c_fc.weight = nn.Parameter(weight.detach().to(dtype), False)
    with pytest.raises(CheckpointError, match=r"h\.1\.mlp\.c_fc\.weight is .*quantized.*Load the"):
        load_model(packed)
    packed.transformer.h[1].mlp.c_fc.to("meta")
    with pytest.raises(CheckpointError, match="is on no device"):
        load_model(packed)


def test_experts_run_in_half_precision():
    sizes = SIZES | {"num_local_experts": 3, "num_key_value_heads": 2, "sliding_window": None}
    experts = MixtralForCausalLM(MixtralConfig(**sizes)).eval()
    loaded = load_model(experts.bfloat16(), dtype=torch.bfloat16)
    with torch.no_grad():
        assert loaded(TOKENS).isfinite().all()


def test_what_cannot_run_in_a_precision_is_refused(original, monkeypatch):
    real = conversion.check_runs

    def broken(model, label):
        model.blocks[1].mlp.W_in.data = model.blocks[1].mlp.W_in.data.float()
        real(model, label)

    monkeypatch.setattr(conversion, "check_runs", broken)
    with pytest.raises(CheckpointError, match=r"cannot run it in bfloat16: .*dtype=torch\.float32"):
        load_model(original, dtype=torch.bfloat16)


def test_folding_in_half_precision_loses_nothing(original):
    """It multiplies weights, in single precision; what is rounded is the product."""
    rounded = GPT2LMHeadModel(original.config).bfloat16().eval()
    exact = load_model(rounded, dtype=torch.float32)
    half = load_model(rounded, dtype=torch.bfloat16)
    for name, weight in half.named_parameters():
        torch.testing.assert_close(weight, exact.get_parameter(name).bfloat16(), rtol=0, atol=0)


def test_a_name_that_is_almost_right():
    for name, meant in {
        "smolm2": "smollm2",
        "SmolLM2": "smollm2",
        "induction": "toy:induction",
    }.items():
        with pytest.raises(CheckpointError, match=f"no model '{name}'. Did you mean '{meant}'"):
            load_model(name)
    with pytest.raises(CheckpointError, match="name of the model is empty"):
        load_model(" ")


def test_loading_leaves_inference_mode(original):
    """A model that was loaded inside it would have no gradient for ever."""
    with torch.inference_mode():
        loaded = load_model(original)
        own = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
        other = load_model(own)
        rounded = load_model(own.bfloat16(), dtype=torch.bfloat16)
    for model in (loaded, other, rounded):
        assert not any(x.is_inference() for x in (*model.parameters(), *model.buffers()))


def test_a_config_of_gpt2_without_its_older_name():
    config = GPT2Config(n_layer=1, n_embd=12, n_head=3, vocab_size=19, n_positions=11)
    assert load_model(GPT2LMHeadModel(config)).cfg.n_ctx == 11
