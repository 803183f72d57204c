"""Which sites a model has, the sizes of their axes, and how to switch them on.

>>> from mechinterp.models.hook_points import describe
>>> from mechinterp import load_model
>>> "resid_pre" in describe(load_model("toy:induction"))
True
"""

import difflib
import math
from collections.abc import Sequence

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import ACTS, HookError, Site
from mechinterp.models.facts import SWITCHES
from mechinterp.models.model import Model, require_model


def check_site(model: Model, site: Site, name: str) -> None:
    """Check that the site exists on this model, is in range, and runs.

    Raises:
        HookError: if not, naming the spec and the remedy.
    """
    require_model(model)
    if site.act == "tokens":
        return
    n_layers = model.cfg.n_layers
    if site.layer is not None and site.layer >= n_layers:
        raise HookError(
            f"{name}: layer {site.layer} is out of range, the model has layers 0 to {n_layers - 1}."
        )
    if site.hook not in model.hook_dict:
        have = _present_acts(model) if site.axes else list(model.hook_dict)
        close = difflib.get_close_matches(site.act, have, 4, cutoff=0)
        raise HookError(
            f"{name}: this model has no {site.hook}. Did you mean {' or '.join(close)}? "
            f"describe(model) lists all sites."
        )
    switch = _switch(site.hook)
    if switch and not getattr(model.cfg, SWITCHES[switch]):
        raise HookError(
            f"{name} never ran: {site.hook} is switched off on this model. "
            f"Load it with load_model(..., {switch}=True)."
        )
    for axis in ("head", "neuron"):
        number, size = getattr(site, axis), axis_size(model, site.act, axis)
        if number is not None and number >= size:
            kind = "key-value heads" if axis == "head" and size != model.cfg.n_heads else f"{axis}s"
            raise HookError(
                f"{name}: {axis} {number} is out of range, {site.act} has {kind} 0 to {size - 1}."
            )


def axis_size(model: Model, act: str, axis: str) -> int:
    """The size of an axis of an activation; not of `prompt`, `pos` or `src`, which prompts set."""
    require_model(model)
    cfg = model.cfg
    heads = cfg.n_heads
    grouped = cfg.n_key_value_heads is not None and not cfg.ungroup_grouped_query_attention
    if grouped and act in ("k", "v", "rot_k", "k_input", "v_input"):
        heads = cfg.n_key_value_heads or heads
    sizes = {"head": heads, "d_model": cfg.d_model, "d_head": cfg.d_head, "one": 1}
    return int({**sizes, "neuron": cfg.d_mlp or 0, "vocab": cfg.d_vocab_out}[axis])


def read_bytes(model: Model, prompts: Prompts, sites: Sequence[Site]) -> int:
    """The bytes that reading these sites keeps; sites given by full hook name are not counted."""
    sizes = {"prompt": len(prompts), "pos": prompts.width, "src": prompts.width}
    total = 0
    for site in sites:
        axes = site.narrowed_axes or ()
        each = [sizes[a] if a in sizes else axis_size(model, site.act, a) for a in axes]
        total += math.prod(each) * model.cfg.dtype.itemsize if axes else 0
    return total


def first_layer(model: Model, site: Site) -> int:
    """The layer in which the site lies; 0 for sites before the layers, n_layers for those after."""
    if site.layer is not None:
        return site.layer
    return model.cfg.n_layers if site.hook.startswith(("ln_final", "unembed")) else 0


def describe(model: Model) -> str:
    """A table of the model's sites: their axes, and whether they run or what switches them on.

    The last layer stands for all layers. One token is run to see which hook points fire.
    """
    require_model(model)
    fired = models.fired_points(model)
    layer = model.cfg.n_layers - 1
    lines = [models.name(model), models.size(model), models.processing(model), ""]
    listed = {"tokens"}
    for name, act in ACTS.items():
        site = Site(name, layer if act.per_layer else None)
        if name != "tokens" and site.hook not in model.hook_dict:
            continue
        listed.add(site.hook)
        axes = [_axis_text(model, name, axis) for axis in act.axes]
        state = "on" if site.hook in fired or name == "tokens" else "never runs on this model"
        if act.switch and not getattr(model.cfg, SWITCHES[act.switch]):
            state = f"off: load_model(..., {act.switch}=True)"
        where = f"L0..L{layer}" if act.per_layer else ""
        lines.append(f"{name:20}{where:9}{' '.join(axes):44}{state}")
    others = [h for h in model.hook_dict if h not in listed and not _other_layer(h, layer)]
    if others:
        lines += ["", "by full hook name only (axes not known, not narrowed):", *others]
    return "\n".join(lines)


def _present_acts(model: Model) -> list[str]:
    return [n for n, a in ACTS.items() if a.hook.format(layer=0) in model.hook_dict]


def _switch(hook: str) -> str:
    tail = hook.split(".", 2)[-1] if hook.startswith("blocks.") else hook
    return next((a.switch for a in ACTS.values() if a.hook == f"blocks.{{layer}}.{tail}"), "")


def _other_layer(hook: str, layer: int) -> bool:
    return hook.startswith("blocks.") and not hook.startswith(f"blocks.{layer}.")


def _axis_text(model: Model, act: str, axis: str) -> str:
    if axis in ("prompt", "pos", "src"):
        return axis
    size = axis_size(model, act, axis)
    return "1" if axis == "one" else f"{axis}({size})"
