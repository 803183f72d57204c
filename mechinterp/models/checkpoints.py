"""Hugging Face models and tokenizers from a local directory or the hub.

Weights are read from safetensors, never from a pickle, and code that comes with a model is never
run. What is read is whole: every weight of the configuration, and no other.

    >>> from pathlib import Path
    >>> import torch
    >>> from mechinterp.models.checkpoints import from_directory
    >>> from_directory(Path("nowhere"), torch.float32)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mechinterp.models.model_folder.CheckpointError: nowhere has no config.json. Give a directory ...
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from mechinterp.core.interrupts import holds_signals
from mechinterp.models.model import Tokenizer
from mechinterp.models.model_folder import (
    CheckpointError,
    ModelFolder,
    check_folder,
    weight_names,
)
from mechinterp.models.tokenizer_files import check_tokenizer_files

Checkpoint = tuple[nn.Module, Tokenizer | None]
"""A Hugging Face model and its tokenizer."""

Result = TypeVar("Result")


def from_directory(directory: Path, dtype: torch.dtype) -> Checkpoint:
    """A Hugging Face model and its tokenizer, if there is one, from a local directory.

    The weights are read from the safetensors files that were checked, and from nothing else.

    Raises:
        CheckpointError: if the folder is damaged, holds no safetensors, asks to run its own code,
            or if its weights are not those of its configuration, all of them and no more.
    """
    folder = check_folder(directory)
    with _quiet_library():
        model = _in_one_sentence(f"{directory}: its model", _read_model, folder, dtype)
        n_vocab = int(model.get_input_embeddings().weight.shape[0])
        check_tokenizer_files(directory, n_vocab)
        tokenizer = _in_one_sentence(f"{directory}: its tokenizer", _read_tokenizer, directory)
    return model, tokenizer


@holds_signals
def _in_one_sentence(what: str, read: Callable[..., Result], *arguments: object) -> Result:
    """What `read` returns; what it raises, which may be anything, as one sentence."""
    try:
        return read(*arguments)
    except CheckpointError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt; the other is how the tokenizers' own code fails
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(f"{what} cannot be loaded: {reason}") from error


def _read_model(folder: ModelFolder, dtype: torch.dtype) -> PreTrainedModel:
    """The model with the folder's weights: nothing missing, nothing left over."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = AutoConfig.from_pretrained(
        str(folder.path), trust_remote_code=False, local_files_only=True
    )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CheckpointError(
            f"{folder.path}: a {config.model_type} is not a model that continues text."
        )
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    _check_room(kind, config, folder)
    with ExitStack() as opened:
        files = [opened.enter_context(safe_open(file, "pt")) for file in folder.weights]
        weights = {name: file.get_slice(name) for file in files for name in set(file.keys())}
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
    wrong = {
        "lack": sorted(report["missing_keys"]),
        "have besides": sorted(report["unexpected_keys"]),
        "have in another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }
    if any(wrong.values()):
        said = " They ".join(f"{verb} {_some(names)}." for verb, names in wrong.items() if names)
        raise CheckpointError(
            f"{folder.path}: its weights are not those of its config.json. They {said} Save or "
            f"download the model again."
        )
    made: PreTrainedModel = model
    return made


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name[:120] for name in names[:5]) + more


def _check_room(kind: type, config: object, folder: ModelFolder) -> None:
    """Check that the model would not be far larger than its weights, before memory is taken.

    Twice as large is let through: what is missing then has a name.
    """
    with torch.device("meta"):
        bare = kind(copy.deepcopy(config))
    held = {id(x): x for x in (*bare.parameters(), *bare.buffers())}.values()
    packed = 8 if "quantization_config" in folder.config else 1
    room = max(2 * packed * folder.n_numbers, 1 << 26)
    wanted = sum(x.numel() for x in held)
    if wanted > room:
        other = [
            f"{name} {list(x.shape)} (the weights: {list(folder.shapes.get(name, ()))})"
            for name, x in bare.named_parameters()
            if tuple(x.shape) != folder.shapes.get(name)
        ]
        raise CheckpointError(
            f"{folder.path / 'config.json'} asks for a model of {wanted} numbers, and its weights "
            f"have {folder.n_numbers}: {_some(other) or 'its buffers are larger than its weights'}."
        )


@holds_signals
def _read_tokenizer(directory: Path) -> Tokenizer | None:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, TypeError):
        if any((directory / name).exists() for name in ("tokenizer_config.json", "tokenizer.json")):
            raise
        return None
    tokenizer: Tokenizer | None = found if found.vocab_size else None  # without files: an empty one
    return tokenizer


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Without the library's tables and bars: what matters of them is in the errors."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


_BESIDE_WEIGHTS = ["*.json", "*.txt", "*.model", "*.jinja"]
"""What is fetched from the hub before the weights, which follow if their names are safe."""


@holds_signals
def from_hub(name: str, dtype: torch.dtype) -> Checkpoint:
    """A Hugging Face model and its tokenizer by hub name, from the hub or its local cache.

    Raises:
        CheckpointError: if there is no such name, no network, or no safetensors, or for what
            `from_directory` refuses.
    """
    from huggingface_hub import snapshot_download

    below = ["*/*"]
    try:
        folder = Path(
            snapshot_download(name, allow_patterns=_BESIDE_WEIGHTS, ignore_patterns=below)
        )
        wanted = [*_BESIDE_WEIGHTS, *weight_names(folder)]
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=below))
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"{name!r} could not be loaded from the hub: {str(error).splitlines()[0]} "
            f"Check the name and the network; offline, give a local directory, "
            f'or "smollm2", or a toy such as "toy:induction".'
        ) from error
    return from_directory(folder, dtype)
