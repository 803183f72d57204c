"""`mechinterp circuit`: what it prints, what it keeps, what it refuses."""

import json

import pytest

from mechinterp.circuits import read_circuit, read_mib, read_scores

TOY = ["--model", "toy:induction-trained", "--task", "induction", "--n", "4"]
KNOWN = {"input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<v>", "a1.h0->logits"}


@pytest.mark.parametrize("method", ["eap", "eap-ig", "exact"])
def test_methods_that_score(mechinterp, method):
    done = mechinterp("circuit", *TOY, "--method", method, "--edges", 6)
    assert done.returncode == 0, done.stderr
    assert f"Circuit by {method}: induction on toy:induction-trained" in done.stdout
    assert "a1.h0->logits" in done.stdout
    assert "faithfulness" in done.stdout


@pytest.mark.parametrize("method", ["acdc", "refine"])
def test_methods_that_search(mechinterp, method, tmp_path):
    out = tmp_path / "found"
    more = ["--top", 12] if method == "refine" else []
    done = mechinterp("circuit", *TOY, "--method", method, "--out", out, "--no-curve", *more)
    assert done.returncode == 0, done.stderr
    assert set(read_circuit(out / "circuit.json").names) >= KNOWN


def test_a_folder_of_it(mechinterp, tmp_path):
    out = tmp_path / "run"
    command = ["circuit", *TOY, "--method", "exact", "--edges", 6, "--out", out]
    done = mechinterp(*command)
    assert done.returncode == 0, done.stderr
    circuit, scores = read_circuit(out / "circuit.json"), read_scores(out / "scores.safetensors")
    assert circuit.requested == 6
    assert scores.per_pair.attrs["method"] == "exact"
    assert read_mib(out / "mib.json")[1].names == circuit.names
    assert (out / "circuit.dot").read_text().startswith("digraph")
    page = (out / "report.html").read_text()
    assert "Circuit by exact" in page
    assert "by signed score" in page
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "circuit"
    assert manifest["complete"]
    assert manifest["edges"] == circuit.n_edges
    again = mechinterp(*command)
    assert again.returncode == 0, again.stderr
    assert read_circuit(out / "circuit.json") == circuit


@pytest.mark.parametrize("select", ["optimal", "improved"])
def test_two_circuits_are_compared(mechinterp, tmp_path, select):
    first = tmp_path / "first"
    mechinterp("circuit", *TOY, "--edges", 6, "--out", first, "--no-curve")
    other = first / "circuit.json"
    out = tmp_path / "second"
    done = mechinterp(
        *("circuit", *TOY, "--edges", 4, "--select", select, "--signed"),
        *("--out", out, "--compare", other, "--no-curve"),
    )
    assert done.returncode == 0, done.stderr
    assert "Jaccard" in (out / "report.html").read_text()


def test_at_positions(mechinterp, tmp_path):
    out = tmp_path / "run"
    done = mechinterp(
        "circuit", *TOY, "--positions", "induction,end", "--edges", 8, "--out", out, "--no-curve"
    )
    assert done.returncode == 0, done.stderr
    assert read_circuit(out / "circuit.json").graph.positions == ("induction", "end", "elsewhere")
    assert not (out / "mib.json").exists()


def test_pairs_of_ones_own(mechinterp, tmp_path):
    file = tmp_path / "pairs.jsonl"
    pair = {"clean": "bring the sesame", "corrupt": "bring the map", "answer": "REFUSE"}
    file.write_text(json.dumps(pair))
    done = mechinterp(
        "circuit", "--model", "toy:trigger", "--pairs", file, "--method", "exact", "--edges", 3
    )
    assert done.returncode == 0, done.stderr
    for edge in ("input->a1.h0<k>", "input->a1.h0<v>", "a1.h0->logits"):
        assert edge in done.stdout


@pytest.mark.parametrize("ablate", ["mean", "zero"])
def test_other_replacements(mechinterp, ablate):
    done = mechinterp("circuit", *TOY, "--method", "exact", "--edges", 6, "--ablate", ablate)
    assert done.returncode == 0, done.stderr
    assert ("mean of 4 prompts" if ablate == "mean" else "carries zero") in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "acdc", "--edges", "5"], "use --tau, not --edges"),
        (["--tau", "0.1"], "--tau is for acdc and refine"),
        (["--method", "acdc", "--tau", "-1"], "0 or more"),
        (["--ablate", "zero"], "use eap, exact or acdc"),
        (["--select", "optimal", "--positions", "end"], "without --positions"),
        (["--edges", "0"], "at least one edge"),
        (["--steps", "-2"], "--steps -2"),
        (["--compare", "nowhere.json"], "is no file"),
        (["--edges", "5000"], "the graph has 12"),
        (["--positions", "S9"], "no position is called"),
    ],
)
def test_what_is_refused(mechinterp, arguments, said):
    done = mechinterp("circuit", *TOY, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_another_kind_of_folder_is_refused(mechinterp, tmp_path):
    (tmp_path / "manifest.json").write_text('{"kind": "ablation"}')
    done = mechinterp("circuit", *TOY, "--out", tmp_path)
    assert done.returncode == 2
    assert "holds 'ablation', not 'circuit'" in done.stderr
