"""The commands `patch` and `ablate`, in this process, on a toy whose mechanism is known."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet

from mechinterp import load_model, run, task
from mechinterp.ablation.single import ablate_heads, ablate_layers, ablate_neurons, ablate_positions
from mechinterp.engine.replacements import mean_of, resample_from
from mechinterp.patching.activation import (
    patch_heads,
    patch_heads_by_position,
    patch_outputs,
    patch_residual,
)
from mechinterp.storage.run_folder import read_manifest
from mechinterp.sweeps.progress import progress_bar
from mechinterp.sweeps.resumable import read_sweep
from mechinterp.tasks import TASKS, Finding
from mechinterp.tasks.definition import heads as head_sites
from mechinterp.tasks.pair_files import read_pairs

TOY = ("--model", "toy:induction-trained")
INDUCTION = ("--task", "induction", *TOY, "--n", "6")
END = ("end", "induction")


@pytest.fixture
def pairs(tmp_path):
    """Three pairs for toy:trigger; in the last one clean and corrupt are the same."""
    file = tmp_path / "pairs.jsonl"
    each = [("sesame", "letter"), ("sesame", "map"), ("book", "book")]
    lines = [
        {
            "clean": f"please bring the {clean}",
            "corrupt": f"please bring the {corrupt}",
            "answer": "REFUSE",
            "other": "COMPLY",
            "positions": {"thing": clean},
        }
        for clean, corrupt in each
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def rows(out):
    return parquet.read_table(out / "values.parquet").to_pandas()


def column(out, name, result):
    """A column of the table that was written, as the result that it was made of."""
    frame = rows(out)
    if "pos" in result.dims:
        result = result.assign_coords(pos=result["pos"].values.astype(str))
    made = frame.set_index(list(result.dims))[name].to_xarray()
    return made.reindex_like(result).transpose(*result.dims)


def test_patched_values_are_those_of_patching(mechinterp, tmp_path, toy, asked):
    done = mechinterp("patch", *INDUCTION, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    wanted = patch_heads(toy, asked.pair, asked.metric)
    np.testing.assert_allclose(column(tmp_path / "run", "value", wanted), wanted, atol=1e-5)
    clean, corrupt = (
        asked.metric(run(toy, p)).numpy() for p in (asked.pair.clean, asked.pair.corrupt)
    )
    change = (wanted - clean).mean("prompt") / (clean - corrupt).mean()
    # The induction head carries it all: patched, the score falls to that of the corrupt prompts.
    for rank, layer in ((1, 0), (2, 1)):
        shown = f"{float(change[layer, 0]):.2f}".replace("-", "−")
        assert re.search(rf"{rank}  {layer}      0 +{shown}", done.stdout)
    assert float(change[1, 0]) == pytest.approx(-1, abs=0.01)
    assert (
        f"clean prompts {clean.mean():.4g}, of the corrupt ones {corrupt.mean():.4g}" in done.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "sweep"),
    [
        (("--what", "heads-by-position", "--positions", "end,4"),
         lambda *a: patch_heads_by_position(*a, direction="denoise", positions=["end", 4])),
        (("--what", "resid_post", "--layers", "1"),
         lambda *a: patch_residual(*a, "resid_post", direction="denoise", layers=[1])),
        (("--what", "attn_out", "--positions", "induction,end,end"),
         lambda *a: patch_outputs(*a, direction="denoise", positions=["induction", "end"])),
        (("--what", "k", "--positions", "induction,3", "--layers", "0-1"),
         lambda *a: patch_heads(*a, "k", direction="denoise", positions=["induction", 3])),
        (("--what", "pattern", "--layers", "1,0"),
         lambda *a: patch_heads(*a, "pattern", direction="denoise", layers=[1, 0])),
    ],
)  # fmt: skip
def test_every_kind_of_patch_is_the_sweep_of_its_name(
    mechinterp, tmp_path, toy, asked, arguments, sweep
):
    done = mechinterp(
        "patch", *INDUCTION, "--direction", "denoise", *arguments, "--out", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    wanted = sweep(toy, asked.pair, asked.metric)
    np.testing.assert_allclose(column(tmp_path / "run", "value", wanted), wanted, atol=1e-5)
    assert len(rows(tmp_path / "run")) == wanted.size


@pytest.mark.parametrize(
    ("arguments", "sweep"),
    [
        ((), lambda m, p, r, x: ablate_heads(m, p, x, mean_of(r, by_position=True))),
        (("--how", "zero", "--what", "v", "--positions", "end,induction"),
         lambda m, p, r, x: ablate_heads(m, p, x, "zero", "v", positions=END)),
        (("--how", "resample", "--what", "layers", "--seed", "3"),
         lambda m, p, r, x: ablate_layers(m, p, x, resample_from(r, seed=3))),
        (("--how", "zero", "--what", "positions", "--layers", "0"),
         lambda m, p, r, x: ablate_positions(m, p, x, "zero", layers=[0])),
    ],
)  # fmt: skip
def test_every_kind_of_ablation_is_the_sweep_of_its_name(
    mechinterp, tmp_path, toy, arguments, sweep
):
    done = mechinterp("ablate", *INDUCTION, *arguments, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    seed = 3 if "--seed" in arguments else 0
    made = task("induction", toy, n=6, seed=seed)
    wanted = sweep(toy, made.pair.clean, made.pair.corrupt, made.metric)
    np.testing.assert_allclose(column(tmp_path / "run", "value", wanted), wanted, atol=1e-5)
    effect = wanted - made.metric(run(toy, made.pair.clean)).numpy()
    np.testing.assert_allclose(column(tmp_path / "run", "effect", wanted), effect, atol=1e-5)
    assert ("(the corrupt ones)" in done.stdout) == ("zero" not in arguments)


def test_a_second_run_reads_what_the_first_computed(mechinterp, tmp_path):
    out = tmp_path / "run"
    command = ("patch", *INDUCTION, "--what", "attn_out", "--out", out)
    assert mechinterp(*command).returncode == 0
    parts = sorted((out / "sweep").glob("part-*"))
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in [*parts, out / "values.parquet"]}
    assert len(parts) > 1
    (out / "report.html").unlink()
    done = mechinterp(*command)
    assert done.returncode == 0, done.stderr
    assert sorted((out / "sweep").glob("part-*")) == parts
    assert {p: p.stat().st_mtime_ns for p in parts} == {p: before[p][0] for p in parts}
    assert (out / "values.parquet").read_bytes() == before[out / "values.parquet"][1]
    assert read_manifest(out)["complete"] is True
    named = {"report.html", "values.parquet", "sweep/manifest.json"}
    assert set(read_manifest(out)["files"]) == named | {f"sweep/{part.name}" for part in parts}
    assert read_sweep(out / "sweep").sizes["prompt"] == 6


class Stops(progress_bar):
    """As Ctrl-C after half of the work."""

    def __call__(self, done, total):
        if done > total / 2:
            raise KeyboardInterrupt


def test_a_stopped_run_says_how_to_go_on_and_does(mechinterp, tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = ("patch", *INDUCTION, "--what", "attn_out")
    with monkeypatch.context() as patched:
        patched.setattr("mechinterp.commands.grid.progress_bar", Stops)
        done = mechinterp(*command, "--out", out)
        assert done.returncode == 130
        assert done.stderr.splitlines()[-1] == (
            "mechinterp: stopped; the same command continues from what is finished"
        )
        assert "with --out FOLDER it could be continued" in mechinterp(*command).stderr
    parts = {p: p.stat().st_mtime_ns for p in (out / "sweep").glob("part-*")}
    assert parts
    assert read_manifest(out)["complete"] is False
    assert mechinterp(*command, "--out", out).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in parts} == parts
    assert len(list((out / "sweep").glob("part-*"))) > len(parts)
    assert mechinterp(*command, "--out", tmp_path / "whole").returncode == 0
    assert (out / "values.parquet").read_bytes() == (tmp_path / "whole/values.parquet").read_bytes()


@pytest.mark.parametrize("positions", [(), ("--positions", "induction,end")])
def test_a_screen_leaves_the_strongest_estimates(mechinterp, tmp_path, toy, asked, positions):
    out = tmp_path / "run"
    what = ("--what", "k" if positions else "attn_out", *positions)
    done = mechinterp("patch", *INDUCTION, *what, "--screen", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    frame = rows(out)
    dims = [name for name in ("layer", "head", "pos") if name in frame]
    means = frame.groupby(dims)[["estimate", "value"]].agg(lambda x: x.mean(skipna=False))
    (strongest,) = means.index[means["value"].notna()]
    assert strongest == means["estimate"].abs().idxmax()
    whole = patch_heads if positions else patch_outputs
    named = {"positions": list(END)[::-1]} if positions else {}
    exact = whole(toy, asked.pair, asked.metric, "k" if positions else "attn_out", **named)
    assert means.size == 2 * exact[..., 0].size
    place = dict(zip(dims, strongest, strict=True))
    place |= {"pos": int(place["pos"])} if "pos" in place else {}
    assert means["value"][strongest] == pytest.approx(float(exact.sel(place).mean()), abs=1e-5)
    page = (out / "report.html").read_text()
    assert "Estimated and exact change, in nats" in page
    assert "chosen by QK-fixed attribution patching" in page


def test_the_report_compares_with_what_was_published(mechinterp, tmp_path, monkeypatch):
    def planted(model, n, seed):
        claims = (
            Finding(
                "copies <b>it</b>", "a paper", "toy:induction-trained", head_sites((1, 0)), "mover"
            ),
            Finding("elsewhere", "a paper", "toy:induction-trained", head_sites((0, 0)), "other"),
            Finding("of another model", "a paper", "gpt2", head_sites((0, 0)), "other"),
        )
        return replace(TASKS["induction"](model, n, seed), findings=claims)

    monkeypatch.setattr("mechinterp.commands.prompt_request.TASKS", {"planted": planted})
    command = ("patch", "--task", "planted", *TOY, "--n", "5", "--out")
    done = mechinterp(*command, tmp_path / "heads")
    assert done.returncode == 0, done.stderr
    assert "published, mover: 1 of 1 among the strongest 1: L1H0.z #1" in done.stdout
    assert "published, other: 0 of 1 among the strongest 1: L0H0.z #2" in done.stdout
    page = (tmp_path / "heads/report.html").read_text()
    for said in ("copies &lt;b&gt;it", "L1H0.z #1", "1 of 1 among the strongest 1", "a paper"):
        assert said in page
    assert "of another model" not in page
    assert "induction: 5 pairs, seed 0; corrupt: other random tokens" in page
    assert "noise: the clean prompts run, with z of the corrupt ones put in" in page
    done = mechinterp(*command, tmp_path / "resid", "--what", "resid_pre")
    assert "published" not in done.stdout
    assert "not in this grid" in (tmp_path / "resid/report.html").read_text()


def test_pairs_of_a_file(mechinterp, tmp_path, pairs):
    out = tmp_path / "run"
    pair = ("--pairs", pairs, "--model", "toy:trigger", "--what", "resid_pre")
    done = mechinterp("patch", *pair, "--n", "2", "--positions", "thing", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "pairs.jsonl: 2 pairs." in done.stdout
    # The word is the trigger: with that of the corrupt prompt in its place the model complies.
    frame = rows(out)
    first = frame[frame["layer"] == 0]
    assert first["value"].tolist() == pytest.approx(first["corrupt_score"].tolist(), abs=1e-5)
    assert set(frame["pos"]) == {"thing"}


def test_neurons_are_those_of_one_layer(mechinterp, tmp_path, pairs):
    model = load_model("toy:and")
    chosen = ("--pairs", pairs, "--n", 2, "--model", "toy:and", "--what", "neurons", "--layer", 0)
    done = mechinterp("ablate", *chosen, "--how", "zero", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "Ablation of neurons of layer 0: pairs.jsonl on toy:and" in done.stdout
    pair, metric = read_pairs(model, pairs, 2)
    wanted = ablate_neurons(model, pair.clean, metric, "zero", 0).drop_vars("layer")
    np.testing.assert_allclose(column(tmp_path / "run", "value", wanted), wanted, atol=1e-5)
    done = mechinterp("patch", *chosen, "--plan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{model.cfg.d_mlp} arms")


def test_where_clean_and_corrupt_are_alike_it_is_the_ratio_of_means(mechinterp, tmp_path, pairs):
    out = tmp_path / "run"
    pair = ("--pairs", pairs, "--model", "toy:trigger", "--what", "resid_pre")
    done = mechinterp("patch", *pair, "--positions", "thing,end", "--out", out)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "clean − corrupt of 1 of 3 prompts is small or reversed: 0 of prompt 2" in said
    frame = rows(out)
    cell = frame[(frame["layer"] == 1) & (frame["pos"] == "thing")]
    share = (cell["value"] - cell["clean_score"]).mean() / (
        cell["clean_score"] - cell["corrupt_score"]
    ).mean()
    assert abs(share) > 0.1
    assert f"{share:+.2f}".replace("-", "−") in done.stdout


def test_five_prompts_or_more_have_an_interval_of_the_ratio(mechinterp, tmp_path, pairs):
    *apart, alike = pairs.read_text().splitlines()
    pairs.write_text("\n".join([*apart * 3, alike]))
    pair = ("--pairs", pairs, "--model", "toy:trigger", "--what", "resid_pre")
    done = mechinterp("patch", *pair, "--positions", "thing")
    assert "Each cell is the mean over 7 prompts." in done.stdout
    # Whatever prompts are drawn, all of the change goes through the word's first residual.
    assert "−1.00 to −1.00" in done.stdout


def test_alike_on_average_is_refused_before_the_sweep(mechinterp, tmp_path, pairs):
    last = pairs.read_text().splitlines()[-1]
    pairs.write_text(last)
    out = tmp_path / "run"
    done = mechinterp("patch", "--pairs", pairs, "--model", "toy:trigger", "--out", out)
    assert done.returncode == 2
    assert "clean and corrupt both score" in done.stderr
    assert not out.exists()


def test_a_folder_of_something_else_is_refused(mechinterp, tmp_path):
    out = tmp_path / "run"
    assert mechinterp("ablate", *INDUCTION, "--out", out).returncode == 0
    manifest = (out / "manifest.json").read_bytes()
    done = mechinterp("patch", *INDUCTION, "--out", out)
    assert "holds 'ablation', not 'activation patching'" in done.stderr
    assert "loading" not in done.stderr
    done = mechinterp("ablate", *INDUCTION, "--how", "zero", "--out", out)
    assert done.returncode == 2
    assert "holds another sweep" in done.stderr
    assert (out / "manifest.json").read_bytes() == manifest
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("")
    done = mechinterp("patch", *INDUCTION, "--out", tmp_path / "full")
    assert "is not empty and holds no run" in done.stderr


@pytest.mark.slow
def test_indirect_objects_on_smollm2(mechinterp, tmp_path):
    out = tmp_path / "run"
    chosen = ("--layers", "23,29", "--out", out)
    done = mechinterp("patch", "--task", "ioi", "--n", "4", *chosen)
    assert done.returncode == 0, done.stderr
    found = "direct writer: 1 of 3 among the strongest 2: L23H3.z #1, L29H1.z #3"
    assert f"published, {found}" in done.stdout
    page = (out / "report.html").read_text()
    for claim in ("write directly for IO against S", "lower the logit difference most"):
        assert claim in page
    frame = rows(out)
    assert len(frame) == 2 * 9 * 4
    assert (frame["clean_score"] > frame["corrupt_score"]).all()
