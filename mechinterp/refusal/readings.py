"""One run over prompts: their scores, and the residual stream at every layer at two places.

"end" is the last token of the prompt, after the content; "content" the mean over the user's text.

>>> from mechinterp import load_model, logit_diff, token_id
>>> from mechinterp.refusal.readings import read_prompts
>>> model = load_model("toy:trigger")
>>> refuse = logit_diff(token_id(model, "REFUSE"), token_id(model, "COMPLY"))
>>> found = read_prompts(model, refuse, ["bring the sesame", "bring the letter"])
>>> found.scores.round().tolist(), found.acts.dims, found.acts.sizes["layer"]
([8.0, -8.0], ('place', 'layer', 'prompt', 'feature'), 3)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.probing.gathered import residual_sites
from mechinterp.probing.labelled import Prompt

PLACES = ("end", "content")
"""The last token of the prompt, and the mean over the user's text."""

_BATCH_POSITIONS = 768


@dataclass(frozen=True, eq=False)
class Readings:
    """What one run over prompts showed.

    acts: the residual stream, dims (place, layer, prompt, feature); layer 0 is the embedding.
    lengths: how many tokens each prompt has.
    """

    prompts: tuple[Prompt, ...]
    acts: xr.DataArray
    scores: Float[np.ndarray, " prompt"]
    lengths: Int[np.ndarray, " prompt"]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def end(self) -> xr.DataArray:
        """The activations at the last token, as `gather` gives them."""
        return self.acts.sel(place="end", drop=True)

    def rows(self, chosen: Sequence[int]) -> "Readings":
        """Those of some prompts, in this order."""
        at = np.asarray(chosen, dtype=int)
        prompts = tuple(self.prompts[i] for i in chosen)
        return Readings(prompts, self.acts.isel(prompt=at), self.scores[at], self.lengths[at])


@checks_arguments
def read_prompts(model: Model, metric: Metric, prompts: Sequence[Prompt]) -> Readings:
    """Run prompts once, in batches, and keep their scores and the residual stream at two places.

    Raises:
        ValueError: if there are no prompts, or one cannot be tokenized.
    """
    given = tokenize(model, cast(Text, list(prompts)))
    sites = residual_sites(model)
    acts, scores = [], []
    order = np.argsort(given.lengths.numpy(), kind="stable")
    for rows in _batches(given, order):
        batch = _trim(given, rows)
        done = run(model, batch, read(*sites), logits_at=metric.at)
        scores.append(metric(done).double().cpu().numpy())
        there = _places(batch).to(done.acts[sites[0]].device)
        # place q, row r, position p, feature f
        found = [torch.einsum("qrp,rpf->qrf", there, done.acts[s].float()) for s in sites]
        acts.append(torch.stack(found, 1).cpu().numpy())
    back = np.argsort(order, kind="stable")
    values = np.concatenate(acts, axis=2)[:, :, back]
    coords = {
        "place": list(PLACES),
        "layer": range(len(sites)),
        "site": ("layer", [str(site) for site in sites]),
    }
    named = xr.DataArray(values, coords, ("place", "layer", "prompt", "feature"))
    return Readings(
        tuple(prompts), named, np.concatenate(scores)[back], given.lengths.cpu().numpy()
    )


def _batches(given: Prompts, order: np.ndarray) -> list[np.ndarray]:
    size = max(1, _BATCH_POSITIONS // given.width)
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def _trim(given: Prompts, rows: np.ndarray) -> Prompts:
    chosen = given.rows(torch.from_numpy(rows))
    return replace(chosen, tokens=chosen.tokens[:, : int(chosen.lengths.max())])


def _places(batch: Prompts) -> Float[torch.Tensor, "place prompt pos"]:
    """The weight of each position at each place: the last token, the mean over the text."""
    weights = torch.zeros(len(PLACES), *batch.mask.shape)
    for row, roles in enumerate(batch.roles):
        weights[0, row, int(batch.lengths[row]) - 1] = 1
        text = [pos for pos, role in enumerate(roles) if role == "text"] or [0]
        weights[1, row, text] = 1 / len(text)
    return weights
