"""Activations gathered equal one plain run; on disk and after a stop they are the same."""

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
    assert int(gathered_bytes) > 70e6  # under a limit of 60 MiB
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
