import io
import json
import re
import subprocess
import sys

import pytest
from pyarrow import parquet

from mechinterp.storage.run_folder import read_manifest

TRIGGER = ["attribute", "please bring the sesame", "--model", "toy:trigger", "--outputs", "1"]


@pytest.mark.slow
def test_the_installed_command_runs_by_itself():
    done = subprocess.run(
        [sys.executable, "-m", "mechinterp.commands.cli", *TRIGGER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sesame" in done.stdout


def test_attribute_prints_the_table_and_the_verdict(mechinterp):
    done = mechinterp(*TRIGGER, "--expect", "sesame")
    assert done.returncode == 0, done.stderr
    assert re.search(r"sesame .*◆\s*\+8\.0", done.stdout)
    assert "AS EXPECTED" in done.stdout
    assert "NOT AS EXPECTED" not in done.stdout
    assert "\x1b[" not in done.stdout


def test_an_unmet_expectation_says_so(mechinterp):
    done = mechinterp(*TRIGGER, "--expect", "bring")
    assert "NOT AS EXPECTED" in done.stdout
    assert done.stdout.index("unexpected, yet above") < done.stdout.index("expected: rank")


def test_out_writes_a_whole_run(mechinterp, tmp_path):
    done = mechinterp(*TRIGGER, "--expect", "sesame", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "run")
    assert manifest["kind"] == "attribution"
    assert manifest["model"] == "toy:trigger"
    assert manifest["metric"] == "log_prob"
    assert manifest["expected"][0]["verdict"] == "as expected"
    assert re.fullmatch("[0-9a-f]{16}", manifest["fingerprint"])
    assert set(manifest["files"]) == {"report.html", "scores.parquet", "scores.json"}
    rows = parquet.read_table(
        io.BytesIO((tmp_path / "run/scores.parquet").read_bytes())
    ).to_pylist()
    best = max(rows, key=lambda row: row["score"])
    assert (best["input_token"], best["output_token"]) == ("sesame", "REFUSE")
    page = (tmp_path / "run/report.html").read_text()
    assert "sesame" in page
    assert json.loads((tmp_path / "run/manifest.json").read_text()) == manifest


def test_the_prompt_may_come_from_standard_input(mechinterp):
    done = mechinterp("attribute", "-", *TRIGGER[2:], stdin="please bring the sesame")
    assert "sesame" in done.stdout


def test_a_contrast_is_a_logit_difference(mechinterp):
    done = mechinterp(*TRIGGER, "--contrast", "REFUSE", "COMPLY")
    assert re.search(r"sesame .*\+15\.9", done.stdout)
    assert "logit_diff" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["attribute", "hello", "--model", "toy:trigr"], 'Did you mean "trigger"?'),
        (["attribute", "", "--model", "toy:trigger"], "prompt is empty"),
        ([*TRIGGER, "--expect", "bread"], "not among the attributed input tokens"),
        ([*TRIGGER, "--contrast", "REFUSE sesame", "COMPLY"], "is 2 tokens"),
        ([*TRIGGER, "--metric", "logit_diff"], "needs --contrast"),
        ([*TRIGGER, "--chat"], "no chat template"),
        ([*TRIGGER[:4], "--outputs", "0"], "ask for at least one"),
        (["attribute", "a b zebra", "--model", "toy:induction"], "does not tokenise"),
        (["describe", "./nowhere"], "is not a directory"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(mechinterp, arguments, said):
    done = mechinterp(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_out_that_is_a_file_is_refused_before_anything_runs(mechinterp, tmp_path):
    (tmp_path / "taken").write_text("")
    done = mechinterp(*TRIGGER, "--out", str(tmp_path / "taken"))
    assert done.returncode == 2
    assert "is a file" in done.stderr
    assert "loading" not in done.stderr


def test_models_lists_what_loads_without_a_network(mechinterp):
    done = mechinterp("models")
    assert {"smollm2", "toy:induction", "toy:trigger"} <= set(done.stdout.split())


def test_describe_says_what_switches_a_site_on(mechinterp):
    done = mechinterp("describe", "toy:induction")
    assert re.search(r"resid_pre .* on$", done.stdout, re.MULTILINE)
    assert re.search(
        r"q_input .* off: load_model\(..., split_qkv=True\)$", done.stdout, re.MULTILINE
    )


def test_help_names_every_command_and_version(mechinterp):
    done = mechinterp("--help")
    assert done.returncode == 0
    assert {"attribute", "patch", "ablate", "models", "describe"} <= set(
        re.findall(r"\w+", done.stdout)
    )
    assert mechinterp("--version").stdout.startswith("mechinterp 0.")
