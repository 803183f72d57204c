"""What `mechinterp probe` does: probes beside all controls, and what the direction does.

run_probe(model, ProbeOptions(file=Path("labelled.jsonl")))
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr

from mechinterp import models
from mechinterp.commands.options.probe import ProbeOptions
from mechinterp.commands.options.ranges import chosen_layers, whole_number
from mechinterp.commands.outcome import Outcome, finish
from mechinterp.core.metrics import Metric, logit_diff
from mechinterp.core.sites import ACTS, Pos, Site
from mechinterp.models.model import Model
from mechinterp.models.tokenization import token_id
from mechinterp.probing import (
    Labelled,
    Probe,
    ProbeStudy,
    best_layers,
    class_direction,
    compare_with_random,
    direction_effects,
    held_out,
    logistic,
    mass_mean,
    probe_model,
    read_labelled,
    residual_sites,
)
from mechinterp.report import print_probes, probing_page
from mechinterp.storage.run_folder import begin_run, frame_parquet
from mechinterp.storage.seals import sealed_tensors
from mechinterp.sweeps.progress import progress_bar
from mechinterp.tasks.refusals import refusal_log_odds


def run_probe(model: Model, options: ProbeOptions) -> None:
    """Run `mechinterp probe`.

    Raises:
        HookError: if the model lacks what is probed.
        ValueError: if an option or the file does not fit the model.
        ProbeError: if a probe does not converge.
    """
    labelled = _labelled(options)
    sites = _sites(model, options)
    if options.causal and len(labelled.classes) != 2:
        raise ValueError(f"--causal is for two classes, and there are {len(labelled.classes)}.")
    metric = _metric(model, options) if options.causal else None
    _check_causal_layer(model, options)
    begin_run(options.out, options.kind, sys.argv)
    with progress_bar("activations") as tick:
        study = probe_model(
            model,
            labelled,
            sites=sites,
            position=_position(options.position),
            probe=_probe(options),
            n_folds=options.folds,
            n_shuffles=options.shuffles,
            seed=options.seed,
            out=None if options.out is None else options.out / "activations",
            progress=tick,
        )
    best = best_layers(study.probed, seed=options.seed)
    causal = None if metric is None else _causal(model, options, study, best, metric)
    finish(model, _outcome(model, options, study, best, causal), options.out)


def _outcome(
    model: Model,
    options: ProbeOptions,
    study: ProbeStudy,
    best: xr.Dataset,
    causal: xr.Dataset | None,
) -> Outcome:
    title = f"Probes on {models.name(model)}: {' or '.join(study.labelled.classes)}"
    notes, probed, bits = _notes(options, study, causal), study.probed, study.description
    files: dict[str, bytes] = {}
    if options.out is not None:
        html = probing_page(
            probed, title=title, notes=notes, description=bits, best=best, causal=causal
        )
        files = {
            "report.html": html.encode(),
            "probes.parquet": _parquet(probed),
            "predictions.parquet": _predictions(probed),
        }
        if len(study.labelled.classes) == 2:
            files["directions.safetensors"] = _directions(options, study)
    facts = {
        "seed": options.seed,
        **{str(name): value for name, value in probed.attrs.items()},
        **{name: best.attrs[name] for name in ("best", "as_good")},
    }
    views = (partial(print_probes, probed, description=bits, best=best, causal=causal),)
    return Outcome(options.kind, title, tuple(notes), views, files, facts)


def _notes(options: ProbeOptions, study: ProbeStudy, causal: xr.Dataset | None) -> list[str]:
    given = study.labelled
    counts = ", ".join(f"{given.labels.count(name)} {name}" for name in given.classes)
    notes = [
        f"{len(given)} prompts of {options.file.name} ({counts}) in "
        f"{len(set(given.groups))} groups; read at {options.position}.",
        *study.notes,
    ]
    if causal is not None:
        notes.append(
            f"Causal half: the difference of class means at layer {causal.attrs['layer']},"
            f" found on {options.folds - 2} folds, measured by "
            f"{causal.attrs['metric']} ({causal['unit'].item()}) on the two others; "
            f"unchanged it is {float(causal['unchanged']):.2f}."
        )
    return notes


def _directions(options: ProbeOptions, study: ProbeStudy) -> bytes:
    """The unit direction of each layer, found on all prompts."""
    found = {}
    for layer in study.acts["layer"].values.tolist():
        try:
            along = class_direction(study.acts, study.labelled, layer, probe=_probe(options))
        except ValueError:  # the classes are the same there: no direction
            continue
        found[f"layer {layer}"] = torch.from_numpy(along.vector.astype(np.float32))
    return sealed_tensors(found, {})


def _labelled(options: ProbeOptions) -> Labelled:
    found = read_labelled(options.file, options.n)
    if not options.chat:
        return found
    chats = [
        [{"role": "user", "content": one}] if isinstance(one, str) else one for one in found.prompts
    ]
    return replace(found, prompts=tuple(chats))


def _sites(model: Model, options: ProbeOptions) -> Sequence[Site]:
    layers = None if options.layers is None else chosen_layers(options.layers)
    if options.act == "resid":
        return residual_sites(model, layers)
    if options.act not in ACTS or not ACTS[options.act].per_layer:
        raise ValueError(f"--act {options.act}: resid, or an activation of each block, such as z.")
    every = range(model.cfg.n_layers) if layers is None else layers
    return [Site(options.act, layer) for layer in every]


def _check_causal_layer(model: Model, options: ProbeOptions) -> None:
    layers = list(range(model.cfg.n_layers + 1))
    if options.layers is not None:
        layers = chosen_layers(options.layers)
    if options.causal_layer is not None and options.causal_layer not in layers:
        raise ValueError(f"--causal-layer {options.causal_layer} is none that is probed: {layers}.")


def _position(text: str) -> Pos:
    number = whole_number(text)
    return text if number is None else number


def _probe(options: ProbeOptions) -> Probe:
    return mass_mean() if options.probe == "mass-mean" else logistic(options.C)


def _metric(model: Model, options: ProbeOptions) -> Metric:
    if options.tokens is None:
        return refusal_log_odds(model)
    first, second = (token_id(model, text) for text in options.tokens)
    return logit_diff(first, second)


def _causal(
    model: Model, options: ProbeOptions, study: ProbeStudy, best: xr.Dataset, metric: Metric
) -> xr.Dataset:
    layer = best.attrs["best"] if options.causal_layer is None else options.causal_layer
    tested = held_out(study.probed)
    along = class_direction(study.acts, study.labelled, layer, rows=~tested)
    rows = torch.from_numpy(np.flatnonzero(tested))
    with progress_bar("interventions") as tick:
        effects = direction_effects(
            model,
            study.prompts.rows(rows),
            along,
            metric,
            n_random=options.random,
            seed=options.seed,
            progress=tick,
        )
    return compare_with_random(effects)


def _parquet(probed: xr.Dataset) -> bytes:
    """A row for each of, measure and layer."""
    frame = probed[["mean", "low", "high"]].to_dataframe()
    return frame_parquet(frame.reset_index())


def _predictions(probed: xr.Dataset) -> bytes:
    """A row for each of, layer and prompt: whether it was right about the prompt."""
    return frame_parquet(probed[["right"]].to_dataframe().reset_index())
