"""Activations on disk, in parts of some rows each, read layer by layer.

What is gathered need not fit into memory: a part is written when it is full, and the array that
comes out reads what is asked of it from the files, which have been checked. A file that was changed
since is checked again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
import xarray as xr
from jaxtyping import Float
from xarray.backends import BackendArray
from xarray.core import indexing

from mechinterp.storage.parts_folder import FinishedParts, PartsFolder

_PART_BYTES = 1 << 22
_SUFFIX = ".safetensors"

Shape = tuple[int, int, int]
"""Layers, prompts, features."""


class ActivationFolder:
    """The parts of one `gather`: `groups` has the batches of each.

    `batches`: the rows of each batch, in order. `facts`: what must agree.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it holds other activations, naming the difference, or other files.
    """

    def __init__(
        self,
        folder: Path,
        shape: Shape,
        batches: Sequence[np.ndarray],
        facts: Mapping[str, object],
    ) -> None:
        self._shape = shape
        self.groups = _grouped(batches, 4 * shape[0] * shape[2])
        self._n_rows = [sum(map(len, group)) for group in self.groups]
        known = {**facts, "shape": list(shape), "rows of parts": self._n_rows}
        self._parts = PartsFolder(folder, "activations", known)

    def has(self, number: int) -> bool:
        """Whether a part is there, whole."""
        return self._parts.load(number, _SUFFIX) is not None

    def save(self, number: int, values: Float[np.ndarray, "layer prompt feature"]) -> None:
        """Write a part.

        Raises:
            OSError: if it cannot be written; parts written before stay.
        """
        content = safetensors.numpy.save({"values": np.ascontiguousarray(values)})
        self._parts.save(number, _SUFFIX, content)

    def finish(self) -> xr.Variable:
        """Seal the folder; dims (layer, prompt, feature), read from the files when it is used."""
        self._parts.finish(len(self.groups), {})
        array = _ArrayOfParts(self._parts.read(), self._shape, self._n_rows)
        return xr.Variable(("layer", "prompt", "feature"), indexing.LazilyIndexedArray(array))


class _ArrayOfParts(BackendArray):
    """An array [layer, prompt, feature] whose prompts are in several files."""

    def __init__(self, parts: FinishedParts, shape: Shape, n_rows: Sequence[int]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self._parts, self._n_rows = parts, n_rows
        self._checked: dict[int, tuple[int, int]] = {}

    def __getitem__(self, key: indexing.ExplicitIndexer) -> object:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        layers, rows = (np.atleast_1d(np.arange(self.shape[axis])[key[axis]]) for axis in (0, 1))
        found = np.empty((len(layers), len(rows), self.shape[2]), np.float32)
        first = 0
        for number, n in enumerate(self._n_rows):
            here = (first <= rows) & (rows < first + n)
            if here.any():
                for place, layer in enumerate(layers.tolist()):
                    found[place, here] = self._layer(number, layer)[rows[here] - first]
            first += n
        kept = tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key[:2])
        return found[(*kept, key[2])]

    def _layer(self, number: int, layer: int) -> np.ndarray:
        """One layer of a part, [prompt, feature], which stands in one piece in the file."""
        file, _ = self._parts.files[number]
        state = file.stat() if file.exists() else None
        now = (0, 0) if state is None else (state.st_size, state.st_mtime_ns)
        if self._checked.get(number) != now:
            self._parts.content(number)
            self._checked[number] = now
        size = 4 * self._n_rows[number] * self.shape[2]
        with file.open("rb") as opened:
            opened.seek(8 + int.from_bytes(opened.read(8), "little") + layer * size)
            return np.frombuffer(opened.read(size), np.float32).reshape(-1, self.shape[2])


def _grouped(batches: Sequence[np.ndarray], bytes_per_row: int) -> list[list[np.ndarray]]:
    """Batches in order, in groups of about so many bytes as a part shall have."""
    groups: list[list[np.ndarray]] = [[]]
    for rows in batches:
        held = sum(map(len, groups[-1])) * bytes_per_row
        if groups[-1] and held + len(rows) * bytes_per_row > _PART_BYTES:
            groups.append([])
        groups[-1].append(rows)
    return groups
