"""A whole probing study of a model: activations, probes, all controls, description length.

>>> from mechinterp import load_model
>>> from mechinterp.probing import Labelled, probe_model
>>> things = "letter", "map", "book", "coat", "story"
>>> texts = [f"{verb} {word} {t}" for verb in ("bring", "open", "read") for t in things
...          for word in ("the", "sesame")]
>>> study = probe_model(load_model("toy:trigger"), Labelled.of(texts, ["no", "yes"] * 15))
>>> study.probed["of"].values.tolist()
['task', 'shuffled', 'control', 'majority', 'bag of tokens', 'random weights']
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.probing.by_layer import out_of_fold, probe_layers
from mechinterp.probing.controls import (
    bag_of_tokens,
    control_labels,
    random_weights,
    word_types,
)
from mechinterp.probing.folds import grouped_folds
from mechinterp.probing.gathered import contents, gather, residual_sites
from mechinterp.probing.labelled import Labelled
from mechinterp.probing.online_code import description_length
from mechinterp.probing.probes import Probe, logistic
from mechinterp.sweeps.options import Progress


@dataclass(frozen=True, eq=False)
class ProbeStudy:
    """The results of a study: `probed`, as from `probe_layers`, and `description`, in bits.

    `description` has dims (of, layer): "task" and, if there is a control task, "control". `notes`:
    what must be said beside the numbers.
    """

    labelled: Labelled
    prompts: Prompts
    acts: xr.DataArray
    probed: xr.Dataset
    description: xr.Dataset
    notes: tuple[str, ...]


@checks_arguments
def probe_model(  # noqa: PLR0913 - each option is a choice of the study
    model: Model,
    labelled: Labelled,
    *,
    sites: Sequence[Site] | None = None,
    position: Pos = "end",
    probe: Probe | None = None,
    types: Sequence[Hashable] | None = None,
    n_folds: int = 5,
    n_shuffles: int = 3,
    level: float = 0.95,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> ProbeStudy:
    """Probe every layer, beside all controls, including a model with random weights.

    `sites`, `position`, `out`: as in `gather`. `types`: of the control task; by default
    `word_types`. The rest as in `probe_layers`. The description length uses logistic probes.

    Raises:
        ValueError: if the prompts, the sites or the position are invalid, or as `grouped_folds`.
        ProbeError: if a probe does not converge, naming the layer.
    """
    out = None if out is None else Path(out).absolute()
    prompts = tokenize(model, cast(Text, list(labelled.prompts)))
    labelled = labelled.by_content(contents(prompts))
    y, groups = labelled.y, labelled.group_numbers
    folds = grouped_folds(y, groups, n_folds=n_folds, seed=seed, classes=labelled.classes)
    sites = residual_sites(model) if sites is None else list(sites)
    probe = probe or logistic()
    acts = gather(
        model, prompts, sites, position=position, out=_inside(out, "model"), progress=progress
    )
    untrained = gather(
        random_weights(model, seed),
        prompts,
        sites,
        position=position,
        out=_inside(out, "random weights"),
        progress=progress,
    )
    notes = []
    if types is None:
        found = word_types(prompts, groups, position)
        if found is None:
            notes.append(
                "No control task: no place in the prompts has words that several groups share, so "
                "nothing could be memorised."
            )
        else:
            types = found[0]
            notes.append(f"Control task: a random label for each {found[1]}.")
    baselines = {
        "bag of tokens": bag_of_tokens(prompts, y, folds),
        "random weights": out_of_fold(untrained, [y], folds, probe)[0],
    }
    probed = probe_layers(
        acts,
        labelled,
        probe=probe,
        n_folds=n_folds,
        n_shuffles=n_shuffles,
        types=types,
        baselines=baselines,
        level=level,
        seed=seed,
    )
    described = {"task": description_length(acts, labelled, seed=seed)}
    if types is not None:
        labels = control_labels(types, y, seed, folds=folds)
        described["control"] = description_length(acts, labelled, labels, seed=seed)
    description = xr.concat(
        list(described.values()),
        dim=xr.Variable("of", list(described)),
        combine_attrs="drop_conflicts",
    )
    return ProbeStudy(labelled, prompts, acts, probed, description, tuple(notes))


@checks_arguments
def held_out(probed: xr.Dataset, n_folds: int = 2) -> np.ndarray:
    """True for prompts of the first folds, on which to measure a direction found in the rest."""
    return np.asarray(probed["fold"].values < n_folds)


def _inside(out: str | Path | None, name: str) -> Path | None:
    return None if out is None else Path(out) / name.replace(" ", "-")
