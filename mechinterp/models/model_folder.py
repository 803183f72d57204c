"""A folder with a model, checked before anything in it is opened: names, sizes, what it asks for.

A folder comes from elsewhere. Its weights must be safetensors files inside it, its configuration
must ask for no code and no kernel, and no size in it may exceed what the weights have: a number in
a JSON file costs nothing to write, and memory to believe.

>>> from pathlib import Path
>>> from mechinterp.models.model_folder import read_json
>>> read_json(Path("nowhere.json"))
Traceback (most recent call last):
mechinterp.models.model_folder.CheckpointError: nowhere.json is not a file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open

from mechinterp.core.interrupts import holds_signals

MOST_BYTES = {"config.json": 1 << 20, "tokenizer.json": 1 << 26}
"""The largest JSON file of a name that is read; any other may have 16 MiB."""

MOST_POSITIONS = 1 << 20
"""The longest context that is believed."""

_OWN_KERNELS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
_NUMBERS = ("F64", "F32", "F16", "BF16")
_ASKS = ("fusion_config", "kernel_config", "use_kernels", "transformers_weights")


class CheckpointError(RuntimeError):
    """A model cannot be loaded. The message says why, and what to try."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose names and sizes have been checked.

    `weights`: its safetensors files. `shapes`: the shape of each tensor in them.
    """

    path: Path
    config: Mapping[str, object]
    weights: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def n_numbers(self) -> int:
        """How many numbers the weights have."""
        return sum(prod(shape) for shape in self.shapes.values())


def check_folder(path: Path) -> ModelFolder:
    """The folder, after all that can be checked without a tensor or a model.

    Raises:
        CheckpointError: if it has no config or no safetensors, is damaged, names a file outside,
            asks to run code, or states sizes that its weights do not have.
    """
    config_file = path / "config.json"
    if not config_file.is_file():
        raise CheckpointError(
            f"{path} has no config.json. Give a directory written by save_pretrained."
        )
    if (path / "adapter_config.json").exists():
        raise CheckpointError(
            f"{path} is an adapter, whose model is elsewhere: merge them (merge_and_unload) and "
            f"save the result."
        )
    config = read_json(config_file)
    _check_requests(config_file, config)
    weights = _weight_files(path)
    shapes = {name: shape for file in weights for name, shape in _shapes(file).items()}
    _check_sizes(config_file, config, shapes)
    return ModelFolder(path, config, weights, shapes)


def read_json(file: Path) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        CheckpointError: if it is no regular file, is too large, or holds no object.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is not a file.")
    n_bytes, most = file.stat().st_size, MOST_BYTES.get(file.name, 1 << 24)
    if n_bytes > most:
        raise CheckpointError(f"{file} has {n_bytes} bytes; no such file has more than {most}.")
    try:
        found = json.loads(file.read_bytes())
    except RecursionError:
        raise CheckpointError(f"{file} is nested too deeply to be read.") from None
    except ValueError as error:  # neither JSON nor UTF-8
        raise CheckpointError(f"{file} is not JSON: {error}. Download it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds {found!r:.40}, not an object of names and values.")
    return found


def entries(value: object) -> Iterator[tuple[str, object]]:
    """Every key and its value, at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield from ((str(key), held) for key, held in one.items())
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def refuse_code(file: Path, content: object) -> None:
    """Check that the file asks for no code of its own, and names no file outside.

    Raises:
        CheckpointError: if it does.
    """
    for key, value in entries(content):
        if key == "auto_map":
            raise CheckpointError(
                f"{file} asks to run code that comes with the model (auto_map), which is refused. "
                f"Load it yourself if you trust it, and pass the model and tokenizer objects."
            )
        for name in value if isinstance(value, list) else [value]:
            if key in ("fast_tokenizer_file", "fast_tokenizer_files") and Path(
                str(name)
            ).name != str(name):
                raise CheckpointError(f"{file}: {key} names {name!r:.80}, outside the folder.")


