"""Activations gathered equal one plain run; on disk and after a stop they are the same."""

import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mechinterp import Prompts, Site, read, run
from mechinterp.probing import activation_parts, gather, gathered, residual_sites


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(gathered, "_BATCH_POSITIONS", 14)
    monkeypatch.setattr(activation_parts, "_PART_BYTES", 1)  # a batch is a part


def many(n=11):
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, 30, rng.integers(3, 8)).tolist() for _ in range(n)]
    return Prompts.from_ids(ids).named(second=[1] * n)


@pytest.mark.parametrize("position", ["end", "second", 2, "text_end"])
def test_one_plain_run_says_the_same(model, position, small_batches):
    prompts = many()
    found = gather(model, prompts, position=position)
    assert found.dims == ("layer", "prompt", "feature")
    sites = [Site("resid_pre", layer) for layer in range(3)] + [Site("resid_post", 2)]
    assert found["site"].values.tolist() == list(map(str, sites))
    assert found["layer"].values.tolist() == [0, 1, 2, 3]
    for row in range(len(prompts)):
        n = int(prompts.lengths[row])
        alone = run(model, prompts.tokens[row, :n], read(*sites)).acts
        at = {"end": n - 1, "second": 1, 2: 2, "text_end": n - 1}[position]
        for layer, site in enumerate(sites):
            np.testing.assert_allclose(
                found.values[layer, row], alone[site][0, at].numpy(), atol=1e-5
            )


@pytest.mark.parametrize("act", ["z", "mlp_out", "attn_out"])
def test_other_sites(model, act, small_batches):
    if act == "mlp_out" and model.cfg.attn_only:
        pytest.skip("this model has no MLPs")
    prompts, sites = many(), [Site(act, layer) for layer in (2, 0)]
    found = gather(model, prompts, sites)
    acts = run(model, prompts, read(*sites)).acts
    for layer, site in enumerate(sites):
        whole = acts[site][torch.arange(len(prompts)), prompts.lengths - 1].flatten(1)
        np.testing.assert_allclose(found.values[layer], whole.numpy(), atol=1e-5)
    assert found["layer"].values.tolist() == [2, 0]


def test_one_head(model):
    prompts = many()
    head, whole = (gather(model, prompts, [Site("z", 1, h)]) for h in (2, None))
    d_head = model.cfg.d_head
    np.testing.assert_array_equal(head.values, whole.values[..., 2 * d_head : 3 * d_head])


def test_the_mean_is_over_the_users_text(model, small_batches):
    prompts = many()
    roles = tuple(("bos", *("text",) * (n - 2), "template") for n in prompts.lengths.tolist())
    framed = Prompts.from_ids(
        [row[:n] for row, n in zip(prompts.tokens.tolist(), prompts.lengths, strict=True)],
        roles=roles,
    )
    found = gather(model, framed, position="mean")
    site = Site("resid_pre", 1)
    value = run(model, framed, read(site)).acts[site]
    for row, n in enumerate(framed.lengths.tolist()):
        np.testing.assert_allclose(
            found.values[1, row], value[row, 1 : n - 1].mean(0).numpy(), atol=1e-5
        )
    ends = gather(model, framed, position="text_end")
    np.testing.assert_allclose(
        ends.values[1, 3], value[3, int(framed.lengths[3]) - 2].numpy(), atol=1e-5
    )


@pytest.mark.parametrize("position", ["end", "mean"])
def test_on_disk_and_in_memory_are_the_same(model, position, tmp_path, small_batches):
    prompts = many()
    kept = gather(model, prompts, position=position, out=tmp_path / "acts")
    held = gather(model, prompts, position=position)
    np.testing.assert_array_equal(kept.values, held.values)
    for part in ({"layer": 1}, {"prompt": slice(2, 9, 3)}, {"layer": [2, 0], "feature": 3}):
        np.testing.assert_array_equal(kept.isel(part).values, held.isel(part).values)


def test_a_stopped_run_goes_on(grouped_model, tmp_path, small_batches, monkeypatch):
    prompts, out = many(), tmp_path / "acts"
    whole = gather(grouped_model, prompts)
    calls, plain = [], gathered._read

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(gathered, "_read", stopping)
    with pytest.raises(KeyboardInterrupt):
        gather(grouped_model, prompts, out=out)
    assert len(list(out.glob("part-*"))) == 3
    found = gather(grouped_model, prompts, out=out)
    n_batches = len(list(gathered._batches(grouped_model, prompts, residual_sites(grouped_model))))
    assert len(calls) == 4 + n_batches - 3  # what was finished is not run again
    np.testing.assert_array_equal(found.values, whole.values)


