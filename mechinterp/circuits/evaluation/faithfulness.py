"""What a model does with the edges of a circuit alone, the others carrying what replaces them.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, faithfulness
>>> model = load_model("toy:trigger")
>>> texts = ["bring the sesame", "open sesame today"], ["bring the map", "open it today"]
>>> pair = Pair(*(tokenize(model, side) for side in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> edges = ["input->a1.h0<k>", "input->a1.h0<v>", "a1.h0->logits"]
>>> found = faithfulness(contrast, {"planted": Circuit.from_edges(contrast.graph, edges)})
>>> found["faithfulness"].values.round(3)
array([1.])

Every reader reads the residual stream of this run, and of each edge that is cut, in place of what
its writer writes in this run, what replaces it. So the full circuit is the model's own run, and the
empty one is the other run.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.contrast import Contrast
from mechinterp.core.sites import Site
from mechinterp.models.layer_parts import Layer, append_keys_values
from mechinterp.stats.intervals import ratio_interval
from mechinterp.sweeps.axes import check_choice
from mechinterp.sweeps.options import Progress

Target = Literal["model", "above"]
"""What a search wants of a circuit: the model's own metric, or as much of the metric as it can
get."""

_TARGETS: tuple[Target, ...] = ("model", "above")

_BUDGET = 1 << 26
"""Bytes of what the writers of the circuits of one pass change."""


def evaluate(
    contrast: Contrast, circuits: Sequence[Circuit], *, progress: Progress | None = None
) -> Float[np.ndarray, "circuit pair"]:
    """The metric with each circuit's edges alone, by pair; several circuits are rows of a pass.

    Raises:
        ValueError: if a circuit is of another graph, or the runs are made to denoise: a circuit is
            what is left of the clean run.
    """
    check_runs(contrast, circuits)
    size = max(1, _BUDGET // (contrast.change.numel() * contrast.change.element_size()))
    found = np.zeros((len(circuits), contrast.n_pairs))
    for begin in range(0, len(circuits), size):
        some = slice(begin, begin + size)
        cut = np.stack([contrast.graph.edges & ~circuit.mask for circuit in circuits[some]])
        with torch.no_grad():
            weights = torch.from_numpy(cut).to(contrast.change)
            found[some] = contrast.scored(run_without(contrast, weights))
        if progress is not None:
            progress(min(begin + size, len(circuits)), len(circuits))
    return found


def check_runs(contrast: Contrast, circuits: Sequence[Circuit]) -> None:
    """Nothing, if these circuits can be run alone.

    Raises:
        ValueError: as `evaluate`.
    """
    if contrast.direction != "noise":
        raise ValueError(
            "a circuit is evaluated in the clean run, by replacing all other edges: make the runs "
            'with Contrast.from_pair(..., direction="noise").'
        )
    for circuit in circuits:
        if circuit.graph != contrast.graph:
            raise ValueError(f"a circuit is of {circuit.graph}, the two runs of {contrast.graph}.")


def check_target(target: Target) -> None:
    """Check that a search knows this target.

    Raises:
        ValueError: if not, naming the choices.
    """
    check_choice("target", target, _TARGETS)


def run_without(
    contrast: Contrast, cut: Float[Tensor, "circuit writer reader label"], layer: int = 0
) -> Float[Tensor, "row query d_model"]:
    """The residual stream that the logits read, from the first position that the metric reads on.

    `cut`: how much of each edge is replaced in each circuit, 0 to 1. Differentiable by it. `layer`:
    the first in which anything is cut; 0 is always right.
    """
    return _Cut(contrast, cut, layer).run()


class _Cut:
    """A run of several circuits, layer by layer, and what each writer is to be replaced by yet."""

    def __init__(self, contrast: Contrast, cut: Tensor, layer: int) -> None:
        self._contrast, self._cut, self._n, self._layer = contrast, cut, len(cut), layer
        unchanged = contrast.change[: contrast.graph.n_writers_before_layer(layer)]
        self._owed: Tensor = unchanged.expand(self._n, *unchanged.shape)

    def run(self) -> Float[Tensor, "row query d_model"]:
        """All layers."""
        contrast, n = self._contrast, self._n
        resid = contrast.resid[self._layer].repeat(n, 1, 1)
        for number in range(self._layer, contrast.graph.n_layers):
            layer, skip = contrast.layer(number), contrast.skipped(number)
            z = self._attended(layer, number, resid, skip)
            if skip:
                resid, self._owed = resid[:, skip:], self._owed[:, :, :, skip:]
            before, resid = resid, resid + layer.attn_out(z)
            instead = contrast.instead[Site("z", number)][:, skip:].repeat(n, 1, 1, 1)
            heads = layer.by_head(instead - z)
            heads = heads.reshape(len(heads), n, contrast.n_pairs, *heads.shape[2:]).transpose(0, 1)
            if not layer.has_mlp:
                self._owe(heads)
                continue
            if not contrast.graph.is_parallel:
                self._owe(heads)
                before = resid
            written = layer.mlp(self._read(before, number, "mlp")[:, :, 0])
            if contrast.graph.is_parallel:
                self._owe(heads)
            resid = resid + written
            instead = contrast.instead[Site("mlp_out", number)][:, skip:].repeat(n, 1, 1)
            self._owe((instead - written).reshape(n, 1, contrast.n_pairs, *written.shape[1:]))
        return self._read(resid, None, "logits")[:, :, 0]

    def _attended(self, layer: Layer, number: int, resid: Tensor, skip: int) -> Tensor:
        """What each head takes from the values, each input read by itself."""
        first, before = self._contrast.first, self._contrast.keys_values(number, self._n)
        q = layer.project("q", self._read(resid, number, "q")[:, skip:], first + skip)
        k, v = (layer.project(kind, self._read(resid, number, kind), first) for kind in "kv")
        return layer.attend(q, *append_keys_values(before, k, v))

    def _read(
        self, resid: Float[Tensor, "row pos d_model"], layer: int | None, kind: str
    ) -> Float[Tensor, "row pos reader d_model"]:
        """What the readers of a kind read: the stream, and of what is cut the replacement."""
        graph, place = self._contrast.graph, self._contrast.place
        cut = self._cut[:, : self._owed.shape[1], graph.readers_of(layer, kind)]
        read = resid.reshape(self._n, self._contrast.n_pairs, 1, *resid.shape[1:])
        for label in range(graph.n_positions):
            owed = self._owed
            if graph.n_positions > 1:
                here = place[:, place.shape[1] - owed.shape[3] :] == label
                owed = owed * here[..., None]
            read = read + torch.einsum("nwr,nwbpd->nbrpd", cut[..., label], owed)
        return read.flatten(0, 1).transpose(1, 2)

    def _owe(self, change: Float[Tensor, "circuit writer pair pos d_model"]) -> None:
        """Note what the next writers are to be replaced by, minus what they wrote here."""
        self._owed = torch.cat([self._owed, change], 1)


def faithfulness(
    contrast: Contrast,
    circuits: Mapping[str, Circuit],
    *,
    level: float = 0.95,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How much of what the model does each circuit does alone: dims (circuit), (circuit, pair).

    `faithfulness`: (m(circuit) - m(empty)) / (m(full) - m(empty)), each m the mean over pairs;
    `low` and `high` its interval over pairs (of two at least), `score` each pair's metric.
    `edges`, `requested`: how many edges it has, and how many were asked for.

    Raises:
        ValueError: if the full and the empty circuit score the same on average; or as `evaluate`.

    Source: Hanna et al. 2024, "Have Faith in Faithfulness", section 2, arXiv 2403.17806.
    """
    everything = [*circuits.values(), Circuit.empty(contrast.graph)]
    scores = evaluate(contrast, everything, progress=progress)
    return relative(contrast, circuits, scores[:-1], scores[-1], level)


