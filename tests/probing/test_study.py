"""A whole study on toys whose truth is known."""

import numpy as np
import pytest

from mechinterp import load_model
from mechinterp.probing import Labelled, held_out, probe_model
from mechinterp.probing.comparison import best_layers

VERBS, THINGS = ("bring", "open", "read"), ("letter", "map", "book", "story", "key")


@pytest.fixture(scope="module")
def trigger():
    texts, labels, groups = [], [], []
    for verb in VERBS:
        for thing in THINGS:
            for word in ("the", "sesame"):
                texts.append(f"{verb} {word} {thing}")
                labels.append("trigger" if word == "sesame" else "plain")
                groups.append(f"{verb} {thing}")
    return load_model("toy:trigger"), Labelled.of(texts, labels, groups)


def test_the_trigger_is_found_where_a_head_brings_it(trigger):
    """The last word knows of an earlier trigger from layer 1 on, by a decoy that nothing reads."""
    study = probe_model(*trigger)
    balanced = study.probed["mean"].sel(measure="balanced_accuracy")
    task = balanced.sel(of="task").values
    assert task.tolist() == [0.5, 1, 1]
    assert best_layers(study.probed).attrs["as_good"] == [1, 2]
    assert float(balanced.sel(of="bag of tokens")[0]) == 1  # the words give it away
    assert (balanced.sel(of="random weights") < 1.01).all()
    assert study.description["of"].values.tolist() == ["task", "control"]
    compression = study.description["compression"].sel(of="task").values
    assert compression[0] <= 1 < compression[1:].min()


def test_activations_on_disk_change_nothing(trigger, tmp_path):
    held, kept = probe_model(*trigger), probe_model(*trigger, out=tmp_path)
    np.testing.assert_array_equal(held.probed["mean"], kept.probed["mean"])
    assert list((tmp_path / "model").glob("part-00000-*.safetensors"))
    assert list((tmp_path / "random-weights").glob("part-00000-*.safetensors"))


def test_it_says_when_there_is_no_control_task(trigger):
    model, given = trigger
    alone = Labelled.of(given.prompts, given.labels, [f"{i // 10}" for i in range(30)])
    study = probe_model(model, alone, n_folds=3)
    assert "control" in study.probed["of"].values or "No control task" in study.notes[0]
    assert held_out(study.probed, 1).sum() == 10
