"""`mechinterp attribute` beyond one token at a time: units, methods, faithfulness, files."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest

from mechinterp import attribute_by_level, load_model
from mechinterp.attribution.methods.by_name import METHODS
from mechinterp.attribution.question.removals import REMOVALS
from mechinterp.attribution.tables import from_json
from mechinterp.commands import attribution as attribution_runs
from mechinterp.commands.attribution import attribute_prompt
from mechinterp.commands.options.attribution import AttributeOptions, MethodName, RemovalName
from mechinterp.storage.run_folder import read_manifest

TWICE = ("attribute", "the sesame and some sesame", "--model", "toy:trigger", "--outputs", "1")


def test_the_options_name_every_method_and_removal():
    assert get_args(MethodName) == tuple(METHODS)
    assert get_args(RemovalName) == tuple(REMOVALS)


def test_pairs_find_what_stands_in_and_are_kept(mechinterp, tmp_path):
    done = mechinterp(*TWICE, "--method", "pairs", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "stand in for each other" in done.stdout
    assert "RedundancyWarning" not in done.stderr
    kept = from_json((tmp_path / "interactions.json").read_text())
    assert kept["score"].values.round()[0, 1:].tolist() == [0, 4, 0, 0, 4]
    assert read_manifest(tmp_path)["groups"][0]["units"] == [2, 5]
    assert "stand in for each other" in (tmp_path / "report.html").read_text()


def test_one_at_a_time_says_what_it_misses(mechinterp):
    done = mechinterp(*TWICE)
    assert re.search(r"redundancy: Something stands in for what is removed", done.stdout)


def test_two_methods_and_their_faithfulness(mechinterp, tmp_path):
    done = mechinterp(
        *TWICE, "--method", "kernel_shap", "--subsets", "20", "--beside", "integrated_gradients",
        "--faithfulness", "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"lds@0.5", done.stdout)
    kept = from_json((tmp_path / "faithfulness.json").read_text())
    assert kept["scorer"].values.tolist() == [
        *("kernel_shap", "integrated_gradients"),
        *("random", "shuffled"),
    ]
    assert from_json((tmp_path / "beside.json").read_text()).attrs["method"] == (
        "integrated gradients"
    )


def test_spans_and_words(mechinterp):
    done = mechinterp(*TWICE, "--spans", "trigger=sesame,first=the")
    assert re.search(r"trigger .*\+8", done.stdout)
    assert mechinterp(*TWICE, "--units", "word").returncode == 0


def test_a_span_may_have_a_line_of_its_own(mechinterp, prompts):
    asked = ("attribute", "--file", prompts, "--model", "toy:trigger", "--outputs", "1")
    done = mechinterp(*asked, "--units", "span")
    assert done.returncode == 0, done.stderr
    assert re.search(r"trigger: \+8.00", done.stdout)
    assert "1 not compared: every attributed input is expected" in done.stdout


def test_another_attribution_does_not_take_the_place_of_one(mechinterp, tmp_path):
    assert mechinterp(*TWICE, "--out", tmp_path).returncode == 0
    assert mechinterp(*TWICE, "--out", tmp_path).returncode == 0
    before = (tmp_path / "scores.json").read_bytes()
    for more in (["--method", "pairs"], ["--units", "word"]):
        done = mechinterp(*TWICE, *more, "--out", tmp_path)
        assert done.returncode == 2
        assert "holds another result, of '<bos>thesesameandsomesesame'" in done.stderr
    assert (tmp_path / "scores.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused_first(mechinterp):
    done = mechinterp(*TWICE, "--out", "/proc/nowhere")
    assert done.returncode == 2
    assert "--out /proc/nowhere cannot be made" in done.stderr
    assert done.stdout == ""


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mechinterp", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("mechinterp ")


def test_levels(mechinterp, tmp_path):
    done = mechinterp(*TWICE, "--units", "levels", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"coarse.json", "scores.json", "report.html"} <= {f.name for f in tmp_path.iterdir()}


def test_what_is_expected_where_nothing_was_opened_loses_nothing(monkeypatch):
    halves = {"first": (1, 4), "second": (5, 8)}  # the toy knows no sentences
    by_halves = partial(attribute_by_level, levels=(halves, "word"))
    monkeypatch.setattr(attribution_runs, "attribute_by_level", by_halves)
    asked = AttributeOptions("please bring me the sesame and the map", units="levels", outputs=1)
    with pytest.warns(UserWarning, match="--expect was not compared: expected 'please'"):
        found = attribute_prompt(load_model("toy:trigger"), replace(asked, expect="please"))
    assert len(found.scores) == 2
    with pytest.raises(ValueError, match="expected 'bread' is not among"):
        attribute_prompt(load_model("toy:trigger"), replace(asked, expect="bread"))


def test_direct_attribution_of_a_contrast(mechinterp):
    done = mechinterp(*TWICE, "--method", "direct", "--contrast", "REFUSE", "COMPLY")
    assert done.returncode == 0, done.stderr
    assert "Metric: logit_diff" in done.stdout


def test_whole_answers(mechinterp):
    done = mechinterp(*TWICE[:-2], "--continuation", "REFUSE", "--metric", "sequence_log_odds")
    assert "sequence_log_odds" in done.stdout


def test_the_last_positions(mechinterp):
    done = mechinterp(*TWICE[:-2], "--last", "2")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"The scores add up|could add up to", done.stdout)) == 2


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "please bring the sesame", "spans": {"trigger": "sesame"}, "expect": ["sesame"]},
        {"prompt": "the sesame to me", "spans": {"trigger": "sesame"}, "expect": ["me"]},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_a_file_of_prompts(mechinterp, prompts, tmp_path):
    asked = ("attribute", "--file", prompts, "--model", "toy:trigger", "--outputs", "1")
    done = mechinterp(*asked, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert re.search(r"0 +'sesame' \+8.00 nats", done.stdout)
    assert re.search(r"1 +'sesame' .* nats, for 'REFUSE'  not as expected", done.stdout)
    assert "1 as expected" in done.stdout
    assert "1 not as expected" in done.stdout
    assert re.search(r"trigger: \+8.00 \[\+?\d.\d\d, \+8.00\] of 2 prompts", done.stdout)
    assert len(list((tmp_path / "out" / "prompts").glob("part-*"))) == 2
    again = mechinterp(*asked, "--out", tmp_path / "out")
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["attribute", "--model", "toy:trigger"], "give either a prompt or --file"),
        (["attribute", "--file", "nowhere.jsonl"], "--file nowhere.jsonl is no file"),
        ([*TWICE, "--units", "levels", "--faithfulness"], "--faithfulness goes with one prompt"),
        ([*TWICE, "--units", "levels", "--method", "pairs"], "--method pairs does not go with"),
        ([*TWICE, "--spans", "trigger"], "write name=text"),
        ([*TWICE, "--spans", "a=the", "--units", "word"], "leave out --units word"),
        ([*TWICE, "--spans", "a=the,a=and"], "a is there twice"),
        ([*TWICE, "--metric", "kl", "--contrast", "REFUSE", "COMPLY"], "leave out --metric kl"),
        ([*TWICE, "--spans", "a=bread"], "span 'a': 'bread' is not among"),
        ([*TWICE, "--units", "span"], "--units span: name them"),
        ([*TWICE, "--spans", "a=the, and"], "A text with a comma"),
        ([*TWICE, "--expect", " ,"], "--expect is empty"),
        ([*TWICE, "--expect", "the,sesame,and,some"], "every attributed input is expected"),
        ([*TWICE, "--expect", "bread"], "expected 'bread' is not among"),
        (
            [*TWICE, "--continuation", "REFUSE"],
            "--outputs and --continuation each say what is explained",
        ),
        (
            [*TWICE, "--method", "direct", "--metric", "prob"],
            "direct takes a logit apart, not prob",
        ),
        ([*TWICE, "--method", "rollout", "--metric", "kl"], "rollout measures attention alone"),
        ([*TWICE, "--method", "gradient", "--removal", "mean"], "gradient remove nothing"),
        ([*TWICE, "--subsets", "7"], "--subsets is for kernel_shap and surrogate, not single"),
        ([*TWICE, "--method", "pairs", "--seed", "7"], "nothing is drawn by pairs"),
        ([*TWICE, "--beside", "single"], "--beside single is the method itself"),
        ([*TWICE, "--contrast", "REFUSE", "REFUSE"], "with itself is always 0"),
        ([*TWICE, "--contrast", "REFUSE", "zebra"], "does not know a word of 'zebra'"),
        ([*TWICE, "--last", "2"], "--outputs and --last each say what is explained"),
        ([*TWICE[:-2], "--last", "0"], "--last 0: ask for at least one"),
        ([*TWICE[:-2], "--continuation", "zebra"], "does not know a word of 'zebra'"),
        (["attribute", "bring", *TWICE[2:], "--method", "pairs"], "only 'bring' is attributed"),
        ([*TWICE, "--metric", "refusal"], "the token '<unk>' opens a refusal and an answer"),
    ],
)
def test_errors_are_one_line(mechinterp, arguments, said):
    done = mechinterp(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