def relative(
    contrast: Contrast,
    circuits: Mapping[str, Circuit],
    scores: Float[np.ndarray, "circuit pair"],
    empty: Float[np.ndarray, " pair"],
    level: float = 0.95,
) -> xr.Dataset:
    """Scores of circuits between those of the empty one and the model's own, as `faithfulness`.

    Raises:
        ValueError: if these two are the same on average.
    """
    full = contrast.base_scores
    whole = full.mean() - empty.mean()
    if abs(whole) <= 1e-5 * max(1.0, abs(full.mean()), abs(empty.mean())):
        raise ValueError(
            f"{contrast.metric.name} is {full.mean():.4g} of the whole model and of the empty "
            f"circuit alike, so that there is no behaviour to be a share of. Choose prompts whose "
            f"corruption changes the metric."
        )
    labels = {"circuit": list(circuits)}
    score = xr.DataArray(scores, labels, ("circuit", "pair"), attrs={"unit": contrast.metric.unit})
    made = xr.Dataset({"score": score})
    made["faithfulness"] = ("circuit", (scores.mean(1) - empty.mean()) / whole)
    if contrast.n_pairs > 1:
        under = xr.DataArray(full - empty, dims=("pair",))
        bounds = ratio_interval(score.drop_attrs() - empty, under, dim="pair", level=level)
        made = made.assign(low=bounds["low"], high=bounds["high"])
    made["edges"] = ("circuit", [circuit.n_edges for circuit in circuits.values()])
    asked = [c.n_edges if c.requested is None else c.requested for c in circuits.values()]
    made["requested"] = ("circuit", asked)
    return made.assign_attrs(
        full=float(full.mean()), empty=float(empty.mean()), level=level, **contrast.as_read()
    )
