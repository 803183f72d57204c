"""From a Hugging Face model to a `HookedTransformer` that computes the same, or a refusal.

TransformerLens converts. It reads parts of a configuration only, so every model is compared with
its original before anyone sees it; and it is made in single precision, whatever the precision in
which it will run, so that folding loses nothing and rounding hides nothing.

>>> from transformers import GPT2Config, GPT2LMHeadModel
>>> from mechinterp.models.conversion import convert
>>> sizes = GPT2Config(vocab_size=19, n_embd=8, n_layer=1, n_head=2, n_positions=11)
>>> convert(GPT2LMHeadModel(sizes).eval(), "tiny").cfg.n_ctx
11
"""

import copy
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens import loading_from_pretrained as library
from transformer_lens.utilities.activation_functions import softcap_enabled
from transformer_lens.weight_processing import ProcessWeights
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from mechinterp.core.interrupts import holds_signals
from mechinterp.models.comparison import check_conversion, check_runs
from mechinterp.models.model_folder import MOST_POSITIONS, CheckpointError

_BY_NAME = ("Gemma", "Olmo")
"""Families of which TransformerLens knows the published models alone, by their names."""

_ONE_AT_A_TIME = threading.Lock()
"""Held while the library reads a configuration through us: other threads load models too."""

_READABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def convert(
    original: PreTrainedModel,
    label: str,
    *,
    fold: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HookedTransformer:
    """The original as a `HookedTransformer`, without a tokenizer; checked against the original.

    `fold`: fold norms, centre what writes and unembeds. `label`: the model's name in messages.

    Raises:
        CheckpointError: if TransformerLens cannot convert it, or gets other probabilities.
    """
    _check_plain(original, label)
    single = dtype if dtype == torch.float64 else torch.float32
    try:
        model = _converted(original, label, fold=fold, device=device, dtype=single)
    except CheckpointError as error:
        if fold and _loads_unfolded(original, label, device=device, dtype=single):
            raise CheckpointError(
                f"{label}: TransformerLens folds its weights wrongly. Unfolded it computes what "
                f'the original does: load_model(..., weights="raw").'
            ) from error
        raise
    if dtype != single:
        model.to(dtype, print_details=False)
        model.cfg.dtype = dtype
        check_runs(model, label)
    return model


def _loads_unfolded(
    original: PreTrainedModel, label: str, *, device: str | torch.device, dtype: torch.dtype
) -> bool:
    try:
        _converted(original, label, fold=False, device=device, dtype=dtype)
    except CheckpointError:
        return False
    return True


@holds_signals
def _converted(
    original: PreTrainedModel,
    label: str,
    *,
    fold: bool,
    device: str | torch.device,
    dtype: torch.dtype,
) -> HookedTransformer:
    """The converted model in single or double precision, compared with the original."""
    with tempfile.TemporaryDirectory(prefix="mi-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = _configuration(original, label, scratch, fold=fold)
        cfg.device, cfg.dtype = str(device), dtype
        try:
            model = _filled(cfg, original, scratch, fold=fold)
        except Exception as error:  # it checks little and can fail in many ways
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CheckpointError(
                f"{label}: TransformerLens cannot convert it: {reason}"
            ) from error
    model.move_model_modules_to_device()
    check_conversion(model.eval(), original, label)
    return model


def _check_plain(original: nn.Module, label: str) -> None:
    """Check that its weights are plain numbers, not packed ones."""
    for name, weight in original.named_parameters():
        if weight.dtype not in _READABLE or weight.is_meta:
            what = "on no device" if weight.is_meta else str(weight.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{label}: its weight {name} is {what}, so the model is quantized or offloaded, "
                f"and TransformerLens reads plain weights only. Load the original without "
                f"quantization_config and device_map, or call its dequantize()."
            )


@holds_signals
def _configuration(
    original: PreTrainedModel, label: str, scratch: str, *, fold: bool
) -> HookedTransformerConfig:
    """TransformerLens's configuration of the model.

    The library reads configurations only from a directory, so it gets one that holds this config.
    """
    config = copy.deepcopy(original.config)
    config.architectures = config.architectures or [type(original).__name__]
    kind = config.architectures[0]
    if config.model_type == "gpt2" and not hasattr(config, "n_ctx"):
        config.n_ctx = config.n_positions
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size or (
        getattr(config, "do_layer_norm_before", True) is False
    ):
        raise CheckpointError(
            f"{label}: TransformerLens has no OPT whose embedding is projected or whose norms come "
            f"after, as in opt-350m. The other sizes of OPT load."
        )
    config.save_pretrained(scratch)
    try:
        with _moved_attributes(config):
            cfg = library.get_pretrained_model_config(
                scratch, hf_cfg=config.to_dict(), fold_ln=fold, device="cpu"
            )
    except NotImplementedError as error:
        known = (
            ""
            if not kind.startswith(_BY_NAME)
            else (
                " It knows the published models of this family by name: "
                "HookedTransformer.from_pretrained(NAME), which you can use here as it is."
            )
        )
        raise CheckpointError(f"{label}: {error} by TransformerLens.{known}") from error
    except Exception as error:  # a size that is missing, a string for a number
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{label}: TransformerLens cannot read its configuration: {reason}"
        ) from error
    if cfg.original_architecture != kind:
        raise CheckpointError(
            f"{label}: TransformerLens took it for {cfg.original_architecture}, but it is {kind}. "
            f"Set TMPDIR to a path without a model's name in it."
        )
    cfg.tokenizer_name, cfg.model_name, cfg.trust_remote_code = None, label, False
    cfg.init_weights = False
    cfg.d_mlp = getattr(config, "n_inner", None) or cfg.d_mlp  # the library ignores it
    cfg.n_ctx = _context(config, cfg.n_ctx)
    return cfg


def _context(config: PretrainedConfig, n_ctx: int) -> int:
    """The model's own context, where the library has a number of its own.

    Where no table of positions ends it, the library caps some families at 2,048.
    """
    own = getattr(config, "max_position_embeddings", None)
    if config.model_type in ("mistral", "qwen3") and isinstance(own, int):
        n_ctx = own
    return min(n_ctx, MOST_POSITIONS)


@contextmanager
def _moved_attributes(config: PretrainedConfig) -> Iterator[None]:
    """Let the library find what has moved: a share of rotated dimensions, in phi's config."""
    rope = getattr(config, "rope_parameters", None)
    kind = type(config)
    if hasattr(config, "partial_rotary_factor") or not isinstance(rope, dict):
        yield
        return
    share, whole = rope.get("partial_rotary_factor", 1.0), AutoConfig

    class WithShare:
        """The library's reader of configurations, which adds what has moved."""

        @staticmethod
        def from_pretrained(*arguments: object, **options: object) -> PretrainedConfig:
            found: PretrainedConfig = whole.from_pretrained(*arguments, **options)
            if isinstance(found, kind):
                found.partial_rotary_factor = share
            return found

    with _ONE_AT_A_TIME:
        library.AutoConfig = WithShare
        try:
            yield
        finally:
            library.AutoConfig = whole


def _filled(
    cfg: HookedTransformerConfig, original: PreTrainedModel, scratch: str, *, fold: bool
) -> HookedTransformer:
    """A model of this configuration with the original's weights, folded if asked."""
    state = library.get_pretrained_state_dict(scratch, cfg, original, dtype=cfg.dtype)
    rounded = any(weight.dtype != cfg.dtype for weight in state.values())
    if rounded:  # folding multiplies weights: not in half precision
        state = {name: weight.to(cfg.dtype, copy=True) for name, weight in state.items()}
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
    model.load_state_dict(state, strict=False, assign=rounded)
    return model
