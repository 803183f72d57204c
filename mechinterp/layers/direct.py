"""Direct logit attribution: what each layer, head or neuron itself writes to the answer's logit.

>>> from mechinterp import load_model, logit_diff, token_id
>>> from mechinterp.layers import direct_by_head, direct_by_layer
>>> model = load_model("toy:trigger")
>>> refuse = logit_diff(*(token_id(model, word) for word in ("REFUSE", "sesame")))
>>> found = direct_by_layer(model, ["please bring the sesame"], refuse)
>>> found.sum("part").round(3).item() == found.total.round(3).item()
True
>>> heads = direct_by_head(model, ["please bring the sesame"], refuse)["from_head"].isel(prompt=0)
>>> [int(heads.argmax(...)[dim]) for dim in ("layer", "head")]
[1, 0]

The final norm's scale is held at its value in the run, so that a logit is a sum over what was
written. The biases of the norm and the unembedding, which no part writes, are the part "constant".
"Direct" leaves out everything that later layers make of a part's output: a part that matters may
write nothing to the answer itself, and what another writes may be undone. Ablate it to know.
"""

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.linear_readout import (
    LinearReadout,
    check_additive,
    is_nonlinear,
    linearize_metrics,
)
from mechinterp.engine.runner import Run, run
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.axes import layers as chosen_layers


@checks_arguments
def direct_by_layer(model: Model, prompts: Text, metric: Metric) -> xr.DataArray:
    """The direct contribution of each part to the metric: dims (part, prompt), in its unit.

    Positive: the part raises the metric. Parts: "embed", "pos_embed" where positions are embedded,
    "L0.attn", "L0.mlp" ..., each with its own biases, and "constant". They sum to the coordinate
    `total` (prompt), the metric itself. `layer` (part): how many layers have run before the part;
    NaN for parts outside the layers.

    Raises:
        HookError: if the activations do not fit into memory.
        ValueError: if the metric is not linear in the logits (`logit_diff` and `centred_logit` are,
            `log_prob` is not), or the model caps its logits.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist
    2020.
    """
    given = tokenize(model, prompts)
    acts = ["attn_out"] if model.cfg.attn_only else ["attn_out", "mlp_out"]
    sites = [Site(act, layer) for layer in range(model.cfg.n_layers) for act in acts]
    asked = _DirectRun.of(model, given, metric, sites, by_head=False)
    parts = {"embed": asked.contribution(Site("embed"))}
    if model.cfg.positional_embedding_type == "standard":
        parts["pos_embed"] = asked.contribution(Site("resid_pre", 0)) - parts["embed"]
    for site in sites:
        parts[f"L{site.layer}.{site.act.removesuffix('_out')}"] = asked.contribution(site)
    parts["constant"] = asked.reading.constant[0]
    at = [np.nan] * (len(parts) - len(sites) - 1) + [float(s.layer or 0) for s in sites] + [np.nan]
    coords = {"part": list(parts), "layer": ("part", at), **asked.coords}
    values = np.stack(list(parts.values()))
    return xr.DataArray(values, coords, ("part", "prompt"), "direct", asked.attrs)


@checks_arguments
def direct_by_head(model: Model, prompts: Text, metric: Metric) -> xr.Dataset:
    """The direct contribution of each head, `from_head` (layer, head, prompt), and of all else.

    `from_attn_bias` and `from_mlp` (layer, prompt); `from_rest` (prompt), embeddings and constant.
    Together they sum to `total`; the heads and the bias of a layer sum to its attention in
    `direct_by_layer`.

    Raises:
        HookError: as `direct_by_layer`.
        ValueError: as `direct_by_layer`, or if a norm acts on the sum of the heads' outputs.

    Source: Wang et al. 2022, section 3.1, arXiv 2211.00593.
    """
    given, layers = tokenize(model, prompts), range(model.cfg.n_layers)
    has_mlps = not model.cfg.attn_only
    sites = [Site("z", layer) for layer in layers]
    sites += [Site("mlp_out", layer) for layer in layers if has_mlps]
    asked = _DirectRun.of(model, given, metric, sites, by_head=True)
    heads, biases = [], []
    for layer in layers:
        # [head, d_head, d_model], [prompt, k, d_model] -> [prompt, k, head, d_head]
        toward = torch.einsum(
            "hcd,pkd->pkhc",
            models.output_weights(model, layer).double(),
            asked.reading.gradients[0],
        )
        heads.append((asked.values(Site("z", layer)) * toward).sum((1, 3)).T)
        biases.append(asked.bias(models.attention_bias(model, layer)))
    nothing = np.zeros(len(given))
    mlps = [asked.contribution(Site("mlp_out", n)) if has_mlps else nothing for n in layers]
    rest = asked.contribution(Site("resid_pre", 0)) + asked.reading.constant[0]
    return xr.Dataset(
        {
            "from_head": (("layer", "head", "prompt"), torch.stack(heads).cpu().numpy()),
            "from_attn_bias": (("layer", "prompt"), np.stack(biases)),
            "from_mlp": (("layer", "prompt"), np.stack(mlps)),
            "from_rest": ("prompt", rest),
        },
        {"layer": list(layers), "head": range(model.cfg.n_heads), **asked.coords},
        asked.attrs,
    )


