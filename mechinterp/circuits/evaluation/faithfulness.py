"""What the model does with the edges of a circuit alone, while all others are replaced.

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

Every reader reads the residual stream of this run; for each edge into it that is cut, it reads the
replacement in place of what the writer wrote. So the full circuit is the model's own run, and the
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
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import Site
from mechinterp.models.layer_parts import Layer, append_keys_values
from mechinterp.stats.intervals import ratio_interval
from mechinterp.sweeps.axes import check_choice
from mechinterp.sweeps.options import Progress

Target = Literal["model", "above"]
"""What a search aims at: the model's own metric ("model"), or at least that ("above")."""

_TARGETS: tuple[Target, ...] = ("model", "above")

_BUDGET = 1 << 26
"""Bytes for the changes of all writers, over the circuits of one pass."""


@checks_arguments
def evaluate(
    contrast: Contrast, circuits: Sequence[Circuit], *, progress: Progress | None = None
) -> Float[np.ndarray, "circuit pair"]:
    """The metric with each circuit's edges alone, by pair; several circuits share a pass.

    Raises:
        ValueError: if a circuit belongs to another graph, or the runs denoise: circuits are
            evaluated in the clean run.
    """
    check_circuits(contrast, circuits)
    size = max(1, _BUDGET // (contrast.change.numel() * contrast.change.element_size()))
    found = np.zeros((len(circuits), contrast.n_pairs))
    for begin in range(0, len(circuits), size):
        some = slice(begin, begin + size)
        cut = np.stack([contrast.graph.edges & ~circuit.mask for circuit in circuits[some]])
        with gradients_off():
            weights = torch.from_numpy(cut).to(contrast.change)
            found[some] = contrast.score(run_without(contrast, weights))
        if progress is not None:
            progress(min(begin + size, len(circuits)), len(circuits))
    return found


def check_circuits(contrast: Contrast, circuits: Sequence[Circuit]) -> None:
    """Check that these circuits can be evaluated with this contrast.

    Raises:
        ValueError: as `evaluate`.
    """
    if contrast.direction != "noise":
        raise ValueError(
            "circuits are evaluated in the clean run, by replacing all other edges: make the runs "
            'with Contrast.from_pair(..., direction="noise").'
        )
    for circuit in circuits:
        if circuit.graph != contrast.graph:
            raise ValueError(
                f"a circuit belongs to {circuit.graph}, the two runs to {contrast.graph}."
            )


def check_target(target: Target) -> None:
    """Check that a search knows this target.

    Raises:
        ValueError: if not, naming the choices.
    """
    check_choice("target", target, _TARGETS)


def run_without(
    contrast: Contrast, cut: Float[Tensor, "circuit writer reader pos"], layer: int = 0
) -> Float[Tensor, "row query d_model"]:
    """The residual stream that the logits read, from the first token that the metric reads on.

    `cut`: the share of each edge that is replaced in each circuit, 0 to 1; the result is
    differentiable with respect to it. `layer`: the first in which anything is cut; 0 is always
    right.
    """
    return _CutRun(contrast, cut, layer).run()


class _CutRun:
    """A run of several circuits at once, layer by layer; a row is one circuit and one pair.

    `_changes`: for each writer so far, its replacement minus what it wrote in this run; one tensor
    [circuit, writer, place, d_model] for each position of the graph, of the tokens there of all
    pairs. `_tokens`: which these are, of all tokens of all pairs in a row. A reader gets the stream
    of this run plus the changes of the edges into it that are cut.
    """

    def __init__(
        self, contrast: Contrast, cut: Float[Tensor, "circuit writer reader pos"], layer: int
    ) -> None:
        self._contrast, self._cut, self._n, self._layer = contrast, cut, len(cut), layer
        # Nothing is cut before `layer`, so its writers write what they wrote in the base run.
        before = contrast.change[: contrast.graph.n_writers_before_layer(layer)]
        tokens, positions = contrast.graph_pos.flatten(), range(contrast.graph.n_positions)
        self._tokens = [(tokens == pos).nonzero().flatten() for pos in positions]
        self._changes: list[Tensor] = [
            change.expand(self._n, *change.shape[1:]) for change in self._by_position(before[None])
        ]

    def run(self) -> Float[Tensor, "row query d_model"]:
        """What the logits read after all layers."""
        contrast, n = self._contrast, self._n
        resid = contrast.resid[self._layer].repeat(n, 1, 1)
        for number in range(self._layer, contrast.graph.n_layers):
            layer, skip = contrast.layer(number), contrast.n_skipped(number)
            z = self._attend(layer, number, resid, skip)
            if skip:
                self._leave_out(skip, resid.shape[1])
                resid = resid[:, skip:]
            mlp_input, resid = resid, resid + layer.attn_out(z)
            new_z = contrast.replacements[Site("z", number)][:, skip:].repeat(n, 1, 1, 1)
            heads = layer.by_head(new_z - z)  # [head, circuit * pair, token, d_model]
            heads = heads.reshape(len(heads), n, contrast.n_pairs, *heads.shape[2:]).transpose(0, 1)
            if not layer.has_mlp:
                self._record_change(heads)
                continue
            # A parallel MLP reads beside the heads of its layer, not what they write.
            if not contrast.graph.is_parallel:
                self._record_change(heads)
                mlp_input = resid
            written = layer.mlp(self._read(mlp_input, number, "mlp")[:, :, 0])
            if contrast.graph.is_parallel:
                self._record_change(heads)
            resid = resid + written
            new = contrast.replacements[Site("mlp_out", number)][:, skip:].repeat(n, 1, 1)
            change = (new - written).reshape(n, 1, contrast.n_pairs, *written.shape[1:])
            self._record_change(change)
        return self._read(resid, None, "logits")[:, :, 0]

    def _attend(
        self, layer: Layer, number: int, resid: Float[Tensor, "row token d_model"], skip: int
    ) -> Float[Tensor, "row query head d_head"]:
        """Each head's `z`, with its query, key and value inputs read separately."""
        first, prefix = self._contrast.first, self._contrast.keys_values(number, self._n)
        q = layer.project("q", self._read(resid, number, "q")[:, skip:], first + skip)
        k, v = (layer.project(kind, self._read(resid, number, kind), first) for kind in "kv")
        return layer.attend(q, *append_keys_values(prefix, k, v))

    def _read(
        self, resid: Float[Tensor, "row token d_model"], layer: int | None, kind: str
    ) -> Float[Tensor, "row token reader d_model"]:
        """What the readers of a kind read: the stream, with the replacement of what is cut."""
        graph, n_writers = self._contrast.graph, self._changes[0].shape[1]
        cut = self._cut[:, :n_writers, graph.readers_of(layer, kind)]
        # [circuit, writer, reader] x [circuit, writer, place, d_model]
        parts = [
            torch.einsum("nwr,nwtd->nrtd", cut[..., pos], changes)
            for pos, changes in enumerate(self._changes)
        ]
        if len(parts) > 1:
            parts = [torch.cat(parts, 2)[:, :, torch.cat(self._tokens).argsort()]]
        n_readers, n_pairs, shape = cut.shape[2], self._contrast.n_pairs, resid.shape[1:]
        change = parts[0].reshape(self._n, n_readers, n_pairs, *shape).transpose(1, 2)
        read = resid.reshape(self._n, n_pairs, 1, *shape) + change
        return read.flatten(0, 1).transpose(1, 2)

    def _record_change(self, change: Float[Tensor, "circuit writer pair token d_model"]) -> None:
        """Append the changes of the next writers."""
        new = self._by_position(change)
        self._changes = [torch.cat(both, 1) for both in zip(self._changes, new, strict=True)]

    def _by_position(
        self, change: Float[Tensor, "circuit writer pair token d_model"]
    ) -> list[Float[Tensor, "circuit writer place d_model"]]:
        """The tokens at each position of the graph."""
        whole = change.flatten(2, 3)
        return [whole[:, :, at] for at in self._tokens] if len(self._tokens) > 1 else [whole]

    def _leave_out(self, skip: int, n_tokens: int) -> None:
        """Drop the changes of each pair's first tokens, which nothing reads any more."""
        for pos, at in enumerate(self._tokens):
            kept = at % n_tokens >= skip
            pair, token = at[kept] // n_tokens, at[kept] % n_tokens - skip
            self._tokens[pos] = pair * (n_tokens - skip) + token
            self._changes[pos] = self._changes[pos][:, :, kept]


@checks_arguments
def faithfulness(
    contrast: Contrast,
    circuits: Mapping[str, Circuit],
    *,
    level: float = 0.95,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The share of the behaviour that each circuit keeps alone: dims (circuit), (circuit, pair).

    `faithfulness`: (m(circuit) - m(empty)) / (m(full) - m(empty)), each m the mean over pairs;
    `low` and `high` its interval over pairs (if there are two or more), `score` the metric of each
    pair. `edges`, `requested`: how many edges the circuit has, and how many were asked for.

    Raises:
        ValueError: if the full and the empty circuit score the same on average; or as `evaluate`.

    Source: Hanna et al. 2024, "Have Faith in Faithfulness", section 2, arXiv 2403.17806.
    """
    everything = [*circuits.values(), Circuit.empty(contrast.graph)]
    scores = evaluate(contrast, everything, progress=progress)
    return scale_to_model(contrast, circuits, scores[:-1], scores[-1], level)


def scale_to_model(
    contrast: Contrast,
    circuits: Mapping[str, Circuit],
    scores: Float[np.ndarray, "circuit pair"],
    empty: Float[np.ndarray, " pair"],
    level: float = 0.95,
) -> xr.Dataset:
    """Scale scores so that the empty circuit is 0 and the model 1; a table as `faithfulness`.

    Raises:
        ValueError: if these two score the same on average.
    """
    full = contrast.base_scores
    whole = full.mean() - empty.mean()
    if abs(whole) <= 1e-5 * max(1.0, abs(full.mean()), abs(empty.mean())):
        raise ValueError(
            f"{contrast.metric.name} is {full.mean():.4g} for the whole model and for the empty "
            f"circuit, so there is no behaviour to be a share of. Choose prompts whose corruption "
            f"changes the metric."
        )
    labels = {"circuit": list(circuits)}
    score = xr.DataArray(scores, labels, ("circuit", "pair"), attrs={"unit": contrast.metric.unit})
    table = xr.Dataset({"score": score})
    table["faithfulness"] = ("circuit", (scores.mean(1) - empty.mean()) / whole)
    if contrast.n_pairs > 1:
        under = xr.DataArray(full - empty, dims=("pair",))
        bounds = ratio_interval(score.drop_attrs() - empty, under, dim="pair", level=level)
        table = table.assign(low=bounds["low"], high=bounds["high"])
    table["edges"] = ("circuit", [circuit.n_edges for circuit in circuits.values()])
    asked = [c.n_edges if c.requested is None else c.requested for c in circuits.values()]
    table["requested"] = ("circuit", asked)
    return table.assign_attrs(
        full=float(full.mean()), empty=float(empty.mean()), level=level, **contrast.describe()
    )
