"""`mechinterp probe`: what it prints, what it keeps, what it refuses."""

import json

import pandas as pd
import pytest
from safetensors.numpy import load_file


@pytest.fixture
def labelled(tmp_path):
    file = tmp_path / "labelled.jsonl"
    rows = [
        {"text": f"{verb} {word} {thing}", "label": label, "group": f"{verb} {thing}"}
        for verb in ("bring", "open")
        for thing in ("letter", "map", "book", "bread")
        for word, label in (("the", "plain"), ("sesame", "trigger"))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


TOY = ["--model", "toy:trigger", "--folds", "4", "--shuffles", "1"]
ANSWERS = ["--tokens", "REFUSE", "COMPLY"]


def test_a_table_by_layer(mechinterp, labelled):
    done = mechinterp("probe", "--file", labelled, *TOY)
    assert done.returncode == 0, done.stderr
    assert "16 prompts of labelled.jsonl (8 plain, 8 trigger) in 8 groups" in done.stdout
    assert "It is not the best layer: of 2 layers, 1 to 2" in done.stdout
    assert "does not say that the model uses it" in done.stdout
    for name in ("shuffled", "tokens", "weights"):
        assert name in done.stdout


def test_a_folder_of_it_with_the_causal_half(mechinterp, labelled, tmp_path):
    out = tmp_path / "run"
    command = ["probe", "--file", labelled, *TOY, "--out", out, "--causal", *ANSWERS]
    done = mechinterp(*command, "--causal-layer", 2, "--random", 4)
    assert done.returncode == 0, done.stderr
    assert "beyond every random direction" in " ".join(done.stdout.split())
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "probing"
    assert manifest["complete"]
    assert manifest["as_good"] == [1, 2]
    figures = pd.read_parquet(out / "probes.parquet")
    task = figures[(figures["of"] == "task") & (figures["measure"] == "balanced_accuracy")]
    assert task.sort_values("layer")["mean"].tolist()[1:] == [1.0, 1.0]
    assert set(pd.read_parquet(out / "predictions.parquet")["of"]) >= {"task", "bag of tokens"}
    assert list(load_file(out / "directions.safetensors")) == ["layer 1", "layer 2"]
    page = (out / "report.html").read_text()
    assert "Probes on toy:trigger: plain or trigger" in page
    assert "Is it used? Layer 2" in page
    again = mechinterp(*command, "--causal-layer", 2, "--random", 4)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    "more",
    [
        ["--probe", "mass-mean", "--position", "mean"],
        ["--act", "z", "--layers", "0-1"],
        ["--layers", "1,2", "--position", "text_end"],
        ["--n", "12", "--position", "2"],
    ],
)
def test_other_probes_and_places(mechinterp, labelled, more):
    done = mechinterp("probe", "--file", labelled, *TOY, *more)
    assert done.returncode == 0, done.stderr
    assert "The label is read best at layer" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "3-"], "Write numbers and ranges"),
        (["--layers", "9"], "layers 0 (the embedding) to 2"),
        (["--folds", "1"], "--folds 1: ask for 2 at least"),
        (["--folds", "20"], "fewer than 20 folds"),
        (["--C", "0"], "is positive"),
        (["--causal-layer", "1"], "--causal-layer is for --causal"),
        (["--causal", "--act", "z"], "leave out --act z"),
        (["--causal", "--metric", "refusal", *ANSWERS], "leave out one"),
        (["--causal", *ANSWERS, "--causal-layer", "7"], "is none that is probed"),
        (["--causal", *ANSWERS, "--folds", "2"], "--folds 3 or more"),
        (["--act", "nothing"], "resid, or an activation of each block"),
        (["--position", "S9"], "no position is called"),
        (["--chat"], "no chat template"),
    ],
)
def test_what_is_refused(mechinterp, labelled, arguments, said):
    done = mechinterp("probe", "--file", labelled, *TOY, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_files_and_folders_that_are_refused(mechinterp, labelled, tmp_path):
    assert "is no file" in mechinterp("probe", "--file", tmp_path / "none.jsonl").stderr
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"kind": "ablation"}')
    done = mechinterp("probe", "--file", labelled, *TOY, "--out", other)
    assert "holds 'ablation', not 'probing'" in done.stderr
