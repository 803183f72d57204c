"""What `patch` and `ablate` were asked: its cost, its positions, and what does not fit a model."""

from dataclasses import replace

import pytest
from pyarrow import parquet

from mechinterp.patching.activation import patch_heads_by_position
from mechinterp.tasks import TASKS

TOY = ("--model", "toy:induction-trained")
INDUCTION = ("--task", "induction", *TOY, "--n", "6")


def test_a_plan_tells_the_cost_and_runs_nothing(mechinterp, tmp_path, monkeypatch, toy, asked):
    out = tmp_path / "run"
    found = patch_heads_by_position(toy, asked.pair, asked.metric)
    monkeypatch.setattr("mechinterp.sweeps.job.forward", None)
    monkeypatch.setattr("mechinterp.engine.runner.forward", None)
    done = mechinterp("patch", *INDUCTION, "--what", "heads-by-position", "--plan", "--out", out)
    assert done.returncode == 0, done.stderr
    arms, passes, cost = (f"{found.attrs[k]:,}" for k in ("arms", "passes", "token_layers"))
    assert done.stdout.startswith(
        f"{arms} arms (0 repeat another) in {passes} passes: {cost} token"
    )
    assert not out.exists()
    assert mechinterp("ablate", *INDUCTION, "--what", "layers", "--plan").stdout.startswith(
        "2 arms"
    )
    screened = mechinterp("patch", *INDUCTION, "--plan", "--screen", "1")
    assert "--screen 1: so many of these arms run" in screened.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("patch", *INDUCTION, "--layers", "0-2"), "layer 2 is out of range: layers 0 to 1"),
        (("patch", *INDUCTION, "--what", "neurons", "--layer", "2"), "layer 2 is out of range"),
        (("patch", *INDUCTION, "--what", "neurons", "--layer", "1"), "no blocks.1.mlp.hook_post"),
        (("patch", *INDUCTION, "--what", "resid_mid"), "this model has no blocks.0.hook_resid_mid"),
        (("ablate", *INDUCTION, "--what", "neurons", "--layer", "0"), "this model has no"),
        (("patch", *INDUCTION, "--positions", "ned"), "Named are end, first, induction; or give"),
        (("patch", *INDUCTION, "--positions", "20"), "position 20 lies outside"),
        (("patch", *INDUCTION, "--positions", ","), "--positions: none is given"),
        (("patch", "--task", "ioi", *TOY), "names"),
        (("patch", *INDUCTION, "--screen", "3"), "there are 2 cells"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(mechinterp, arguments, said):
    done = mechinterp(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2  # and that the model was loaded
    assert done.stdout == ""


def test_a_position_may_have_a_comma_in_its_name(mechinterp, tmp_path, monkeypatch):
    def renamed(model, n, seed):
        made = TASKS["induction"](model, n, seed)
        sides = (
            p.named(**{",_B": 3, "B": 4, "B+1": 5}) for p in (made.pair.clean, made.pair.corrupt)
        )
        return replace(made, pair=type(made.pair)(*sides))

    monkeypatch.setattr("mechinterp.commands.prompt_request.TASKS", {"renamed": renamed})
    command = ("patch", "--task", "renamed", *TOY, "--n", "2", "--what", "resid_pre")
    mechinterp(*command, "--positions", "B+1,,_B,end,7", "--out", tmp_path / "run")
    assert set(parquet.read_table(tmp_path / "run/values.parquet")["pos"].to_pylist()) == {
        "B+1",
        ",_B",
        "end",
        "7",
    }
