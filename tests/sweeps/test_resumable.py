"""A sweep on disk: it goes on after a stop, with the same bytes, and refuses to mix."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from mechinterp import (
    Prompts,
    Site,
    delete_token,
    edit,
    log_prob,
    logit_diff,
    read_sweep,
    run,
    sweep,
    sweep_each,
    zero,
)

OVER = {"layer": range(3), "head": range(4), "pos": [0, 2, "end"]}
HERE = Path(__file__).parents[1]


def prompts():
    return Prompts.from_ids([[3, 1, 4, 1, 5], [5, 9, 2]])


def swept(model, folder, *, metric=None, **options):
    """36 arms, one a pass."""
    given = {"prompts": prompts(), "over": OVER, "budget_bytes": 1} | options
    return sweep(
        model,
        given.pop("prompts"),
        given.pop("over"),
        given.pop("arm", lambda layer, head, pos: zero(Site("z", layer, head, pos))),
        metric or log_prob(3),
        out=folder,
        **given,
    )


def content(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_what_is_written_is_what_was_found(model, tmp_path):
    folder = tmp_path / "run"
    found = swept(model, folder, over={"layer": [0, 1, 2], "head": [1, 0], "pos": [0, "end"]})
    again = read_sweep(folder).isel(metric=0)
    np.testing.assert_array_equal(again, found)
    assert again.dims == found.dims
    assert again["pos"].values.tolist() == [0, "end"]
    assert again.attrs == {k: v for k, v in found.attrs.items() if k != "seconds"}
    plain = swept(model, None, over={"layer": [0, 1, 2], "head": [1, 0], "pos": [0, "end"]})
    np.testing.assert_array_equal(plain, found)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert len(manifest["files"]) == len(content(folder)) - 1 > 5


def test_several_metrics_and_a_mask(absolute_model, tmp_path):
    metrics = [log_prob(3), logit_diff(1, 2, at=1)]
    over = {"layer": range(3), "head": range(4)}

    def arm(layer, head):
        return zero(Site("z", layer, head))

    full = sweep_each(absolute_model, prompts(), over, arm, metrics)
    mean = full.sel(metric="log_prob", drop=True).mean("prompt")
    only = mean > mean.median()
    assert int(only.sum()) == 6
    given = {"only": only, "out": tmp_path}
    found = sweep_each(absolute_model, prompts(), over, arm, metrics, **given)
    np.testing.assert_allclose(found, full.where(only), atol=1e-5)
    np.testing.assert_array_equal(read_sweep(tmp_path), found)
    assert found.attrs["arms"] == 6


def test_finished_parts_are_not_computed_again(absolute_model, tmp_path):
    calls = []

    def counted(value, at):
        calls.append(at.site)
        return value * 0

    def arm(layer, head, pos):
        return edit(Site("z", layer, head, pos), counted)

    first = swept(absolute_model, tmp_path, arm=arm)
    assert len(calls) == 36
    calls.clear()
    lost = sorted(tmp_path.glob("part-*"))[3:6]
    for file in lost:
        file.unlink()
    before = content(tmp_path)
    second = swept(absolute_model, tmp_path, arm=arm)
    assert 0 < len(calls) <= 6
    np.testing.assert_array_equal(first, second)
    assert set(content(tmp_path)) == set(before) | {file.name for file in lost}


def test_parts_beyond_the_last_are_removed(absolute_model, tmp_path):
    swept(absolute_model, tmp_path)
    before = content(tmp_path)
    *_, last = sorted(tmp_path.glob("part-*"))
    number, name = int(last.name.split("-")[1]), last.name.split("-")[2]
    (tmp_path / f"part-{number + 1:05}-{name}").write_bytes(last.read_bytes())
    swept(absolute_model, tmp_path)
    assert content(tmp_path) == before


def test_an_error_in_one_arm_keeps_what_was_done(absolute_model, tmp_path):
    def arm(layer, head, pos):
        last = (layer, head, pos) == (2, 3, "end")
        return edit(Site("z", layer, head, pos), fails if last else lambda value, at: value * 0)

    def fails(value, at):
        raise RuntimeError("my own mistake")

    with pytest.raises(RuntimeError, match="my own mistake"):
        swept(absolute_model, tmp_path, arm=arm)
    assert len(list(tmp_path.glob("part-*"))) > 20
    with pytest.raises(ValueError, match="not finished"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": Prompts.from_ids([[3, 1, 4, 1, 6], [5, 9, 2]])}, "the prompts differ"),
        ({"over": {**OVER, "layer": range(2)}}, "differ"),
        ({"metric": log_prob(4)}, "the metrics differ"),
        ({"metric": logit_diff(3, 1)}, "the metrics differ"),
        ({"arm": lambda layer, head, pos: zero(Site("v", layer, head, pos))}, "the specs"),
        ({"budget_bytes": 10**8}, "budget_bytes=1"),
        ({"exact": "naive"}, "exact differ"),
    ],
)
def test_another_sweep_is_refused(absolute_model, tmp_path, refuses, change, words):
    swept(absolute_model, tmp_path)
    before = content(tmp_path)
    refuses(lambda: swept(absolute_model, tmp_path, **change), words, str(tmp_path), "folder")
    assert content(tmp_path) == before


def test_another_model_dtype_or_number_of_threads_is_refused(
    absolute_model, grouped_model, tmp_path, refuses
):
    swept(absolute_model, tmp_path)
    refuses(lambda: swept(grouped_model, tmp_path), "weights or configuration differ")
    weight = absolute_model.blocks[2].attn.W_O
    old = weight[0, 0, 0].item()
    try:
        weight[0, 0, 0] += 1.0
        refuses(lambda: swept(absolute_model, tmp_path), "weights or configuration differ")
    finally:
        weight[0, 0, 0] = old
    torch.set_num_threads(2)
    try:
        refuses(lambda: swept(absolute_model, tmp_path), "threads differ (1 there, 2 here)")
    finally:
        torch.set_num_threads(1)
    swept(absolute_model, tmp_path)


def test_other_folders_are_refused(absolute_model, tmp_path, refuses):
    (tmp_path / "notes.txt").write_text("mine")
    refuses(lambda: swept(absolute_model, tmp_path), "not empty", "another folder")
    refuses(lambda: swept(absolute_model, tmp_path / "notes.txt"), "is a file")
    refuses(lambda: read_sweep(tmp_path / "nowhere"), "nowhere")
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "manifest.json").write_text('{"kind": "attribution", "files": {}}')
    refuses(lambda: swept(absolute_model, tmp_path), "holds 'attribution'")
    refuses(lambda: read_sweep(tmp_path), "not a sweep")


def test_somebody_elses_hooks_cannot_be_told_apart(absolute_model, tmp_path, refuses):
    handle = absolute_model.blocks[1].register_forward_hook(lambda *args: None)
    try:
        refuses(lambda: swept(absolute_model, tmp_path), "hooks of other code", "without out")
    finally:
        handle.remove()


def test_parts_of_another_sweep_are_not_taken(absolute_model, tmp_path, caplog):
    one, other = tmp_path / "one", tmp_path / "other"
    swept(absolute_model, one)
    expected = swept(absolute_model, other, metric=log_prob(4))
    before = content(other)
    for file in one.glob("part-*"):
        (other / file.name).write_bytes(file.read_bytes())
        number = file.name.split("-")[1]
        for mine in other.glob(f"part-{number}-*"):
            if mine.name != file.name:
                mine.unlink()
    found = swept(absolute_model, other, metric=log_prob(4))
    np.testing.assert_array_equal(found, expected)
    assert content(other) == before
    assert "of another sweep" in caplog.text


@pytest.mark.slow
def test_every_flipped_bit_is_found_and_mended(absolute_model, tmp_path):
    expected = swept(absolute_model, tmp_path)
    before = content(tmp_path)
    chance = random.Random(0)
    for number in range(150):
        name = chance.choice(sorted(before))
        damaged = bytearray(before[name])
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a sweep"):
            read_sweep(tmp_path)
        if number % 6:  # found; to mend it takes as long as a sweep
            (tmp_path / name).write_bytes(before[name])
            continue
        found = swept(absolute_model, tmp_path)
        np.testing.assert_array_equal(found, expected)
        assert content(tmp_path) == before


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_the_same_bytes():
    """60 real kills, and two writers at once: see the program."""
    done = subprocess.run(
        [sys.executable, HERE / "laws" / "killed.py", "60"],
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, finished = map(int, done.stdout.split())
    assert killed == 60
    assert finished >= 1, "none was killed near its end"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_says_so_and_what_is_done_stays(absolute_model, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        folder = disk / "run"
        with pytest.raises(OSError, match=r"part-\d+.*No space left.*run it again"):
            swept(absolute_model, folder)
        n_done = len(list(folder.glob("part-*")))
        assert 3 < n_done < 36
        assert not list(folder.glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        found = swept(absolute_model, folder)
        expected = swept(absolute_model, tmp_path / "elsewhere")
        np.testing.assert_array_equal(found, expected)
        assert content(folder) == content(tmp_path / "elsewhere")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_what_cannot_be_told_apart_is_an_error(absolute_model, tmp_path, refuses):
    handle = (i for i in range(3))

    def arm(layer, head, pos):
        return edit(Site("z", layer, head, pos), lambda value, at: value * next(handle))

    refuses(lambda: swept(absolute_model, tmp_path, arm=arm), "generator", "close over")


def test_prompts_that_differ_in_more_than_tokens_are_other_prompts(
    absolute_model, tmp_path, refuses
):
    moved = run(absolute_model, Prompts.from_ids([[9, 5, 6, 7, 8]]), delete_token(0)).prompts
    given = {"over": {"pos": [1, 3]}, "arm": lambda pos: zero(Site("mlp_out", 1, pos=pos))}
    swept(absolute_model, tmp_path, prompts=moved, **given)
    same_tokens = Prompts.from_ids([[5, 6, 7, 8]])
    refuses(
        lambda: swept(absolute_model, tmp_path, prompts=same_tokens, **given), "the prompts differ"
    )


# Folders of version 0.1, whose manifest says nothing of a layout, and of 0.2


def as_it_was_written_before(folder, version="0.1.0"):
    """Make a folder one of an earlier version: keys in the parts, hashes of the content alone."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest |= {"files": {}, "key": "key of the sweep", "layout": 2}
    manifest["versions"]["mechinterp"] = version
    for name in ("seal", *(["layout"] if version == "0.1.0" else [])):
        del manifest[name]
    for part in sorted(folder.glob("part-*")):
        values = safetensors.numpy.load(part.read_bytes())
        content = safetensors.numpy.save(values, {"key": manifest["key"]})
        part.unlink()
        digits = hashlib.sha256(content).hexdigest()
        name = f"part-{part.name.split('-')[1]}-{digits[:16]}.safetensors"
        (folder / name).write_bytes(content)
        manifest["files"][name] = digits
    if not manifest["complete"]:
        manifest["files"] = {}
    seal_as_before(folder, manifest)
    return manifest


