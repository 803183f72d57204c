"""Controls keep what they should keep of the labels, and break what they should break."""

from collections import Counter

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from mechinterp import Prompts, Site, read, run
from mechinterp.probing import (
    bag_of_tokens,
    control_labels,
    grouped_folds,
    majority,
    random_weights,
    shuffled_labels,
    word_types,
)


@given(st.integers(0, 500))
def test_shuffles_keep_the_labels_and_the_likeness_of_families(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(30), 3)
    by_family = rng.permutation(np.arange(30) % 2)[groups]
    folds = grouped_folds(by_family, groups, seed=seed)
    found = shuffled_labels(by_family, groups, folds, seed)
    assert np.bincount(found).tolist() == np.bincount(by_family).tolist()
    assert (found == found[groups * 3]).all()  # a family has one label still
    mixed = rng.permutation(by_family)
    freely = shuffled_labels(mixed, groups, folds, seed)
    assert np.bincount(freely).tolist() == np.bincount(mixed).tolist()
    assert (freely != mixed).any()


@given(st.integers(0, 500), st.integers(2, 3))
def test_a_control_is_one_label_a_type_and_as_frequent(seed, n_classes):
    rng = np.random.default_rng(seed)
    types, y = rng.integers(0, 40, 400).tolist(), np.arange(400) % n_classes
    found = control_labels(types, y, seed)
    assert all(len(set(found[np.array(types) == kind])) == 1 for kind in set(types))
    assert abs(np.bincount(found) / 400 - 1 / n_classes).max() < 0.12
    assert (found == control_labels(types, y, seed)).all()


def test_types_that_are_too_few_are_refused(refuses):
    y = np.array([0, 1, 0, 1])
    refuses(lambda: control_labels(["a"] * 4, y, 0), "1 types for 2 classes", kind=ValueError)
    rare = np.array([0] * 9 + [1])
    folds = np.arange(10) % 2
    refuses(
        lambda: shuffled_labels(rare, np.arange(10), folds, 0),
        "in each of 50 draws the training prompts of some fold lacked a class",
        kind=ValueError,
    )


def test_the_majority_is_that_of_the_training_folds():
    rng = np.random.default_rng(0)
    for n_classes in (2, 3):
        y = rng.choice(n_classes, 60, p=[0.6, 0.4] if n_classes == 2 else [0.2, 0.5, 0.3])
        folds = np.arange(60) % 5
        said = cross_val_predict(
            DummyClassifier(strategy="most_frequent"), y[:, None], y, cv=PredefinedSplit(folds)
        )
        assert majority(y, folds).right[0].tolist() == (said == y).astype(float).tolist()


def test_words_that_give_it_away_are_found_by_the_bag():
    rng = np.random.default_rng(0)
    ids, y = rng.integers(5, 40, (60, 9)), np.arange(60) % 2
    ids[np.arange(60), rng.integers(0, 9, 60)] = np.where(y, 50, 51)
    folds = np.arange(60) % 5
    assert bag_of_tokens(Prompts.from_ids(ids.tolist()), y, folds).right.mean() > 0.95
    ordered = Prompts.from_ids([[7, 8] if label else [8, 7] for label in y])  # order alone
    assert bag_of_tokens(ordered, y, folds).right.mean() <= 0.5
    template = [["template"] * 9] * 60  # what the template says is not the user's word
    hidden = Prompts.from_ids(ids.tolist(), roles=template)
    assert bag_of_tokens(hidden, y, folds).right.mean() < 0.7


def test_random_weights_are_the_same_numbers_elsewhere(model, snapshot):
    before = snapshot(model)
    copied = random_weights(model, seed=1)
    before.check()
    for (name, own), (other, drawn) in zip(
        model.named_parameters(), copied.named_parameters(), strict=True
    ):
        assert name == other
        assert Counter(own.flatten().tolist()) == Counter(drawn.flatten().tolist())
    site = Site("resid_post", 2)
    tokens = torch.tensor([[3, 1, 4, 1]])
    one, two = (run(m, tokens, read(site)).acts[site] for m in (model, copied))
    assert not torch.allclose(one, two, atol=0.1)


def test_types_are_read_where_they_recur():
    ids = [[1, 10 + i % 5, 100 + i] for i in range(20)]  # the same, five words, all different
    prompts, groups = Prompts.from_ids(ids), np.arange(20)
    types, said = word_types(prompts, groups, "end")
    assert types == [10 + i % 5 for i in range(20)]
    assert said == "token 1 of the text: 5 types, 100% of prompts share theirs"
    together = np.arange(20) % 5  # each word in one group alone: nothing to learn by heart
    assert word_types(prompts, together, "end") is None