def test_another_runs_folder_is_refused(grouped_model, tmp_path, refuses):
    gather(grouped_model, many(), out=tmp_path)
    refuses(lambda: gather(grouped_model, many(5), out=tmp_path), "the prompts differ")
    refuses(lambda: gather(grouped_model, many(), position=1, out=tmp_path), "other activations")
    (tmp_path / "manifest.json").unlink()
    refuses(lambda: gather(grouped_model, many(5), out=tmp_path), "parts of other work")


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
@pytest.mark.slow
def test_large_sets_stay_out_of_memory():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("little_memory.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    gathered_bytes, error = done.stdout.split()[-2:]
    assert int(gathered_bytes) > 140e6  # under a limit of 100 MiB
    assert error != "none"


@pytest.mark.parametrize(
    ("sites", "position", "said"),
    [
        ([Site("resid_pre", 1, pos="end")], "end", "sites that have positions, but name none"),
        ([Site("pattern", 1)], "end", "sites that have positions"),
        ([Site("z", 1, 0), Site("z", 1, 1)], "end", "one per layer"),
        ([], "end", "at least one"),
        ([Site("z", 1), Site("resid_pre", 2)], "end", "features: gather those of one size"),
        (None, "S9", "no position is called 'S9'"),
        (None, 9, "outside prompt"),
    ],
)
def test_what_is_refused(grouped_model, sites, position, said, refuses):
    refuses(lambda: gather(grouped_model, many(), sites, position=position), said)


def test_layers_of_the_residual_stream(grouped_model, refuses):
    assert list(map(str, residual_sites(grouped_model, [0, 3]))) == [
        "L0.resid_pre",
        "L2.resid_post",
    ]
    refuses(lambda: residual_sites(grouped_model, [4]), "layers 0 (the embedding) to 3")


def test_templates_alone_have_no_text(grouped_model, refuses):
    prompts = Prompts.from_ids([[1, 2]], roles=[["template", "template"]])
    for position in ("mean", "text_end"):
        refuses(lambda p=position: gather(grouped_model, prompts, position=p), "no user text")


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_damaged_files_are_gathered_again(grouped_model, tmp_path, small_batches):
    """F1: of 90 damages to a finished folder 23 were used; an empty file raised `EOFError`."""
    whole = gather(grouped_model, many(), out=tmp_path).values
    before, chance = content(tmp_path), random.Random(0)
    for how in ("empty", "half", "flip", "zeros", "gone", "foreign") * 3:
        name = chance.choice(sorted(before))
        made = bytearray(before[name])
        at = chance.randrange(len(made))
        if how == "flip":
            made[at] ^= 1 << chance.randrange(8)
        elif how == "foreign":
            made = bytearray(before[chance.choice([n for n in sorted(before) if n != name])])
        elif how == "zeros":
            made[at:] = bytes(len(made) - at)
        else:
            del made[{"empty": 0, "half": len(made) // 2, "gone": 0}[how] :]
        (tmp_path / name).write_bytes(made)
        if how == "gone":
            (tmp_path / name).unlink()
        np.testing.assert_array_equal(gather(grouped_model, many(), out=tmp_path).values, whole)
        assert content(tmp_path) == before


def test_a_file_that_changes_after_it_was_gathered_is_an_error(
    grouped_model, tmp_path, small_batches, refuses
):
    """The result reads from the files when it is used: half a file gave zeros for its tail."""
    acts = gather(grouped_model, many(), out=tmp_path)
    part = next(tmp_path.glob("part-00001*"))
    part.write_bytes(part.read_bytes()[:-40])
    refuses(lambda: acts.isel(layer=1).values, "part-00001", "is damaged", "Run it again")
    part.unlink()
    refuses(lambda: acts.isel(layer=1).values, "part-00001", "cannot be read")


def test_a_disk_without_room_is_a_sentence(grouped_model, tmp_path):
    """F1: the process died by SIGBUS, in a map of a file that could not grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OSError, match=r"part-00000.*could not be written.*run it again"):
            gather(grouped_model, many(), out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [f.name for f in tmp_path.iterdir()] == ["manifest.json"]
    found = gather(grouped_model, many(), out=tmp_path)
    np.testing.assert_array_equal(found.values, gather(grouped_model, many()).values)


def test_hooks_of_other_code_cannot_be_told_apart(grouped_model, tmp_path, refuses):
    handle = grouped_model.blocks[1].register_forward_hook(lambda *args: None)
    try:
        refuses(lambda: gather(grouped_model, many(), out=tmp_path), "hooks of other code")
    finally:
        handle.remove()
