"""The two runs behind every edge score: the run where edges are cut, and what replaces them.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> contrast.first, contrast.change.shape  # both runs agree before token 4
(4, torch.Size([7, 1, 1, 57]))

"noise" runs the clean prompts and inserts what the corrupt run wrote; "denoise" does the reverse.
In place of the other run, `ablate` may be "zero", `mean_of(reference, by_position=True)`, or any
replacement of `mechinterp.engine.replacements`.

Axes in this package: `token` is a token of the prompts, counted from `Contrast.first`; `pos` is a
position of the graph, as in `EdgeScores`. A row of a batch is one arm and one pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.circuits.graph import Graph
from mechinterp.core.activations import Activations
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.modes import gradients_off, leaves_modes
from mechinterp.core.pairs import Pair, require_pair
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import At
from mechinterp.engine.batch import PassOutput
from mechinterp.engine.replacements import Replacement, resolve_replacement
from mechinterp.engine.scoring import arm_scores
from mechinterp.models.layer_parts import KeysValues, Layer, LayerPass, check_parts
from mechinterp.models.model import Model
from mechinterp.sweeps.planner import CPU_POSITIONS

OTHER_RUN = "what the other run wrote"
"""The default of `ablate`: an edge carries what the other run of the pair wrote."""

Resid = Float[Tensor, "row token d_model"]


@dataclass(frozen=True, eq=False, repr=False)
class Contrast:
    """The run in which edges are cut (the base run), and what each writer writes there instead.

    Tensors start at token `first`; nothing changes before it. `resid`: the residual stream before
    each layer, and after the last. `prefix`: each layer's keys and values of the tokens before
    `first`. `replacements`: what each site writes instead (of heads, `z`). `change`: what each
    writer writes instead minus what it wrote, in the residual stream. `graph_pos`: for each token
    the index of its position in the graph.
    """

    model: Model
    graph: Graph
    metric: Metric
    prompts: Prompts
    direction: str
    ablate: str
    first: int
    resid: tuple[Resid, ...]
    prefix: tuple[KeysValues | None, ...]
    replacements: Mapping[Site, Tensor]
    change: Float[Tensor, "writer pair token d_model"]
    graph_pos: Int[Tensor, "pair token"]

    @classmethod
    @checks_arguments
    @leaves_modes
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
        """Run both sides of a pair and record what each writer changes between them.

        `graph`: `Graph.from_model(model)` unless given; for example one with positions.

        Raises:
            HookError: if the model cannot be split into edges, has hooks on it, or the metric of
                the base run is not finite.
            ValueError: if both sides of the pair are equal, the graph belongs to another model, or
                a position is unknown.
        """
        base, other = require_pair(pair).sides(direction)
        graph = graph or Graph.from_model(model)
        _check(model, pair, graph, ablate)
        check_parts(model)
        graph_pos = torch.from_numpy(graph.position_of(base)).to(models.device(model))
        with gradients_off():
            base_run = _PlainRun.record(model, base)
            if ablate == OTHER_RUN:
                written, name = _PlainRun.record(model, other).written, OTHER_RUN
            else:
                how = resolve_replacement(ablate)
                written, name = base_run.replaced_by(model, base, how), how.name
            first = _first_changed_position(model, base, metric, base_run.written, written)
            contrast = cls(
                model,
                graph,
                metric,
                base,
                direction,
                name,
                first,
                tuple(resid[:, first:] for resid in base_run.resid),
                tuple(
                    (k[:, :first], v[:, :first]) if first else None for k, v in base_run.keys_values
                ),
                {site: value[:, first:] for site, value in written.items()},
                torch.cat(
                    [_change(model, s, base_run.written[s], written[s], first) for s in written]
                ),
                graph_pos[:, first:],
            )
            if not np.isfinite(contrast.base_scores).all():
                raise HookError(
                    f"{metric.name} of the base run is not finite for prompt "
                    f"{int(np.isfinite(contrast.base_scores).argmin())}: check run(model, prompts)."
                )
        return contrast

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
        """The largest number of arms in one pass; more would not fit a processor's caches."""
        return max(1, CPU_POSITIONS // self.change[0, ..., 0].numel())

    @property
    def is_patched(self) -> bool:
        """True if edges are replaced by what the other run of the pair wrote."""
        return self.ablate == OTHER_RUN

    @property
    def read_positions(self) -> Int[Tensor, "pair k"]:
        """The tokens that the metric reads, counted from `first`."""
        return self.prompts.reading(self.metric.at) - self.first

    @cached_property
    def base_scores(self) -> Float[np.ndarray, " pair"]:
        """The metric of the base run."""
        found: Float[np.ndarray, " pair"] = self.score(self.resid[-1])[0]
        return found

    @cached_property
    def embedding_effect(self) -> Float[np.ndarray, " pair"]:
        """The effect of cutting all edges out of the embedding together, signed like a score."""
        with gradients_off():
            (other,) = self.run_from(0, self.resid[0] + self.change[0])
        found: Float[np.ndarray, " pair"] = self.sign * (self.base_scores - other)
        return found

    @property
    def sign(self) -> int:
        """1 where an edge that supports the behaviour lowers the metric when it is cut, else -1.

        With "noise", cutting such an edge lowers the metric; with "denoise" it raises it. For a
        distance such as KL the signs are reversed.
        """
        return (1 if self.direction == "noise" else -1) * (-1 if self.metric.distance else 1)

    def mask_of_position(self, pos: int) -> Bool[Tensor, "pair token 1"]:
        """Which tokens belong to a position of the graph."""
        return (self.graph_pos == pos)[..., None]

    def keys_values(self, layer: int, n_arms: int) -> KeysValues | None:
        """A layer's keys and values of the tokens before `first`, repeated for each arm."""
        earlier = self.prefix[layer]
        if earlier is None:
            return None
        keys, values = (x.repeat(n_arms, 1, 1, 1) for x in earlier)
        return keys, values

    def n_skipped(self, layer: int) -> int:
        """How many tokens a layer need not output: in the last, those before the first one read."""
        return int(self.read_positions.min()) if layer == self.graph.n_layers - 1 else 0

    def run_layer(self, layer: int, resid: Resid) -> LayerPass:
        """Run a layer on the rows of several arms, given the residual stream before it."""
        earlier = self.keys_values(layer, len(resid) // self.n_pairs)
        return self.layer(layer).run(resid, earlier, self.n_skipped(layer))

    def layer(self, number: int) -> Layer:
        """A layer of the model, split into its parts."""
        return Layer(self.model, number)

    def normalized(self, resid: Resid) -> Resid:
        """The residual stream after the final norm."""
        return models.normalize(self.model, resid)

    def run_from(self, layer: int, resid: Resid) -> Float[np.ndarray, "arm pair"]:
        """The metric of several arms, from the residual stream before a layer."""
        for number in range(layer, self.graph.n_layers):
            resid = self.run_layer(number, resid).resid
        return self.score(resid)

    def score(self, resid: Resid) -> Float[np.ndarray, "arm pair"]:
        """The metric of several arms, from the residual stream after the last layer.

        Tokens before the first one that the metric reads may be missing.
        """
        return arm_scores(self.metric, *self.output(resid))

    def check_finite(self, scores: Float[np.ndarray, "arm pair"], replaced: Sequence[str]) -> None:
        """Check that the metric of every arm is finite; `replaced` names what each arm replaces.

        Raises:
            HookError: if an arm's metric is not finite.
        """
        wrong = ~np.isfinite(scores).all(1)
        if wrong.any():
            raise HookError(
                f"{self.metric.name} is not finite with {replaced[int(wrong.argmax())]} replaced. "
                f"Check the prompts, and what replaces it ({self.ablate})."
            )

    def output(self, resid: Resid) -> tuple[PassOutput, tuple[Pos, ...], int]:
        """The model's output where the metric reads; those positions; the number of arms."""
        n_arms = len(resid) // self.n_pairs
        missing = self.resid[-1].shape[1] - resid.shape[1]
        rows = torch.arange(len(resid), device=resid.device)[:, None]
        read = resid[rows, (self.read_positions - missing).repeat(n_arms, 1)]
        return PassOutput(self.model, self.normalized(read)), self.metric.at, n_arms

    def describe(self) -> dict[str, object]:
        """Attributes for a result: metric, unit, sign, direction, replacement, model, weights."""
        return {
            "metric": self.metric.name,
            "unit": self.metric.unit,
            **sign_of_support("without it the behaviour is lost", part="part"),
            "direction": self.direction,
            "replaced by": self.ablate,
            "model": models.name(self.model),
            "weights": models.processing(self.model),
        }


@dataclass(frozen=True, eq=False)
class _PlainRun:
    """One run without edits: the residual stream, keys and values, and what each site wrote."""

    resid: list[Resid]
    keys_values: list[KeysValues]
    written: dict[Site, Tensor]

    @classmethod
    def record(cls, model: Model, prompts: Prompts) -> "_PlainRun":
        resid, _ = models.embed(model, prompts.tokens)
        plain = cls([resid], [], {Site("embed"): models.embed_tokens(model, prompts.tokens)})
        for number in range(model.cfg.n_layers):
            passed = Layer(model, number).run(plain.resid[-1])
            plain.resid.append(passed.resid)
            plain.keys_values.append((passed.k, passed.v))
            plain.written[Site("z", number)] = passed.z
            if passed.mlp_out is not None:
                plain.written[Site("mlp_out", number)] = passed.mlp_out
        return plain

    def replaced_by(self, model: Model, prompts: Prompts, how: Replacement) -> dict[Site, Tensor]:
        """What a replacement puts in place of what each site wrote."""
        edits = how.prepare(model, prompts, list(self.written))
        acts = Activations(self.written, prompts)
        return {s: edits(s)(old.clone(), At(s, prompts, acts)) for s, old in self.written.items()}


def _change(
    model: Model, site: Site, wrote: Tensor, new: Tensor, first: int
) -> Float[Tensor, "writer pair token d_model"]:
    """How the output of each writer at a site changes, from token `first` on."""
    change = (new - wrote)[:, first:]
    if site.act == "z" and site.layer is not None:
        return Layer(model, site.layer).by_head(change)
    return change[None]


def _first_changed_position(
    model: Model,
    base: Prompts,
    metric: Metric,
    wrote: Mapping[Site, Tensor],
    new: Mapping[Site, Tensor],
) -> int:
    """The first token where a replacement differs from the original, or that the metric reads."""
    if model.cfg.attention_dir != "causal":
        return 0
    reading = int(base.reading(metric.at).min())
    changed = [(new[s] != wrote[s]).flatten(2).any(2).any(0).nonzero() for s in new]
    return min([reading, *(int(at[0]) for at in changed if len(at))])


def _check(model: Model, pair: Pair, graph: Graph, ablate: Replacement | str) -> None:
    grouped = graph.n_key_readers != model.cfg.n_heads
    known = Graph.from_model(model, by_kv_head=grouped, positions=graph.positions[:-1])
    if known != graph:
        raise ValueError(f"{graph} does not belong to this model, whose graph is {known}.")
    if ablate == OTHER_RUN and not bool((pair.differ & pair.clean.mask).any()):
        raise ValueError("clean and corrupt prompts are equal, so no edge carries a difference.")
    lengths = pair.clean.lengths
    if model.cfg.attention_dir != "causal" and bool((lengths != lengths[0]).any()):
        raise ValueError(
            "the prompts differ in length and this model's attention is not causal, so it would "
            "attend to padding. Give pairs of one length."
        )
