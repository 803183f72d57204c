"""A loaded model's logits are those of the Hugging Face model that it was made from."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mechinterp import load_model, tokenize
from mechinterp.models.checkpoints import from_directory, smollm2_directory


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(n_layer=3, n_embd=24, n_head=4, n_inner=52, vocab_size=61, n_positions=33)
    )


def llama_with_grouped_queries():
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=3,
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            intermediate_size=76,
            vocab_size=59,
            max_position_embeddings=37,
            tie_word_embeddings=False,
        )
    )


def neox():
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            num_hidden_layers=3,
            hidden_size=40,
            num_attention_heads=5,
            intermediate_size=68,
            vocab_size=67,
            max_position_embeddings=35,
            rotary_pct=0.5,
        )
    )


@pytest.fixture(params=[gpt2, llama_with_grouped_queries, neox], ids=lambda make: make.__name__)
def original(request):
    torch.manual_seed(3)
    made = request.param().eval()
    with torch.no_grad():
        for weight in made.parameters():  # biases and gains too, so that each must arrive
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def check(loaded, original, tokens, tolerance, *, centred):
    with torch.no_grad():
        expected = original(tokens).logits
        found = loaded(tokens)
    if centred:  # folding centres the unembedding: the same probabilities, other raw logits
        expected, found = (x - x.mean(-1, keepdim=True) for x in (expected, found))
    assert float((found - expected).abs().max()) <= tolerance
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("weights", ["raw", "folded"])
def test_tiny_models_from_an_object(original, weights):
    before = {name: value.clone() for name, value in original.state_dict().items()}
    config = original.config.to_dict()
    loaded = load_model(original, weights=weights)
    tokens = torch.randint(50, (2, 19), generator=torch.Generator().manual_seed(0))
    check(loaded, original, tokens, 1e-5, centred=weights == "folded")
    after = original.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert original.config.to_dict() == config


def test_tiny_models_from_a_directory(original, tmp_path):
    original.save_pretrained(tmp_path / "saved")
    tokens = torch.randint(50, (2, 19), generator=torch.Generator().manual_seed(1))
    check(load_model(tmp_path / "saved", weights="raw"), original, tokens, 1e-5, centred=False)


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
        check(loaded, original, tokens, 2e-4, centred=weights == "folded")
