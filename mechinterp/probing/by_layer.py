"""Probes of each layer, tested on prompts that they were not fitted to, beside their controls.

>>> import numpy as np, xarray as xr
>>> from mechinterp.probing import Labelled, probe_layers
>>> rng = np.random.default_rng(0)
>>> given = Labelled.of([f"text {i}" for i in range(80)], ["no", "yes"] * 40)
>>> x = rng.normal(size=(3, 80, 12))
>>> x[2, :, 0] += 4 * given.y                            # planted in layer 2
>>> found = probe_layers(xr.DataArray(x, dims=("layer", "prompt", "feature")), given)
>>> found["mean"].sel(of="task", measure="balanced_accuracy").values.round(1).tolist()
[0.4, 0.4, 0.9]
>>> [float(found["mean"].sel(of="shuffled", measure="accuracy").max().round(1))]
[0.5]
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.probing.controls import control_labels, majority, shuffled_labels
from mechinterp.probing.folds import grouped_folds
from mechinterp.probing.gathered import CONTENT
from mechinterp.probing.labelled import Labelled
from mechinterp.probing.measures import Answers, by_group, figures
from mechinterp.probing.probes import Probe, ProbeError, logistic
from mechinterp.stats.paired_differences import difference


@checks_arguments
def probe_layers(  # noqa: PLR0913 - each option is a choice of the study
    acts: xr.DataArray,
    labelled: Labelled,
    *,
    probe: Probe | None = None,
    n_folds: int = 5,
    n_shuffles: int = 3,
    types: Sequence[Hashable] | None = None,
    baselines: Mapping[str, Answers] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """How well a linear probe reads the labels off each layer: dims (of, measure, layer).

    `acts`: dims (layer, prompt, feature), as `gather` makes them. `of`: "task", and its controls:
    "majority"; "shuffled", the mean over `n_shuffles` random orders of the labels; "control", if
    `types` are given (one per prompt, such as its first word); and `baselines`, other answers in
    the same folds. For each measure (`figures`) `mean`, `low` and `high`. Also `right` (of, layer,
    prompt), 1 where the probe was right on a prompt that it was not fitted to; `score` (layer,
    prompt, output) of the task; `selectivity` with its interval, the accuracy of the task minus
    that of the control, paired by group; and `fold`, `label` and `group` of each prompt. `probe`:
    by default `logistic()`. Layers are read one at a time, so activations on disk need not fit into
    memory.

    Raises:
        ValueError: if the activations do not fit the prompts or are not finite, or as
            `grouped_folds`.
        ProbeError: if a probe does not converge, naming the layer.
    """
    probe = probe or logistic()
    _check(acts, labelled)
    labelled = grouped_by_tokens(labelled, acts)
    y, groups = labelled.y, labelled.group_numbers
    folds = grouped_folds(y, groups, n_folds=n_folds, seed=seed, classes=labelled.classes)
    label_sets = {"task": [y]}
    if n_shuffles:
        every = range(seed, seed + n_shuffles)
        label_sets["shuffled"] = [shuffled_labels(y, groups, folds, each) for each in every]
    if types is not None:
        label_sets["control"] = [control_labels(types, y, seed, folds=folds)]
    flat = [labels for sets in label_sets.values() for labels in sets]
    answered = iter(out_of_fold(acts, flat, folds, probe))
    answers = {name: [next(answered) for _ in sets] for name, sets in label_sets.items()}
    answers["majority"] = [majority(y, folds)]
    answers |= {name: [each] for name, each in (baselines or {}).items()}
    found = _dataset(acts, answers, groups, folds, level)
    if "control" in answers:
        found = found.merge(_selectivity(answers, groups, level, seed), join="override")
    by_prompt = {"fold": folds, "label": list(labelled.labels), "group": list(labelled.groups)}
    kept = {name: ("prompt", value) for name, value in by_prompt.items()}
    score = (("layer", "prompt", "output"), answers["task"][0].scores)
    found = found.assign(score=score).assign_coords(kept)
    return found.assign_attrs(
        acts.attrs
        | {"probe": probe.name, "n_folds": n_folds, "n_shuffles": n_shuffles, "seed": seed}
        | {"level": level, "n_groups": int(groups.max()) + 1, "classes": list(labelled.classes)}
    )


@checks_arguments
def grouped_by_tokens(labelled: Labelled, acts: xr.DataArray) -> Labelled:
    """The prompts, those of the same tokens in one group, where `gather` noted which they are.

    Raises:
        ValueError: as `Labelled.by_content`.
    """
    if CONTENT not in acts.coords:
        return labelled
    return labelled.by_content(acts[CONTENT].values.tolist())


@checks_arguments
def out_of_fold(
    acts: xr.DataArray,
    label_sets: Sequence[Int[np.ndarray, " prompt"]],
    folds: Int[np.ndarray, " prompt"],
    probe: Probe,
) -> list[Answers]:
    """For each set of labels, the scores of every prompt by a probe fitted to the other folds.

    Raises:
        ProbeError: if a probe does not converge, naming the layer and the fold.
    """
    n_layers, n_prompts = acts.sizes["layer"], acts.sizes["prompt"]
    widths = [1 if labels.max() < 2 else int(labels.max()) + 1 for labels in label_sets]
    scores = [np.empty((n_layers, n_prompts, width)) for width in widths]
    for place in range(n_layers):
        x = layer_of(acts, place)
        for fold in np.unique(folds):
            tested = folds == fold
            train, test = x[~tested], x[tested]
            for labels, found in zip(label_sets, scores, strict=True):
                try:
                    fitted = probe.fit(train, labels[~tested])
                except ProbeError as error:
                    raise ProbeError(f"{layer_name(acts, place)}, fold {fold}: {error}") from error
                found[place, tested] = fitted.scores(test)
    return [Answers(labels, each) for labels, each in zip(label_sets, scores, strict=True)]


def layer_of(acts: xr.DataArray, place: int) -> Float[np.ndarray, "prompt feature"]:
    """The activations of one layer in float64; from a file, only this layer is read."""
    return np.array(acts.isel(layer=place).values, dtype=np.float64)


def layer_name(acts: xr.DataArray, place: int) -> str:
    """The name of a layer in messages: its number, and its site if known."""
    number = int(acts["layer"][place]) if "layer" in acts.coords else place
    site = f" ({acts['site'].values[place]})" if "site" in acts.coords else ""
    return f"layer {number}{site}"


def _check(acts: xr.DataArray, labelled: Labelled) -> None:
    wanted = ("layer", "prompt", "feature")
    if acts.dims != wanted:
        raise ValueError(f"the activations have dims {acts.dims}, not {wanted}: use gather.")
    if acts.sizes["prompt"] != len(labelled):
        raise ValueError(
            f"activations of {acts.sizes['prompt']} prompts, but labels of {len(labelled)}. Gather "
            f"the activations of labelled.prompts."
        )
    for place in range(acts.sizes["layer"]):
        if not np.isfinite(acts.isel(layer=place).values).all():
            raise ValueError(
                f"{layer_name(acts, place)}: the activations are not finite. Load the model in "
                f"float32."
            )


def _dataset(
    acts: xr.DataArray,
    answers: Mapping[str, Sequence[Answers]],
    groups: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
    level: float,
) -> xr.Dataset:
    """All measures of all answers; answers without layers count for every layer."""
    n_layers, every = acts.sizes["layer"], []
    for each in answers.values():
        measured = [figures(answer, groups=groups, folds=folds, level=level) for answer in each]
        # Of several orders of the labels: the average over them, of the interval's ends too.
        several = xr.concat(measured, dim="order")
        one = several.mean("order", keep_attrs=True)
        right = np.mean([answer.right for answer in each], axis=0)
        one["right"] = (("layer", "prompt"), right)
        every.append(one.isel(layer=[0] * n_layers) if one.sizes["layer"] == 1 else one)
    found = xr.concat(every, dim=xr.Variable("of", list(answers)))
    coords = {name: c for name, c in acts.coords.items() if c.dims == ("layer",)}
    if "layer" not in coords:
        coords["layer"] = xr.Variable("layer", np.arange(n_layers))
    return found.assign_coords(coords)


def _selectivity(
    answers: Mapping[str, Sequence[Answers]],
    groups: Int[np.ndarray, " prompt"],
    level: float,
    seed: int,
) -> xr.Dataset:
    def paired(name: str) -> xr.DataArray:
        return xr.DataArray(by_group(answers[name][0].right, groups), dims=("layer", "group"))

    found = difference(
        paired("task"), paired("control"), dim="group", level=level, n_resamples=1999, seed=seed
    )
    names = {"mean": "selectivity", "low": "selectivity_low", "high": "selectivity_high"}
    return found[list(names)].rename(names)


@checks_arguments
def balanced_by_group(found: xr.Dataset, of: str = "task") -> xr.DataArray:
    """Each group's contribution to balanced accuracy, which is their mean: dims (layer, group).

    `of`: answers to the real labels, such as "task" or a baseline.

    Raises:
        ValueError: if `of` has other labels: "shuffled" or "control".
    """
    if of in ("shuffled", "control"):
        raise ValueError(f"of={of!r} has other labels, and cannot be compared with the task.")
    right = found["right"].sel(of=of).values
    _, y = np.unique(found["label"].values, return_inverse=True)
    names, groups = np.unique(found["group"].values, return_inverse=True)
    counts = np.bincount(y)
    given = by_group(right * len(y) / (len(counts) * counts[y]), groups)
    coords = {"layer": found["layer"].values, "group": names}
    return xr.DataArray(given, dims=("layer", "group"), coords=coords, attrs={"unit": "share"})
