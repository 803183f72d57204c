"""Loading, and the parts of a forward pass. Logits against the originals: `tests/laws`."""

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
from mechinterp.checkpoints import CheckpointError
from mechinterp.models import SWITCHES
from mechinterp.toys import TOYS, toy

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=12, n_head=3, vocab_size=19, n_positions=11)
    return GPT2LMHeadModel(config).eval()


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


def test_an_unknown_name_offline():
    code = (
        "from mechinterp import load_model\n"
        "from mechinterp.checkpoints import CheckpointError\n"
        "try: load_model('nobody/no-such-model')\n"
        "except CheckpointError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"},
        cwd=Path(__file__).parents[1],
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
    assert f"toy:{name}" in models.available_models()


def test_names_that_are_known_without_a_network():
    known = models.available_models()
    assert set(known) == {"smollm2", *(f"toy:{name}" for name in TOYS)}
    assert all(known.values())


def test_the_size_in_words(absolute_model, grouped_model):
    size = models.size(absolute_model)
    assert size == "3 layers, 4 heads, d_model 20, vocabulary 37, context 17"
    assert "6 (2 key-value) heads" in models.size(grouped_model)


def test_the_processing_in_words(original):
    raw, folded = (load_model(original, weights=w) for w in ("raw", "folded"))
    assert models.processing(raw) == "norm LN not folded, unembedding not centred"
    assert models.processing(folded) == "norms folded, unembedding centred"
    llama = LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=1,
            hidden_size=12,
            num_attention_heads=3,
            intermediate_size=20,
            vocab_size=17,
        )
    )
    assert models.processing(load_model(llama)) == "norms folded, unembedding centred"


def test_a_fingerprint_is_that_of_the_weights_and_the_configuration(original):
    first, again = load_model(original), load_model(original)
    fingerprint = models.fingerprint(first)
    assert len(fingerprint) == 16
    assert models.fingerprint(again) == fingerprint
    weight = again.blocks[1].mlp.W_out
    bits = weight.view(torch.int32)
    bits[3, 4] ^= 1  # the last bit of one weight
    assert models.fingerprint(again) != fingerprint
    bits[3, 4] ^= 1
    assert models.fingerprint(again) == fingerprint
    assert models.fingerprint(load_model(original, weights="raw")) != fingerprint
    assert models.fingerprint(load_model(original, split_qkv=True)) != fingerprint


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


# The parts of a forward pass


def test_the_parts_together_are_the_model(model):
    expected = model(TOKENS)
    resid = models.embedded(model, TOKENS)[0]
    for layer in range(model.cfg.n_layers):
        site = Site("resid_pre", layer)
        assert torch.equal(resid, run(model, TOKENS, read(site)).acts[site])
        resid = models.block(model, layer, resid)
    normalized = models.normalized(model, resid)
    assert torch.equal(models.hooked_unembedded(model, normalized), expected)
    close(models.unembedded(model, normalized), expected)
    ids = torch.tensor([[0, 5, 5], [36, 1, 2]])
    few = models.unembedded(model, normalized, ids)
    for row in range(2):
        close(few[row], expected[row][:, ids[row]])


def test_a_cap_on_the_logits(absolute_model):
    plain = absolute_model(TOKENS)
    absolute_model.cfg.output_logits_soft_cap = 3.0
    try:
        capped = 3 * (plain / 3).tanh()
        close(absolute_model(TOKENS), capped)
        close(run(absolute_model, TOKENS).logits[:, 0], capped[:, -1])
        normalized = run(absolute_model, TOKENS, read(Site("unembed_in"))).acts[Site("unembed_in")]
        ids = torch.tensor([[4], [7]])
        found = models.unembedded(absolute_model, normalized, ids)[..., 0]
        close(found, torch.stack([capped[0, :, 4], capped[1, :, 7]]))
    finally:
        absolute_model.cfg.output_logits_soft_cap = -1.0
    assert torch.equal(absolute_model(TOKENS), plain)


def test_cached_keys_and_values(model):
    whole = models.embedded(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    begin = models.embedded(model, TOKENS[:, :3])[0]
    rest = models.embedded(model, TOKENS[:, 3:], 3)[0]
    for layer in range(model.cfg.n_layers):
        whole = models.block(model, layer, whole)
        begin = models.block(model, layer, begin, entry=cache[layer])
    close(begin, whole[:, :3])
    for layer in range(model.cfg.n_layers):
        rest = models.block(model, layer, rest, entry=cache[layer])
    close(rest, whole[:, 3:])


def test_keys_and_values_alone_are_those_of_the_layer(model):
    resid = models.embedded(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    models.block(model, 1, resid, entry=cache[1])
    first = models.keys_and_values(model, 1, resid[:, :2])
    both = models.keys_and_values(model, 1, resid[:, 2:], first)
    close(both.past_keys, cache[1].past_keys)
    close(both.past_values, cache[1].past_values)
    assert first.past_keys.shape[1] == 2


def test_the_mean_embedding(model):
    expected = model.W_E.mean(0)
    if model.cfg.post_embedding_ln:
        expected = model.embed(torch.arange(model.cfg.d_vocab)[None])[0].mean(0)
    close(models.mean_embedding(model), expected)


def test_somebody_elses_hooks_are_noticed(absolute_model):
    assert not models.has_foreign_hooks(absolute_model)
    module = absolute_model.blocks[1].mlp
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *args: None)
        assert models.has_foreign_hooks(absolute_model)
        handle.remove()
    assert not models.has_foreign_hooks(absolute_model)
