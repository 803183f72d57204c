"""Probes beside a slow obvious loop of scikit-learn, planted truths, and a careless probe.

    python scripts/bench/probing.py [--check] [--quick]

CPU seconds of one thread. 13 layers of 1,000 prompts and 768 features, scales and correlations as
of a residual stream, five folds. The slow loop is scikit-learn's own: a pipeline in
`cross_val_predict` for each layer and each set of labels, without intervals; decisions have to be
equal. `--check` exits with 1 if an equality or a wanted figure falls short. `--quick`: 3 layers of
200 prompts, for the equalities alone.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from figures import Figure
from random_models import tiny_models
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechinterp import Prompts, load_model
from mechinterp.probing import (
    Labelled,
    best_layers,
    control_labels,
    description_length,
    gather,
    probe_layers,
    shuffled_labels,
)

SECONDS = 10.0
"""What probes, control, shuffled labels and intervals may take."""


def main() -> None:
    """Run the parts, print their tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="small shapes, equalities alone")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    short = []
    for part in (speed, planted, careless, on_disk):
        print(f"\n{part.__name__.replace('_', ' ')}", flush=True)
        for figure in part(given.quick):
            print(f"  {figure}", flush=True)
            short += [figure.name] * figure.falls_short
    if given.check and short:
        raise SystemExit(f"falls short: {', '.join(short)}")


def residual_like(
    n_layers: int, n_prompts: int, n_features: int, at: int
) -> tuple[xr.DataArray, Labelled]:
    """Correlated features, a few of them huge, and a class along one direction from `at` on."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(n_features, n_features)) / np.sqrt(n_features)
    mixed *= np.exp(1.5 * rng.normal(size=n_features))
    mixed[:, :2] *= 300
    labels = rng.integers(0, 2, n_prompts)
    along = 0.6 * rng.normal(size=n_features) * np.linalg.norm(mixed, axis=0)
    x = np.stack([rng.normal(size=(n_prompts, n_features)) @ mixed for _ in range(n_layers)])
    x[at:] += labels[:, None] * along
    given = Labelled.of([f"text {i}" for i in range(n_prompts)], labels.tolist())
    return xr.DataArray(x.astype(np.float32), dims=("layer", "prompt", "feature")), given


def speed(quick: bool) -> Iterator[Figure]:
    """All that is wanted beside the slow loop, and that both decide alike."""
    n_layers, n_prompts, n_features = (3, 200, 96) if quick else (13, 1000, 768)
    acts, given = residual_like(n_layers, n_prompts, n_features, n_layers // 2)
    types = [f"word {i % 100}" for i in range(n_prompts)]
    began = time.process_time()
    found = probe_layers(acts, given, types=types, n_shuffles=1)
    spent = time.process_time() - began
    folds, y = found["fold"].values, given.y
    label_sets = (
        y,
        shuffled_labels(y, given.group_numbers, folds, 0),
        control_labels(types, y, 0, folds=folds),
    )
    began = time.process_time()
    slow = [
        [_obvious(layer.astype(float), labels, folds) for layer in acts.values]
        for labels in label_sets
    ]
    slow_spent = time.process_time() - began
    yield Figure("CPU s, task, shuffled, control, intervals", spent, None if quick else SECONDS)
    yield Figure("CPU s, the slow loop, no intervals", slow_spent)
    task = found["score"].values[..., 0]
    yield Figure("largest difference of a score", float(abs(task - np.array(slow[0])).max()), 1e-6)
    for name, labels, scores in zip(("shuffled", "control"), label_sets[1:], slow[1:], strict=True):
        wanted = ((np.array(scores) > 0) == labels).astype(float)
        off = float(abs(found["right"].sel(of=name).values - wanted).max())
        yield Figure(f"decisions that differ, {name}", off, 0)
    began = time.process_time()
    description_length(acts, given)
    yield Figure("CPU s, online codes", time.process_time() - began)
    began = time.process_time()
    best_layers(found)
    yield Figure("CPU s, all pairs of layers compared", time.process_time() - began)


def planted(quick: bool) -> Iterator[Figure]:
    """A class that begins at a layer is located there; shuffled labels stay at the majority."""
    n_layers, n_prompts = (4, 120) if quick else (12, 200)
    for at in (1, n_layers // 2, n_layers - 1):
        acts, given = residual_like(n_layers, n_prompts, 48, at)
        found = probe_layers(acts, given)
        first = min(best_layers(found).attrs["as_good"])
        yield Figure(f"planted in layer {at}: layers off", abs(first - at), 1)
        shuffled = found["mean"].sel(of="shuffled", measure="balanced_accuracy")
        yield Figure("  shuffled labels off 1/2 by at most", float(abs(shuffled - 0.5).max()), 0.12)


def careless(quick: bool) -> Iterator[Figure]:
    """No standardisation and 100 steps, beside ours, where scales are far apart."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = rng.normal(size=(400, 64))
    x[:, :8] += 1.5 * y[:, None]
    x *= 10.0 ** np.linspace(-3, 3, 64)
    given = Labelled.of([f"text {i}" for i in range(400)], y.tolist())
    found = probe_layers(xr.DataArray(x[None], dims=("layer", "prompt", "feature")), given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        cut = PredefinedSplit(found["fold"].values)
        said = cross_val_predict(LogisticRegression(max_iter=100), x, y, cv=cut)
    yield Figure("accuracy, careless", float((said == y).mean()), 0.65)
    ours = float(found["mean"].sel(of="task", measure="accuracy")[0])
    yield Figure("accuracy, standardised and converged", ours, 0.95, at_most=False)


def on_disk(quick: bool) -> Iterator[Figure]:
    """Activations in a file and in memory are the same numbers."""
    rng = np.random.default_rng(0)
    for name, original in tiny_models().items():
        model = load_model(original)
        ids = [rng.integers(1, 20, rng.integers(3, 9)).tolist() for _ in range(300)]
        prompts = Prompts.from_ids(ids)
        with tempfile.TemporaryDirectory() as folder:
            kept = gather(model, prompts, out=folder).values
            off = float(abs(kept - gather(model, prompts).values).max())
        yield Figure(f"{name}: largest difference", off, 0)
        if quick:
            return


def _obvious(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    cut = PredefinedSplit(folds)
    return np.asarray(cross_val_predict(pipeline, x, y, cv=cut, method="decision_function"))


if __name__ == "__main__":
    main()