def seal_as_before(folder, manifest):
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**manifest, "seal": seal}, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_an_unfinished_sweep_of_before_is_refused_and_says_why(
    absolute_model, tmp_path, refuses, version
):
    def arm(layer, head):
        return edit(Site("z", layer, head), fails if layer == 2 else lambda value, at: value * 0)

    def fails(value, at):
        raise RuntimeError("my own mistake")

    given = {"over": {"layer": range(3), "head": [0]}, "arm": arm}
    with pytest.raises(RuntimeError, match="my own mistake"):
        swept(absolute_model, tmp_path, **given)
    as_it_was_written_before(tmp_path, version)
    before = content(tmp_path)
    refuses(
        lambda: swept(absolute_model, tmp_path, **given),
        f"{tmp_path} was begun by mechinterp {version}, whose parts this version cannot continue",
        "module names are part of what is hashed",
        "Finish it with that version, or choose another folder",
    )
    assert content(tmp_path) == before
    refuses(lambda: read_sweep(tmp_path), "not finished")


FEW = {"over": {"layer": range(2), "head": [1], "pos": [0, 2]}}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_finished_sweep_of_before_is_read(absolute_model, tmp_path, refuses, version):
    found = swept(absolute_model, tmp_path, **FEW)
    manifest = as_it_was_written_before(tmp_path, version)
    again = read_sweep(tmp_path).isel(metric=0)
    np.testing.assert_array_equal(again, found)
    assert again.attrs == manifest["attrs"]
    refuses(lambda: swept(absolute_model, tmp_path, **FEW), f"mechinterp {version}", "read_sweep(")


