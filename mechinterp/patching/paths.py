"""Path patching: the direct effect of one component on another, with everything between frozen.

Activation patching of a head shows its total effect. Here the sender's change reaches the receiver
through the residual stream alone: every head and MLP between them keeps its value of the unchanged
run. From the receiver on, the change propagates as usual.

>>> from mechinterp import Pair, Site, load_model, log_prob, token_id, tokenize
>>> from mechinterp.patching.paths import path_patching
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> found = path_patching(model, pair, refuse, [Site("z", 1, 0), Site("z", 1, 1)], Site("logits"))
>>> found.dims, found["sender"].values.tolist()
(('sender', 'prompt'), ['L1H0.z', 'L1H1.z'])

Wang et al. freeze the heads between sender and receiver, but let the MLPs respond. Here, as in
Goldowsky-Dill et al., both are frozen: the path is a single edge.

A sender's output is linear in its `z`, so its change is known before the run. It is added to the
residual stream at the receiver's layer, where the receiver and its norm see it, and subtracted
again after the receiver. So a path costs as much as a patch in the receiver's layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair, require_pair
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import At, Specs, add, edit, put, read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import check_site
from mechinterp.models.model import Model
from mechinterp.patching.effects import with_scores
from mechinterp.sweeps import axes
from mechinterp.sweeps.axes import Positions
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions, check_options

SENDERS = ("z", "attn_out", "mlp_out")
RECEIVERS = ("q", "k", "v", "mlp_out", "logits")


@checks_arguments
def path_patching(
    model: Model,
    pair: Pair,
    metric: Metric,
    senders: Sequence[Site],
    receiver: Site,
    *,
    direction: str = "noise",
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch the direct path from each sender to the receiver: dims (sender, prompt), metric's unit.

    `senders`: `Site("z", layer, head)`, or the "attn_out" or "mlp_out" of a layer. `receiver`: the
    "q", "k" or "v" of a head (of all heads without one); "mlp_out", meaning the input of that
    layer's MLP; or `Site("logits")`, the residual stream before the final norm. `positions`: where
    the change arrives, all patched together; by default everywhere. The `pos` of a sender or
    receiver narrows it further. `direction` and `options`: as in `patch_heads`.

    Raises:
        HookError: as `sweep`, such as for a head that does not exist.
        ValueError: if a site cannot be a sender or receiver, a sender does not come before the
            receiver, or heads pass a joint norm, so that a head has no output of its own.

    Source: Goldowsky-Dill et al. 2023, arXiv 2304.05969; Wang et al. 2022, section 3.1, arXiv
    2211.00593.
    """
    check_options("path_patching", options)
    base, other = require_pair(pair).sides(direction)
    route = _route(model, receiver)
    for site in (*senders, receiver):
        check_site(model, site, f"path from {site}" if site in senders else f"path to {site}")
    for sender in senders:
        _check_sender(model, sender, receiver)
    labels = {str(sender): sender for sender in senders}
    wide = tuple(dict.fromkeys(Site(s.act, s.layer) for s in senders))
    held = tuple(site for site in route.held if site not in wide)
    here = run(model, base, read(*wide, *held), logits_at=metric.at)
    there = run(model, other, read(*wide), logits_at=metric.at)
    narrowed = [] if positions is None else [axes.given_positions(positions)]
    narrowed += [] if receiver.pos is None else [[receiver.pos]]

    def arm(sender: str) -> Specs:
        site = labels[sender]
        change = _written(model, site, here.acts, there.acts)
        for chosen in narrowed + ([] if site.pos is None else [[site.pos]]):
            change = _only_at(change, here.acts, chosen)
        specs = add(route.enter, change) + _hold(route, receiver, here.acts)
        return specs + (add(route.leave, change, -1.0) if route.leave else ())

    found = sweep(model, base, {"sender": list(labels)}, arm, metric, **options).assign_attrs(
        method="path patching", receiver=str(receiver), source="Goldowsky-Dill et al. 2023"
    )
    return with_scores(found, metric, here, there, direction)


