"""Activations in which the truth is known: a class planted from a layer on, scales far apart."""

import numpy as np
import pytest
import xarray as xr

from mechinterp.probing import Labelled


def planted(n_layers=6, n_prompts=120, n_features=17, at=3, strength=4.0, per_group=2, seed=0):
    """Noise; from layer `at` on the class along one random direction. Groups hold both classes."""
    rng = np.random.default_rng(seed)
    labels = ["no", "yes"] * (n_prompts // 2)
    groups = [f"g{i // per_group}" for i in range(n_prompts)]
    given = Labelled.of([f"text {i}" for i in range(n_prompts)], labels, groups)
    x = rng.normal(size=(n_layers, n_prompts, n_features))
    along = rng.normal(size=n_features)
    x[at:] += strength * given.y[:, None] * along / np.linalg.norm(along)
    return as_acts(x), given


def as_acts(x):
    return xr.DataArray(np.asarray(x), dims=("layer", "prompt", "feature"))


@pytest.fixture
def plant():
    return planted


@pytest.fixture
def acts_of():
    return as_acts
