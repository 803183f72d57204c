"""Loading from every source; what comes out wrong is refused. Logits also in `tests/laws`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    XLMConfig,
    XLMWithLMHeadModel,
)

from mechinterp import Site, load_model, models, read, run, tokenize
from mechinterp.models.facts import SWITCHES
from mechinterp.models.finetunes import FINETUNES
from mechinterp.models.loading import available_models
from mechinterp.models.model_folder import CheckpointError
from mechinterp.toys import TOYS, toy

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def words():
    """A tokenizer that knows 18 words and where white space is."""
    ids = {w: i for i, w in enumerate(["<s>", "</s>", *(f"w{i}" for i in range(16)), "<unk>"])}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_a_model_object_with_its_tokenizer(original, words):
    loaded = load_model(original, tokenizer=words, weights="raw", device="cpu")
    prompts = tokenize(loaded, "w3 w5")
    assert prompts.token_text == (("<s>", "w3", "w5"),)
    with torch.no_grad():
        close(loaded(prompts.tokens), original(prompts.tokens).logits)
    assert loaded.tokenizer is not words
    assert words.pad_token is None  # ours is a copy
    assert loaded.tokenizer.padding_side == "right"
    assert models.name(loaded) == "GPT2LMHeadModel"


def test_a_directory_with_its_tokenizer(original, words, tmp_path):
    folder = tmp_path / "my-model"
    original.save_pretrained(folder)
    without = load_model(folder)
    with pytest.raises(ValueError, match="no tokenizer"):
        run(without, "w3 w5")
    words.save_pretrained(folder)
    for source in (folder, str(folder)):
        loaded = load_model(source, weights="raw", device="cpu")
        prompts = tokenize(loaded, ["w3 w5", "w1"])
        assert prompts.token_text == (("<s>", "w3", "w5"), ("<s>", "w1"))
        with torch.no_grad():
            close(loaded(prompts.tokens[:1]), original(prompts.tokens[:1]).logits)
        assert models.name(loaded) == "my-model"


def test_what_is_loaded_is_frozen(original):
    for source in (original, "toy:and"):
        loaded = load_model(source)
        assert not loaded.training
        assert not any(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_sets_its_flag_alone(original, switch):
    for source in (original, "toy:and"):
        loaded = load_model(source, **{switch: True})
        assert {name for name, flag in SWITCHES.items() if getattr(loaded.cfg, flag)} == {switch}
        close(run(loaded, TOKENS).logits, run(load_model(source), TOKENS).logits)


def test_weights_in_another_precision(original):
    loaded = load_model(original, dtype=torch.float64, weights="raw")
    assert loaded.W_U.dtype == torch.float64
    with torch.no_grad():
        close(loaded(TOKENS).float(), original(TOKENS).logits)


def test_a_misspelt_switch_is_told_which_there_are():
    with pytest.raises(TypeError, match=r"load_model\(\) got .* 'split_kqv'\. The switches are"):
        load_model("toy:trigger", split_kqv=True)


def test_sources_that_cannot_be(tmp_path, as_users_call_it):
    with pytest.raises(ValueError, match='weights=\'centred\': "folded" or "raw"'):
        load_model("toy:trigger", weights="centred")
    for missing in (tmp_path / "nothing", str(tmp_path / "nothing"), "./nothing", "~/nothing/here"):
        with pytest.raises(CheckpointError, match=r"nothing.* is not a directory"):
            load_model(missing)
    with pytest.raises(ValueError, match="None is neither a name, a path nor a model"):
        load_model(None)


def test_an_architecture_that_the_library_does_not_know():
    unknown = XLMWithLMHeadModel(XLMConfig(vocab_size=13, emb_dim=8, n_layers=1, n_heads=2))
    with pytest.raises(CheckpointError, match="XLMWithLMHeadModel"):
        load_model(unknown)


@pytest.mark.slow
def test_an_unknown_name_offline():
    code = (
        "from mechinterp import load_model\n"
        "from mechinterp.models.checkpoints import CheckpointError\n"
        "try: load_model('nobody/no-such-model')\n"
        "except CheckpointError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'nobody/no-such-model' could not be loaded from the hub" in done.stdout
    assert "offline, give a local directory" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    made, loaded = toy(name), load_model(f"toy:{name}")
    state = loaded.state_dict()
    assert all(torch.equal(state[key], weight) for key, weight in made.weights.items())
    assert tuple(loaded.tokenizer.get_vocab()) is not None
    ids = loaded.tokenizer.convert_tokens_to_ids(list(made.vocabulary))
    assert ids == list(range(len(made.vocabulary)))
    assert models.name(loaded) == f"toy:{name}"
    assert f"toy:{name}" in available_models()


def test_names_that_are_known_without_a_network():
    known = available_models()
    fine_tuned = {f"smollm2:{name}" for name in FINETUNES}
    assert set(known) == {"smollm2", *fine_tuned, *(f"toy:{name}" for name in TOYS)}
    assert all(known.values())


# What the library overlooks


def tiny(kind, **options):
    """A model whose norms and biases all do something."""
    build, config, sizes = {
        "gpt2": (
            GPT2LMHeadModel,
            GPT2Config,
            {"n_layer": 2, "n_embd": 20, "n_head": 4, "n_inner": 28, "n_positions": 17},
        ),
        "llama": (
            LlamaForCausalLM,
            LlamaConfig,
            {
                "num_hidden_layers": 2,
                "hidden_size": 24,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "intermediate_size": 26,
            },
        ),
        "neox": (
            GPTNeoXForCausalLM,
            GPTNeoXConfig,
            {
                "num_hidden_layers": 2,
                "hidden_size": 40,
                "num_attention_heads": 5,
                "intermediate_size": 30,
            },
        ),
    }[kind]
    made = build(config(vocab_size=37, **(sizes | options))).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            spread = 0.3 * torch.randn(weight.shape, generator=generator)
            gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            weight.copy_(1 + spread if gain else spread)
    return made


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"tie_word_embeddings": False, "n_inner": None}),
        ("llama", {"num_key_value_heads": 6}),
        ("llama", {"tie_word_embeddings": True, "rope_theta": 100.0}),
        ("neox", {"use_parallel_residual": False}),
        ("neox", {"rotary_pct": 1.0}),
    ],
)
def test_variants_of_an_architecture(kind, options):
    variant = tiny(kind, **options)
    loaded = load_model(variant, weights="raw")
    with torch.no_grad():
        close(loaded(TOKENS), variant(TOKENS).logits)


def test_what_folding_does_to_the_weights():
    given = tiny("gpt2")
    raw, folded = (load_model(given, weights=w) for w in ("raw", "folded"))
    for loaded, is_folded in ((raw, False), (folded, True)):
        assert bool((loaded.b_V == 0).all()) == is_folded
        for weight in (loaded.W_O, loaded.W_out, loaded.W_E, loaded.W_U):
            assert bool(weight.mean(-1).abs().max() < 1e-6) == is_folded
    centred = given.transformer.wte.weight - given.transformer.wte.weight.mean(-1, keepdim=True)
    close(folded.W_E, centred.detach())


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}


@pytest.mark.parametrize("weights", ["raw", "folded"])
@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("llama", {"mlp_bias": True}, "differs from the original by .* biases"),
        ("llama", {"attention_bias": True}, "differs from the original by .* biases"),
        ("llama", {"rope_parameters": LINEAR}, "differs from the original by .* rotary scaling"),
        ("llama", {"head_dim": 8}, "cannot convert it: .*size"),
        ("neox", {"attention_bias": False}, "cannot convert it"),
    ],
)
def test_what_would_come_out_wrong_is_refused(kind, options, reason, weights):
    with pytest.raises(CheckpointError, match=f"(?i){kind}.*{reason}"):
        load_model(tiny(kind, **options), weights=weights)


def test_the_comparison_leaves_the_original_as_it_was():
    given = tiny("gpt2", resid_pdrop=0.5).train()
    given.transformer.h[1].eval()
    training = [module.training for module in given.modules()]
    loaded = load_model(given, weights="raw")
    assert [module.training for module in given.modules()] == training
    assert all(weight.requires_grad for weight in given.parameters())
    assert not any(module._forward_hooks for module in loaded.modules())
    before = given.transformer.wte.weight.clone()
    loaded.W_E.zero_()  # a copy
    assert torch.equal(given.transformer.wte.weight, before)


def test_a_switch_that_the_library_cannot_run():
    with pytest.raises(ValueError, match=r"attn_in: .*grouped-query.*Use split_qkv=True"):
        load_model(tiny("llama"), attn_in=True)
    alike = load_model(tiny("llama", num_key_value_heads=6), attn_in=True)
    site = Site("attn_in", 1, 5)
    assert run(alike, TOKENS, read(site)).acts[site].shape == (2, 5, 24)
