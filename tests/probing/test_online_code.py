"""The online code beside one written out, and what it says of labels that are there and not."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mechinterp.probing import Labelled, control_labels, description_length


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_code_written_out(n_classes, acts_of):
    rng = np.random.default_rng(0)
    n = 300
    given = Labelled.of([f"text {i}" for i in range(n)], (np.arange(n) % n_classes).tolist())
    x = rng.normal(size=(2, n, 6))
    x[1, :, 0] += 2 * given.y
    found = description_length(acts_of(x), given, seed=5)
    place = np.random.default_rng([5, 2]).permutation(n)
    order = np.argsort(place)
    ends = found.attrs["blocks"]
    y = given.y[order]
    for layer in range(2):
        bits = ends[0] * np.log2(n_classes)
        for begin, end in itertools.pairwise(ends):
            seen = StandardScaler().fit_transform(x[layer])[order]
            p = (
                LogisticRegression(C=0.1, max_iter=1000)
                .fit(seen[:begin], y[:begin])
                .predict_proba(seen[begin:end])
            )
            bits -= np.log2(p[np.arange(end - begin), y[begin:end]]).sum()
        assert float(found["bits"][layer]) == pytest.approx(bits, rel=1e-6)
        assert float(found["compression"][layer]) == pytest.approx(n * np.log2(n_classes) / bits)
    assert ends[-3:] == [75, 150, 300]


def test_what_is_there_takes_few_bits_and_control_labels_many(plant):
    acts, given = plant(n_prompts=240, strength=6.0)
    own = description_length(acts, given)["compression"]
    types = [f"word {i % 24}" for i in range(240)]
    control = description_length(acts, given, control_labels(types, given.y, 0))["compression"]
    assert (own[3:] > 3).all()
    assert (own[:3] < 1.05).all()
    assert (control < 1.05).all()


def test_groups_are_not_cut(plant, acts_of):
    acts, given = plant(n_prompts=120, per_group=8)
    ends = description_length(acts, given).attrs["blocks"]
    assert all(end % 8 == 0 for end in ends)
    assert ends == sorted(set(ends))
