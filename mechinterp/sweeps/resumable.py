"""A sweep on disk: finished parts, from which a sweep that was stopped continues.

Parts are safetensors, each with the values of some arms. How a folder of parts is written, checked
and continued is in `storage.parts_folder`.

    sweep(model, prompts, over, arm, metric, out="runs/heads")    # stopped? run it again
    read_sweep("runs/heads")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors
import safetensors.numpy
import xarray as xr
from jaxtyping import Float

from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.storage.digest import digest
from mechinterp.storage.manifests import LAYOUT
from mechinterp.storage.parts_folder import FinishedParts, PartsFolder, read_parts
from mechinterp.storage.provenance import resumable_facts
from mechinterp.storage.seals import metadata_of
from mechinterp.storage.whole_files import check_memory
from mechinterp.sweeps.points import ResultLayout, label_values

_SUFFIX = ".safetensors"


def sweep_facts(
    model: Model,
    out: str | Path,
    prompts: Prompts,
    specs: Sequence[object],
    metrics: Sequence[Metric],
    points: object,
) -> dict[str, object]:
    """What must agree for one sweep to continue another; specs, metrics and points as hashes.

    Raises:
        ValueError: if it cannot be told what a spec or metric does, naming it; or if the model has
            hooks of other code.
    """
    return {
        **resumable_facts(model, out),
        "prompts": digest(prompts),
        "specs": digest(specs),
        "metrics": digest(metrics),
        "points": digest(points),
    }


class SweepFolder:
    """The folder of one sweep: made if it is new, continued if it holds the same sweep.

    `facts`: what must agree, from `sweep_facts`. `default`: the budget of a new sweep.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it holds another sweep, naming the difference, or other files.
    """

    def __init__(
        self,
        folder: str | Path,
        facts: Mapping[str, object],
        budget_bytes: int | None,
        default: int,
    ) -> None:
        given = default if budget_bytes is None else budget_bytes
        self._parts = PartsFolder(folder, "sweep", facts, {"budget_bytes": given})
        self.budget_bytes = cast(int, self._parts.settings["budget_bytes"])
        if budget_bytes not in (None, self.budget_bytes):
            raise ValueError(
                f"{folder} was begun with budget_bytes={self.budget_bytes}, not {budget_bytes}. "
                f"Leave it out, or choose another folder."
            )

    def load_part(
        self, number: int, arms: Sequence[int]
    ) -> Float[np.ndarray, "metric arm prompt"] | None:
        """The values of a part, None if it is not there; a damaged one is removed."""
        content = self._parts.load(number, _SUFFIX)
        if content is None:
            return None
        tensors = safetensors.numpy.load(content)
        return tensors["values"] if tensors["arms"].tolist() == list(arms) else None

    def save_part(
        self, number: int, arms: Sequence[int], values: Float[np.ndarray, "metric arm prompt"]
    ) -> None:
        """Write the values of some arms as a part.

        Raises:
            OSError: if it cannot be written; parts written before stay.
        """
        tensors = {"values": np.ascontiguousarray(values), "arms": np.array(arms)}
        self._parts.save(number, _SUFFIX, safetensors.numpy.save(tensors))

    def finish(self, n_parts: int, result: Mapping[str, object]) -> None:
        """Complete the manifest: the hashes of all parts, and `result`, how to read them."""
        self._parts.finish(n_parts, result)


def read_sweep(folder: str | Path) -> xr.DataArray:
    """The result of a finished sweep, as `sweep_each` gave it: dims `("metric", *over, "prompt")`.

    A sweep that 0.1 or 0.2 finished is read too, after the same checks.

    Raises:
        ValueError: if the sweep is not finished, or a file is missing, damaged or of another sweep.
    """
    found = read_parts(folder, "sweep")
    try:
        layout = cast(ResultLayout, found.manifest)
        n_metrics, n_prompts = layout["shape"][0], layout["shape"][-1]
        n_arms = len(layout["same_as"])
        check_memory(8 * n_metrics * n_arms * n_prompts, f"the result of {folder}")
        values = np.full((n_metrics, n_arms, n_prompts), np.nan)
        filled: list[int] = []
        for number in range(len(found.files)):
            part = safetensors.numpy.load(_content(found, number))
            values[:, part["arms"]] = part["values"]
            filled += part["arms"].tolist()
        if sorted(filled) != sorted(set(layout["same_as"])):
            raise ValueError(f"{folder}: its parts do not hold each arm once. Run the sweep again.")
        return label_values(values, layout)
    except (KeyError, IndexError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{folder} is no finished sweep: {error!r}. Run the sweep again."
        ) from error


def _content(found: FinishedParts, number: int) -> bytes:
    """The content of a part, which in 0.1 and 0.2 had the key of its sweep in its header."""
    content = found.content(number)
    is_old, key = found.manifest.get("layout") != LAYOUT, found.manifest.get("key")
    if is_old and metadata_of(content).get("key") != key:
        raise ValueError(f"{found.files[number][0]} is of another sweep. Run this one again.")
    return content