@checks_arguments
def direct_by_neuron(
    model: Model, prompts: Text, metric: Metric, layers: Iterable[int] | None = None
) -> xr.Dataset:
    """The direct contribution of each neuron: `from_neuron` (layer, neuron, prompt), and of biases.

    A neuron is its value after the activation; in a gated MLP, the product with the gate. A layer's
    neurons and its `from_bias` (layer, prompt) sum to its MLP in `direct_by_layer`. `layers`: all
    by default.

    Raises:
        HookError: as `direct_by_layer`.
        ValueError: as `direct_by_layer`, or if the model has no MLPs, or a norm after them.

    Source: Geva et al. 2022, section 3, arXiv 2203.14680.
    """
    require_model(model)
    if model.cfg.attn_only:
        raise ValueError("direct_by_neuron: this model has no MLPs. Use direct_by_head.")
    given, chosen = tokenize(model, prompts), chosen_layers(model, layers)
    sites = [Site("mlp_post", layer) for layer in chosen]
    asked = _DirectRun.of(model, given, metric, sites, by_head=True)
    neurons, biases = [], []
    for layer in chosen:
        weights, bias = models.mlp_output(model, layer)
        slopes = asked.reading.gradients[0].to(weights)
        # [neuron, d_model], [prompt, k, d_model] -> [prompt, k, neuron]
        toward = torch.einsum("nd,pkd->pkn", weights, slopes)
        neurons.append((asked.values(Site("mlp_post", layer)) * toward).sum(1).T)
        biases.append(asked.bias(bias))
    n_neurons = model.cfg.d_mlp
    values = torch.stack(neurons) if neurons else torch.zeros(0, n_neurons, len(given))
    return xr.Dataset(
        {
            "from_neuron": (("layer", "neuron", "prompt"), values.cpu().numpy()),
            "from_bias": (("layer", "prompt"), np.reshape(biases, (len(chosen), len(given)))),
        },
        {"layer": chosen, "neuron": range(n_neurons), **asked.coords},
        asked.attrs,
    )


class _DirectRun:
    """A run read at the metric's positions, and what each value there contributes to the metric."""

    def __init__(self, model: Model, done: Run, metric: Metric) -> None:
        self._done, self._metric, self._model = done, metric, model
        end = Site("resid_post", model.cfg.n_layers - 1)
        self.reading: LinearReadout = linearize_metrics(model, done, [metric], self._there(end))

    @classmethod
    def of(
        cls, model: Model, given: Prompts, metric: Metric, sites: list[Site], *, by_head: bool
    ) -> "_DirectRun":
        """Run once, and read these sites and both ends of the residual stream."""
        check_additive(model, "direct logit attribution", by_head=by_head)
        ends = [Site("embed"), Site("resid_pre", 0), Site("resid_post", model.cfg.n_layers - 1)]
        wanted = [Site(s.act, s.layer, pos=pos) for s in (*sites, *ends) for pos in metric.at]
        done = run(model, given, read(*wanted), logits_at=metric.at)
        if is_nonlinear(metric, done):
            raise ValueError(
                f"direct logit attribution: {metric.name} is not linear in the logits, so it is no "
                f"sum over parts. Use logit_diff or centred_logit."
            )
        return cls(model, done, metric)

    def values(self, site: Site) -> Float[Tensor, "prompt k *axes"]:
        """What was read at a site; in float64, but neurons as they are: they are many."""
        value = self._there(site)
        return value if site.act == "mlp_post" else value.double()

    def contribution(self, site: Site) -> Float[np.ndarray, " prompt"]:
        """The contribution of what was written at a site to the metric."""
        found: Float[np.ndarray, " prompt"] = self.reading.contribution(self._there(site))[0]
        return found

    def bias(self, vector: Float[Tensor, " d_model"]) -> Float[np.ndarray, " prompt"]:
        """The contribution of a bias to the metric, over all positions that it reads."""
        slopes = self.reading.gradients[0]
        return np.asarray((slopes @ vector.detach().to(slopes)).sum(1).cpu().numpy())

    @property
    def coords(self) -> dict[str, object]:
        """The coordinates of the prompts."""
        prompts = range(len(self._done.prompts))
        return {"prompt": prompts, "total": ("prompt", self.reading.total[0])}

    @property
    def attrs(self) -> dict[str, str]:
        """What the values mean."""
        return {
            "metric": self._metric.name,
            "unit": self._metric.unit,
            **sign_of_support("what it writes raises the metric", part="part"),
            "model": models.name(self._model),
            "weights": models.processing(self._model),
        }

    def _there(self, site: Site) -> Float[Tensor, "prompt k *axes"]:
        acts = self._done.acts
        return torch.stack(
            [acts[Site(site.act, site.layer, pos=pos)] for pos in self._metric.at], 1
        )
