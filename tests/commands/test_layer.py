"""`mechinterp layers`: figures by layer, a page, files; and what is refused."""

import json

import pandas as pd
import pytest

from mechinterp.layers import read_lens

TOY = ("--model", "toy:induction-trained", "--task", "induction", "--n", 6)


def test_figures_page_and_files(mechinterp, tmp_path):
    out = tmp_path / "run"
    done = mechinterp("layers", *TOY, "--out", out)
    assert done.returncode == 0, done.stderr
    for said in ("The answer first leads after", "writes the most", "without it"):
        assert said in done.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["kind"], manifest["complete"]) == ("layers", True)
    frame = pd.read_parquet(out / "layers.parquet")
    assert sorted(frame["layer"].unique()) == [0, 1, 2]
    assert len(frame) == 3 * 6
    last = frame[frame["layer"] == 2]
    assert (last["kl"].abs() < 1e-6).all()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 6
    assert "First choices of each layer" in page
    signs = "What a part writes is positive if it supports the answer"
    assert f"{signs}; the change without it is then negative." in page
    again = mechinterp("layers", *TOY, "--out", out)
    assert again.returncode == 0, again.stderr


def test_a_tuned_lens_is_trained_kept_and_shown_again(mechinterp, tmp_path):
    texts, out = tmp_path / "texts.txt", tmp_path / "run"
    texts.write_text("a b c d e f a b c d e f\nb c a d f e b c a d f e\n")
    done = mechinterp("layers", *TOY, "--train", texts, "--steps", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "tuned" in done.stdout
    file = out / "lens.safetensors"
    assert read_lens(file).weights.shape[0] == 2
    done = mechinterp("layers", *TOY, "--tuned", file, "--no-ablation")
    assert done.returncode == 0, done.stderr
    assert "without" not in done.stdout


def test_a_metric_that_is_no_sum(mechinterp, tmp_path):
    file = tmp_path / "pairs.jsonl"
    pair = {"clean": "bring the sesame", "corrupt": "bring the map", "answer": "REFUSE"}
    file.write_text(json.dumps(pair))
    done = mechinterp("layers", "--model", "toy:trigger", "--pairs", file)
    assert done.returncode == 0, done.stderr
    assert "log_prob is not a sum over parts" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tuned", "nowhere"], "is no file"),
        (["--steps", "-1"], "0 or more"),
        (["--tuned", __file__], "cannot be read as a tuned lens"),
        (["--tuned", __file__, "--train", __file__], "--tuned, a lens that is there, or --train"),
    ],
)
def test_what_is_refused(mechinterp, arguments, said):
    done = mechinterp("layers", *TOY, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