@dataclass(frozen=True)
class _Route:
    """Where the change enters and leaves the residual stream, and what is frozen in between."""

    enter: Site
    leave: Site | None
    held: tuple[Site, ...]


def _route(model: Model, receiver: Site) -> _Route:
    axes.check_choice("receiver", receiver.act, RECEIVERS)
    cfg, layer = model.cfg, receiver.layer
    if receiver.act == "logits":
        return _Route(Site("resid_post", cfg.n_layers - 1), None, ())
    pre, post = Site("resid_pre", layer), Site("resid_post", layer)
    if receiver.act == "mlp_out":
        if cfg.attn_only:
            raise ValueError(f"receiver {receiver}: this model has no MLPs.")
        if cfg.parallel_attn_mlp:
            return _Route(pre, post, (Site("attn_out", layer),))
        return _Route(Site("resid_mid", layer), post, ())
    inputs = tuple(Site(act, layer) for act in ("q", "k", "v"))
    if cfg.parallel_attn_mlp:
        return _Route(pre, post, (*inputs, Site("mlp_out", layer)))
    return _Route(pre, post if cfg.attn_only else Site("resid_mid", layer), inputs)


def _check_sender(model: Model, sender: Site, receiver: Site) -> None:
    axes.check_choice("sender", sender.act, SENDERS)
    if sender.act == "z" and models.has_norm_after_heads(model):
        raise ValueError(
            f"sender {sender}: this model normalizes the joint output of a layer's heads, so that "
            f'no head has an output of its own. Use Site("attn_out", {sender.layer}).'
        )
    if receiver.layer is None or sender.layer is None:
        return
    feeds_mlp = receiver.act == "mlp_out" and not model.cfg.parallel_attn_mlp
    last = receiver.layer if feeds_mlp and sender.act != "mlp_out" else receiver.layer - 1
    if sender.layer > last:
        raise ValueError(
            f"sender {sender} does not come before the receiver {receiver}, so there is no path. "
            f"Use senders up to layer {last}."
        )


def _written(
    model: Model, sender: Site, here: Activations, there: Activations
) -> Float[Tensor, "prompt pos d_model"]:
    """The sender's output to the residual stream in the other run, minus that in this one."""
    site = Site(sender.act, sender.layer, sender.head)
    change = there[site] - here[site]
    if sender.act != "z" or sender.layer is None:
        return change
    weights = models.output_weights(model, sender.layer)
    if sender.head is None:
        # p prompt, t pos, h head, d d_head, m d_model
        return torch.einsum("pthd,hdm->ptm", change, weights)
    return change @ weights[sender.head]


def _only_at(
    change: Float[Tensor, "prompt pos d_model"], acts: Activations, chosen: Sequence[Pos]
) -> Float[Tensor, "prompt pos d_model"]:
    """The change at these positions, and 0 elsewhere."""
    kept = torch.zeros_like(change)
    rows = torch.arange(len(change), device=change.device)
    for pos in chosen:
        at = acts.prompts.positions(pos)
        kept[rows, at] = change[rows, at]
    return kept


def _hold(route: _Route, receiver: Site, acts: Activations) -> Specs:
    """Specs that freeze everything else that would see the change."""
    specs: Specs = ()
    for site in route.held:
        if site.act != receiver.act:
            specs += put(site, acts[site])
        elif receiver.head is not None:
            specs += _put_back_others(site, receiver.head, acts[site])
    return specs


def _put_back_others(site: Site, head: int, value: Float[Tensor, "prompt pos head d"]) -> Specs:
    def put_back(old: Tensor, at: At) -> Tensor:
        new = value.clone()
        new[:, :, head] = old[:, :, head]
        return new

    return edit(site, put_back, name=f"hold all but head {head} of")
