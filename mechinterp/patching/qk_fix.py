"""The QK fix: attention patterns of patched queries and keys, where gradients fail.

The softmax of a saturated pattern is flat, so the gradient misses a query that would redirect it.
Here the model itself computes the pattern with the patched queries or keys, and only what comes
after the pattern is estimated to first order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.activations import Activations
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import Specs, put, read
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.gradients import ValuesAndGradients
from mechinterp.engine.passes import forward
from mechinterp.models.hook_points import axis_size
from mechinterp.models.model import Model

QUERIES = ("q", "rot_q", "q_input")
KEYS = ("k", "rot_k", "k_input")

Pattern = Float[Tensor, "row head pos src"]


@dataclass(eq=False)
class QKFix:
    """Effects of queries and keys from a source: the change of the pattern times its gradient.

    One pass patches them in all layers: each new pattern is read and then replaced by the base
    run's, so that no layer sees the patches of another. A query's row of the pattern depends on no
    other query, and a key's column of the scores on no other key.
    """

    model: Model
    prompts: Prompts
    source: Activations
    bands: Sequence[Site]
    _rows: slice | None = field(default=None, init=False)
    _found: dict[tuple[str, Pos | None], Activations] = field(default_factory=dict, init=False)

    @property
    def needs(self) -> list[Site]:
        """The sites whose values and gradients `effects` needs."""
        layers = dict.fromkeys(band.layer for band in self.bands if self.applies(band))
        return [Site(act, layer) for layer in layers for act in ("attn_scores", "pattern")]

    @property
    def passes(self) -> int:
        """The number of forward passes that it takes."""
        return len({self._group(band) for band in self.bands if self.applies(band)})

    def applies(self, band: Site) -> bool:
        """Whether the band is of queries or keys."""
        return band.act in QUERIES + KEYS

    def effects(self, band: Site, part: ValuesAndGradients) -> Float[np.ndarray, "row column"]:
        """The effect of each head of a band, or of its only head."""
        scores, pattern = Site("attn_scores", band.layer), Site("pattern", band.layer)
        new, slope = self._patched(band, part), part.gradients[pattern]
        at = None if band.pos is None else part.prompts.positions(band.pos)
        if at is None or band.act in QUERIES:
            change = ((new[pattern] - part.values[pattern]).double() * slope).sum(-1)
        else:
            _check_sums_to_one(part.values[pattern], band)
            change = key_effects(part.values[scores], new[scores], slope)
        heads = change.sum(-1) if at is None else change[torch.arange(len(at)), :, at]
        n_heads = axis_size(self.model, band.act, "head")
        heads = heads.reshape(len(heads), n_heads, -1).sum(-1)  # the queries that share a key
        found: np.ndarray = heads.cpu().numpy()
        return found if band.head is None else found[:, [band.head]]

    def _group(self, band: Site) -> tuple[str, Pos | None]:
        """Bands of equal groups share a pass.

        A named position that differs between the runs needs a pass of its own: there another
        query or key is replaced.
        """
        if band.pos is None:
            return band.act, None
        here, there = (p.positions(band.pos) for p in (self.prompts, self.source.prompts))
        return band.act, None if torch.equal(here, there) else band.pos

    def _patched(self, band: Site, part: ValuesAndGradients) -> Activations:
        """Scores and patterns of all layers with the queries or keys of the source."""
        if part.rows != self._rows:
            self._rows = part.rows
            self._found.clear()
        group = self._group(band)
        if group not in self._found:
            specs: Specs = ()
            members = [b for b in self.bands if self.applies(b) and self._group(b) == group]
            for member in members:
                specs += put(member, self.source[member][part.rows])
            for layer in dict.fromkeys(member.layer for member in members):
                scores, pattern = Site("attn_scores", layer), Site("pattern", layer)
                specs += read(scores, pattern) + put(pattern, part.values[pattern])
            arm = prepare_arm(self.model, part.prompts, specs)
            forward(self.model, [arm], part.prompts.lengths[:, None] - 1)
            self._found[group] = arm.activations
        return self._found[group]


def key_effects(scores: Pattern, patched: Pattern, slope: Pattern) -> Float[Tensor, "row head src"]:
    """The effect of each key's patched scores alone, summed over queries.

    If one score of a softmax changes, the other keys keep their relative shares. So the effect is
    the change of the key's weight times (its gradient - the mean gradient of the others, weighted
    by their shares).
    """
    old, new, slope = scores.double(), patched.double(), slope.double()
    weight = old.softmax(-1)
    others = old.logsumexp(-1, keepdim=True) + torch.log1p(-weight)
    mean = ((slope * weight).sum(-1, keepdim=True) - slope * weight) / (1 - weight)
    # Beside the largest key the others' weight, 1 - weight, may round to 0 even in double: for it
    # their log-sum and mean are computed without it.
    top = old.argmax(-1, keepdim=True)
    rest = old.scatter(-1, top, -torch.inf)
    others = others.scatter(-1, top, rest.logsumexp(-1, keepdim=True))
    of_rest = (slope * rest.softmax(-1)).nan_to_num().sum(-1, keepdim=True)  # NaN: no other key
    mean = mean.scatter(-1, top, of_rest)
    change = (new - others).sigmoid() - (old - others).sigmoid()
    return (change * (slope - mean)).sum(-2)


def _check_sums_to_one(pattern: Pattern, band: Site) -> None:
    if not bool((pattern.sum(-1) - 1).abs().max() < 1e-2):
        raise HookError(
            f"{band}: attention of this model does not sum to 1 (sinks), so the fix does not hold "
            f"for a single key. Leave out its pos, or use attribution_patching."
        )
