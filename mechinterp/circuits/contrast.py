"""The two runs of which edges are made: one in which they are cut, one that they are replaced from.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> contrast.first, contrast.change.shape  # what was before position 4 is the same in both
(4, torch.Size([7, 1, 1, 57]))

"noise" runs the clean prompts and puts in what the corrupt run wrote, "denoise" the other way.
Instead of the other run, `ablate` may say "zero", or `mean_of(reference, by_position=True)`, or any
replacement of `mechinterp.engine.replacements`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.circuits.graph import Graph
from mechinterp.core.activations import Activations
from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair, require_pair
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site
from mechinterp.core.specs import At
from mechinterp.engine.batch import PassOutput
from mechinterp.engine.replacements import Replacement, resolve_replacement
from mechinterp.engine.scoring import arm_scores
from mechinterp.models.layer_parts import KeysValues, Layer, LayerPass, check_parts
from mechinterp.models.model import Model
from mechinterp.sweeps.planner import CPU_POSITIONS

OTHER_RUN = "what the other run wrote"
"""What an edge is replaced by unless something else is said."""

Resid = Float[Tensor, "row pos d_model"]


@dataclass(frozen=True, eq=False, repr=False)
class Contrast:
    """What every writer says in the run in which edges are cut, and how that changes without.

    Everything stands from position `first` on, before which nothing changes. `resid`: the residual
    stream before each layer, and after the last. `before`: each layer's keys and values of earlier
    positions. `instead`: what is written instead, by site (a head's `z`); `change`: what each
    writer writes instead, minus what it wrote, in the residual stream. `place`: the label of each
    position, by its place in the graph.
    """

    model: Model
    graph: Graph
    metric: Metric
    prompts: Prompts
    direction: str
    ablate: str
    first: int
    resid: tuple[Resid, ...]
    before: tuple[KeysValues | None, ...]
    instead: Mapping[Site, Tensor]
    change: Float[Tensor, "writer pair pos d_model"]
    place: Int[Tensor, "pair pos"]

    @classmethod
    def from_pair(
        cls,
        model: Model,
        pair: Pair,
        metric: Metric,
        graph: Graph | None = None,
        *,
        direction: str = "noise",
        ablate: Replacement | str = OTHER_RUN,
    ) -> "Contrast":
        """Both runs of a pair, and what each writer says in the one and not in the other.

        `graph`: `Graph.from_model(model)` unless another is given, such as one with positions.

        Raises:
            HookError: if the model cannot be taken apart, or has hooks on it.
            ValueError: if the pair is the same on both sides, the graph is of another model, or a
                position is unknown.
        """
        base, other = require_pair(pair).sides(direction)
        graph = graph or Graph.from_model(model)
        _check(model, pair, graph, ablate)
        check_parts(model)
        place = torch.from_numpy(graph.position_of(base)).to(models.device(model))
        with torch.no_grad():
            walk = _Walk.of(model, base)
            if ablate == OTHER_RUN:
                instead, name = _Walk.of(model, other).written, OTHER_RUN
            else:
                how = resolve_replacement(ablate)
                instead, name = walk.replaced(model, base, how), how.name
            first = _first_changed(model, base, metric, walk.written, instead)
            made = cls(
                model,
                graph,
                metric,
                base,
                direction,
                name,
                first,
                tuple(resid[:, first:] for resid in walk.resid),
                tuple((k[:, :first], v[:, :first]) if first else None for k, v in walk.keys_values),
                {site: value[:, first:] for site, value in instead.items()},
                torch.cat([_change(model, s, walk.written[s], instead[s], first) for s in instead]),
                place[:, first:],
            )
            if not np.isfinite(made.base_scores).all():
                raise HookError(
                    f"{metric.name} of the unchanged run is not finite for prompt "
                    f"{int(np.isfinite(made.base_scores).argmin())}: look at run(model, prompts)."
                )
        return made

    def __repr__(self) -> str:
        return (
            f"Contrast({self.n_pairs} pairs of {self.prompts.width} tokens, {self.direction}, "
            f"{self.ablate}, {self.metric.name}, {self.graph})"
        )

    @property
    def n_pairs(self) -> int:
        """Prompts of each run."""
        return len(self.prompts)

    @property
    def most_arms(self) -> int:
        """As many arms as a pass has at most: more no longer fit a processor's caches."""
        return max(1, CPU_POSITIONS // self.change[0, ..., 0].numel())

    @property
    def is_patched(self) -> bool:
        """True if edges are replaced by what the other run of the pair wrote."""
        return self.ablate == OTHER_RUN

    @property
    def reading(self) -> Int[Tensor, "pair k"]:
        """Where the metric reads, counted from `first`."""
        return self.prompts.reading(self.metric.at) - self.first

    @cached_property
    def base_scores(self) -> Float[np.ndarray, " pair"]:
        """The metric of the run itself."""
        found: Float[np.ndarray, " pair"] = self.scored(self.resid[-1])[0]
        return found

    @cached_property
    def embedding_effect(self) -> Float[np.ndarray, " pair"]:
        """What the edges out of the embedding carry together, with the sign of a score."""
        with torch.no_grad():
            (other,) = self.onward(0, self.resid[0] + self.change[0])
        found: Float[np.ndarray, " pair"] = self.sign * (self.base_scores - other)
        return found

    @property
    def sign(self) -> int:
        """1 where an edge that supports the behaviour lowers the metric when it is cut, else -1.

        Cut to noise, it lowers the metric; cut to denoise, it raises it; a distance goes the other
        way.
        """
        return (1 if self.direction == "noise" else -1) * (-1 if self.metric.distance else 1)

    def changed_at(self, pos: int) -> Bool[Tensor, "pair pos 1"]:
        """Where a label of the graph stands."""
        return (self.place == pos)[..., None]

    def keys_values(self, layer: int, n_arms: int) -> KeysValues | None:
        """Those of the positions before `first`, once for each arm."""
        earlier = self.before[layer]
        if earlier is None:
            return None
        keys, values = (x.repeat(n_arms, 1, 1, 1) for x in earlier)
        return keys, values

    def skipped(self, layer: int) -> int:
        """In the last layer nothing before the first position that is read is asked for."""
        return int(self.reading.min()) if layer == self.graph.n_layers - 1 else 0

    def run_layer(self, layer: int, resid: Resid) -> LayerPass:
        """A layer of several arms, of what stands before it."""
        earlier = self.keys_values(layer, len(resid) // self.n_pairs)
        return self.layer(layer).run(resid, earlier, self.skipped(layer))

    def layer(self, number: int) -> Layer:
        """A layer in parts."""
        return Layer(self.model, number)

    def normalized(self, resid: Resid) -> Resid:
        """The residual stream after the final norm."""
        return models.normalize(self.model, resid)

    def onward(self, layer: int, resid: Resid) -> Float[np.ndarray, "arm pair"]:
        """The metric of several arms, of the residual stream before a layer."""
        for number in range(layer, self.graph.n_layers):
            resid = self.run_layer(number, resid).resid
        return self.scored(resid)

    def scored(self, resid: Resid) -> Float[np.ndarray, "arm pair"]:
        """The metric of several arms, of the residual stream after the last layer.

        It may lack positions before the first that is read.
        """
        return arm_scores(self.metric, *self.output(resid))

    def check_finite(self, scores: Float[np.ndarray, "arm pair"], replaced: Sequence[str]) -> None:
        """Nothing, if the metric of every arm is finite; `replaced`: what each replaces.

        Raises:
            HookError: if one is not.
        """
        wrong = ~np.isfinite(scores).all(1)
        if wrong.any():
            raise HookError(
                f"{self.metric.name} is not finite with {replaced[int(wrong.argmax())]} replaced. "
                f"Look at the prompts, and at what it is replaced by ({self.ablate})."
            )

    def output(self, resid: Resid) -> tuple[PassOutput, tuple[Any, ...], int]:
        """The output at what the metric reads; where that is; how many arms there are."""
        n_arms = len(resid) // self.n_pairs
        missing = self.resid[-1].shape[1] - resid.shape[1]
        rows = torch.arange(len(resid), device=resid.device)[:, None]
        read = resid[rows, (self.reading - missing).repeat(n_arms, 1)]
        return PassOutput(self.model, self.normalized(read)), self.metric.at, n_arms

    def as_read(self) -> dict[str, object]:
        """How the scores of this contrast are to be read: attributes of a result."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "direction": self.direction,
            "replaced by": self.ablate,
            "model": models.name(self.model),
            "weights": models.processing(self.model),
        }


@dataclass(frozen=True, eq=False)
class _Walk:
    """One unchanged run: the residual stream, keys and values, and what was written, by site."""

    resid: list[Resid]
    keys_values: list[KeysValues]
    written: dict[Site, Tensor]

    @classmethod
    def of(cls, model: Model, prompts: Prompts) -> "_Walk":
        resid, _ = models.embed(model, prompts.tokens)
        made = cls([resid], [], {Site("embed"): models.embed_tokens(model, prompts.tokens)})
        for number in range(model.cfg.n_layers):
            passed = Layer(model, number).run(made.resid[-1])
            made.resid.append(passed.resid)
            made.keys_values.append((passed.k, passed.v))
            made.written[Site("z", number)] = passed.z
            if passed.mlp_out is not None:
                made.written[Site("mlp_out", number)] = passed.mlp_out
        return made

    def replaced(self, model: Model, prompts: Prompts, how: Replacement) -> dict[Site, Tensor]:
        """What a replacement makes of what was written."""
        edits = how.prepare(model, prompts, list(self.written))
        acts = Activations(self.written, prompts)
        return {s: edits(s)(old.clone(), At(s, prompts, acts)) for s, old in self.written.items()}


def _change(
    model: Model, site: Site, wrote: Tensor, instead: Tensor, first: int
) -> Float[Tensor, "writer pair pos d_model"]:
    """What the writers of a site change, from a position on."""
    change = (instead - wrote)[:, first:]
    if site.act == "z" and site.layer is not None:
        return Layer(model, site.layer).by_head(change)
    return change[None]


def _first_changed(
    model: Model,
    base: Prompts,
    metric: Metric,
    wrote: Mapping[Site, Tensor],
    instead: Mapping[Site, Tensor],
) -> int:
    """The first position where anything is replaced by something else, or that is read."""
    if model.cfg.attention_dir != "causal":
        return 0
    reading = int(base.reading(metric.at).min())
    changed = [(instead[s] != wrote[s]).flatten(2).any(2).any(0).nonzero() for s in instead]
    return min([reading, *(int(at[0]) for at in changed if len(at))])


def _check(model: Model, pair: Pair, graph: Graph, ablate: Replacement | str) -> None:
    grouped = graph.n_key_readers != model.cfg.n_heads
    known = Graph.from_model(model, by_kv_head=grouped, positions=graph.positions[:-1])
    if known != graph:
        raise ValueError(f"{graph} is not of this model, whose graph is {known}.")
    if ablate == OTHER_RUN and not bool((pair.differ & pair.clean.mask).any()):
        raise ValueError("clean and corrupt prompts are the same: no edge carries a difference.")
    lengths = pair.clean.lengths
    if model.cfg.attention_dir != "causal" and bool((lengths != lengths[0]).any()):
        raise ValueError(
            "prompts of different lengths, in a model whose attention is not causal: what pads "
            "the shorter ones would be attended to. Give pairs of one length."
        )