def test_a_finished_sweep_of_before_with_a_part_of_another_is_refused(
    absolute_model, tmp_path, refuses
):
    """Version 0.2 sealed a part of another sweep that somebody put into the folder."""
    swept(absolute_model, tmp_path, **FEW)
    manifest = as_it_was_written_before(tmp_path, "0.2.0")
    name = sorted(manifest["files"])[1]
    values = safetensors.numpy.load((tmp_path / name).read_bytes())
    foreign = safetensors.numpy.save(values, {"key": "key of another"})
    digits = hashlib.sha256(foreign).hexdigest()
    del manifest["files"][name]
    name = f"part-00001-{digits[:16]}.safetensors"
    (tmp_path / name).write_bytes(foreign)
    seal_as_before(tmp_path, {**manifest, "files": manifest["files"] | {name: digits}})
    refuses(lambda: read_sweep(tmp_path), "part-00001", "another sweep", "again")


def test_a_relative_folder_stays_where_it_was_named(absolute_model, tmp_path, monkeypatch):
    """F6: a relative `out` followed a `chdir`, such as one in an arm or a progress function."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def arm(layer, head, pos):
        os.chdir(tmp_path / "elsewhere")
        return zero(Site("z", layer, head, pos))

    swept(absolute_model, "run", arm=arm, **FEW)
    assert read_sweep(tmp_path / "run").sizes["layer"] == 2
    assert not list((tmp_path / "elsewhere").iterdir())
