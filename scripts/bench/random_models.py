"""Models with random weights for the benchmarks: Hugging Face's own, made in memory, no download.

Both sides of a benchmark get the same weights: the other tool the Hugging Face model, `mechinterp`
what `load_model` makes of it. The weights are larger than a fresh model's, so that removing a token
changes a score by about a nat: an error of the method would show.
"""

import copy

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformer_lens import HookedTransformer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mechinterp import load_model

NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SMALL = {"n_layer": 3, "n_embd": 48, "n_head": 4, "n_inner": 80, "vocab_size": 101}


def gpt2_shape(quick: bool, n_ctx: int = 64) -> HookedTransformer:
    """Random weights in the shape of GPT-2 small, or of a model a hundred times smaller."""
    return load_model(random_gpt2(quick, n_ctx), device="cpu")


def as_the_library_keeps_it(model: HookedTransformer) -> HookedTransformer:
    """A copy whose weights lie in memory as TransformerLens itself keeps them."""
    plain = copy.deepcopy(model)
    for weight in plain.parameters():
        weight.data = weight.data.contiguous()
    return plain


def random_gpt2(quick: bool, n_ctx: int = 1024) -> PreTrainedModel:
    """The same, as Hugging Face's."""
    sizes = {**SMALL, "initializer_range": 0.15} if quick else {"initializer_range": 0.05}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_positions=n_ctx, **sizes, **NO_SPECIAL)).eval()


def tiny_models() -> dict[str, PreTrainedModel]:
    """Three architectures, sizes all different, every weight random: biases and gains too."""
    torch.manual_seed(0)
    gpt2 = GPT2Config(
        n_layer=3, n_embd=24, n_head=4, n_inner=52, vocab_size=61, n_positions=33, **NO_SPECIAL
    )
    llama = LlamaConfig(
        num_hidden_layers=3,
        hidden_size=48,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=76,
        vocab_size=59,
        max_position_embeddings=37,
        tie_word_embeddings=False,
        **NO_SPECIAL,
    )
    neox = GPTNeoXConfig(
        num_hidden_layers=3,
        hidden_size=40,
        num_attention_heads=5,
        intermediate_size=68,
        vocab_size=67,
        max_position_embeddings=35,
        rotary_pct=0.5,
        use_parallel_residual=True,
        **NO_SPECIAL,
    )
    made = {
        "GPT-2: absolute positions": GPT2LMHeadModel(gpt2),
        "Llama: grouped-query attention, rotary": LlamaForCausalLM(llama),
        "NeoX: parallel blocks, rotary": GPTNeoXForCausalLM(neox),
    }
    with torch.no_grad():
        for model in made.values():
            for weight in model.parameters():
                weight.add_(0.15 * torch.randn_like(weight))
    return {name: model.eval() for name, model in made.items()}


def word_tokenizer(n_words: int) -> PreTrainedTokenizerFast:
    """Words "w0" to "w{n_words - 1}", in this order; "w0" is the unknown one. No start token."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(n_words)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")