def _check_requests(file: Path, config: Mapping[str, object]) -> None:
    refuse_code(file, config)
    for key, value in entries(config):
        if key.endswith("_implementation") and value not in _OWN_KERNELS:
            raise CheckpointError(
                f"{file}: {key} asks for {value!r:.80}. Only torch's own are used: eager or sdpa. "
                f"Remove that line."
            )
        if key in _ASKS and value:
            raise CheckpointError(f"{file}: {key} is not supported. Remove that line.")
        method = value.get("quant_method") if isinstance(value, Mapping) else None
        if key == "quantization_config" and method != "mxfp4":
            raise CheckpointError(
                f"{file}: the weights are quantized ({method or 'by an unknown method'}), and "
                f"TransformerLens reads plain weights only. Load the model that they were made of, "
                f"or dequantize them: model.dequantize(), then save_pretrained."
            )


def weight_names(path: Path) -> list[str]:
    """The names of the files that hold the weights, none of them opened: by the index, if any.

    Raises:
        CheckpointError: if the index names what is not a safetensors file in its folder.
    """
    whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if whole.is_file() or not index.exists():
        return [whole.name]
    named = read_json(index).get("weight_map")
    names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not names:
        raise CheckpointError(f"{index} names no file: it has no weight_map.")
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r:.80}, which is not a safetensors file in its folder. "
                f"Nothing was opened. Save the model again with save_pretrained."
            )
    return names


def _weight_files(path: Path) -> tuple[Path, ...]:
    files = tuple(path / name for name in weight_names(path))
    lacking = [file.name for file in files if not file.is_file()]
    if lacking == ["model.safetensors"]:
        held = sorted(file.name for file in path.iterdir())
        pickles = [name for name in held if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        others = [name for name in held if name.endswith(".safetensors")]
        what = f"only {pickles[0]}, a pickle, which can run code" if pickles else "no weights"
        what = f"{others[0]}, but no model.safetensors and no index" if others else what
        what = "a model.safetensors that is not a plain file" if lacking[0] in held else what
        raise CheckpointError(
            f"{path} has {what}. Save the weights as safetensors "
            f"(model.save_pretrained(..., safe_serialization=True)) and load that directory."
        )
    if lacking:
        raise CheckpointError(f"{path} lacks {lacking[0]!r:.80}, which its index names.")
    return files


@holds_signals
def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor; the file's own table is read, and no tensor."""
    with file.open("rb") as opened:
        n_bytes = int.from_bytes(opened.read(8), "little")
    size = file.stat().st_size
    if n_bytes > min(1 << 24, size):
        raise CheckpointError(
            f"{file} is not a whole safetensors file: its table would have {n_bytes} bytes, and "
            f"the file has {size}. Download it again."
        )
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_slice(name) for name in set(opened.keys())}
            kinds = {name: tensor.get_dtype() for name, tensor in tensors.items()}
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
    except Exception as error:  # of the library's own class, which says nothing more
        raise CheckpointError(
            f"{file} is not a whole safetensors file: {error}. Download it again."
        ) from error
    for name, kind in kinds.items():
        if name.endswith(".weight") and kind not in _NUMBERS:
            raise CheckpointError(
                f"{file}: {name} is of {kind}, so the weights are quantized, and TransformerLens "
                f"reads plain weights only. Load the model that they were made of."
            )
    return shapes


def _check_sizes(
    file: Path, config: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that no number in the configuration asks for more than the weights have."""
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    for key, value in entries(config):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if re.search(r"position|ctx|context|seq_len|window|length", key):
            most, of = MOST_POSITIONS * 16, "no model reads so many"
        elif re.search(r"layers?$", key):
            most, of = len(shapes), f"the weights are {len(shapes)} tensors"
        elif re.search(r"^(n|num)_", key):
            most, of = max(largest, 1024), f"the longest side of a weight is {largest}"
        else:
            continue
        if value > most:
            raise CheckpointError(f"{file}: {key} is {value:.6g}, but {of}.")
