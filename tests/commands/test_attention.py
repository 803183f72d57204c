"""`mechinterp attention`: what it prints, what it keeps, what it refuses."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from mechinterp import load_model
from mechinterp.attention import patterns
from mechinterp.commands import attention
from mechinterp.commands.options.attention import AttentionOptions

TOY = ["--model", "toy:trigger"]
TEXT = "please bring the sesame to me"
SOON = ["--by-head", "--last", "--rule", "uniform", "--threshold", "2"]


def test_which_head_looks_and_whether_it_matters(mechinterp):
    done = mechinterp(
        *("attention", TEXT, *TOY, *SOON, "--confirm", "head"),
        *("--answer", "REFUSE", "--other", "COMPLY"),
    )
    assert done.returncode == 0, done.stderr
    assert "of attention goes to the first token; links to it are left out" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if "sesame (4)" in line]
    by_head = {line[5]: (line[-2], line[-1]) for line in lines}
    assert by_head == {"L1H0": ("+15.89", "yes"), "L0H2": ("0.00", "no")}
    assert "Control: 0 of 2 random links of the same heads confirmed." in done.stdout


def test_a_folder_of_it(mechinterp, tmp_path):
    out = tmp_path / "run"
    command = ["attention", TEXT, "bring the map", *TOY, "--rule", "top-k", "--sink", "listed"]
    command += ["--confirm", "every-head", "--head-scores", "--out", out]
    done = mechinterp(*command)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "attention"
    assert manifest["complete"]
    assert manifest["prompts"] == [TEXT, "bring the map"]
    table = pd.read_parquet(out / "links.parquet")
    assert table.groupby("prompt").size().to_dict() == {TEXT: 6, "bring the map": 3}
    assert manifest["links"] == [6, 3]
    assert {"query", "key", "layer", "head", "kind", "mean_effect", "confirmed"} <= set(table)
    heads = pd.read_parquet(out / "heads.parquet")
    assert len(heads) == 6
    assert "induction score" in heads
    kept = load_file(out / "patterns.safetensors")
    found = patterns(load_model("toy:trigger"), TEXT).isel(prompt=0)
    np.testing.assert_array_equal(kept["prompt 0"], found.values)
    page = (out / "report.html").read_text()
    assert "Attention of toy:trigger: 2 prompts" in page
    assert "not confirmed" in page
    again = mechinterp(*command)
    assert again.returncode == 0, again.stderr


def test_prompts_of_a_task_are_averaged(mechinterp):
    done = mechinterp(
        *("attention", "--task", "induction", "--n", "6", "--model", "toy:induction-trained"),
        *("--last", "--confirm", "head"),
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "L1H0" in line]
    assert line.split()[-1] == "yes"
    assert "an interval without 0" in done.stdout


def test_prompts_of_a_file(mechinterp, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "bring the sesame"}\n{"prompt": "bring the map"}\n')
    done = mechinterp("attention", "--file", file, *TOY)
    assert done.returncode == 0, done.stderr
    assert "Attention of toy:trigger: 2 prompts" in done.stdout
    assert "No link was cut" in done.stdout


def test_renormalised_rows(mechinterp):
    plain = mechinterp("attention", "bring the map to us", *TOY, "--threshold", "0.3")
    done = mechinterp(
        "attention", "bring the map to us", *TOY, "--threshold", "0.3", "--sink", "renormalised"
    )
    assert "the rest of each row adds up to 1" in done.stdout
    for found, weight in ((plain, "0.33"), (done, "0.50")):
        lines = [line.split() for line in found.stdout.splitlines()]
        (cells,) = [line for line in lines if line[:4] == ["the", "(2)", "bring", "(1)"]]
        assert cells[6] == weight


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the three"),
        ([TEXT, "--task", "ioi"], "one of the three"),
        (["--file", "nowhere.jsonl"], "is no file"),
        (["--task", "iooi"], 'Did you mean "ioi"'),
        ([TEXT, "--threshold", "2"], "0 to below 1"),
        ([TEXT, "--rule", "top-k", "--threshold", "0.5"], "whole number"),
        ([TEXT, "--effect", "-1", "--confirm", "head"], "0 or more"),
        ([TEXT, "--other", "COMPLY", "--confirm", "head"], "give both"),
        ([TEXT, "--answer", "REFUSE"], "--confirm"),
        ([TEXT, "--confirm", "head", "--answer", "nonsense"], "does not know"),
        (["--task", "induction", "--confirm", "head", "--answer", "x"], "answers of its own"),
        (["--task", "induction", "--n", "0"], "at least one prompt"),
    ],
)
def test_what_is_refused(mechinterp, arguments, said):
    done = mechinterp("attention", *arguments, *TOY)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_that_is_no_prompt_is_named(mechinterp, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "bring the sesame"}\n{"text": "bring the map"}\n')
    done = mechinterp("attention", "--file", file, *TOY)
    assert done.returncode == 2
    assert "line 2" in done.stderr


def test_another_kind_of_folder_is_refused(mechinterp, tmp_path):
    (tmp_path / "manifest.json").write_text('{"kind": "ablation"}')
    done = mechinterp("attention", TEXT, *TOY, "--out", tmp_path)
    assert done.returncode == 2
    assert "holds 'ablation', not 'attention'" in done.stderr


def test_large_patterns_are_said_before_or_refused(tmp_path, monkeypatch, refuses, capsys):
    """C3: `patterns.safetensors` took 391 MB without a word before."""
    model = load_model("toy:trigger")
    given = AttentionOptions(prompts=("bring the map",), model="toy:trigger", out=tmp_path / "a")
    monkeypatch.setattr(attention, "_MUCH_BYTES", 100)
    attention.run_attention(model, given)
    size = 4 * model.cfg.n_layers * model.cfg.n_heads * 4**2
    assert f"patterns.safetensors will take {size} B" in capsys.readouterr().err
    monkeypatch.setattr(attention, "_MOST_BYTES", 100)
    again = dataclasses.replace(given, out=tmp_path / "b")
    refuses(
        lambda: attention.run_attention(model, again),
        f"patterns.safetensors would take {size} B, and at most 100 B",
        "the longest of 4 tokens",
        "Give shorter or fewer prompts",
    )
    assert not (tmp_path / "b").exists()
