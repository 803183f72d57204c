"""Patching grids: `sweep` beside the library's own loops, one full pass an arm, and their equality.

    python scripts/bench/sweeps.py [--check] [--quick]

Random weights of a GPT-2-small shape (vocabulary 50,257), 15 tokens, one thread; SmolLM2 with 64
tokens. Each grid of TransformerLens' `patching.get_act_patch_*` is computed by both, in CPU
seconds, medians of several runs of ours. Of the library's long loops every n-th cell is run, and
the seconds are scaled to all of them: each cell costs the same there. The values of the cells that
both computed must agree. `--check` exits with 1 if they do not, or if a ratio is less than wanted.
`--quick` runs a small shape and checks the equality alone.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from random_models import as_the_library_keeps_it, gpt2_shape
from transformer_lens import patching

from mechinterp import (
    Prompts,
    Site,
    attribute,
    load_model,
    logit_diff,
    patch,
    plan,
    read,
    run,
    sweep,
)
from mechinterp.core.specs import delete_token
from mechinterp.models import Model

TOLERANCE_LOGITS = 1e-4


@dataclass(frozen=True)
class Grid:
    """A grid of patching arms: ours and the library's setter, axes in the library's order."""

    name: str
    act: str
    axes: tuple[str, ...]
    setter: Callable[..., Any]
    wanted: float | None
    n_prompts: int = 1
    every: int = 1


HEADS = Grid("heads", "z", ("layer", "head"), patching.layer_head_vector_patch_setter, 14.0)
GRIDS = (
    HEADS,
    Grid(
        "residual by position", "resid_pre", ("layer", "pos"), patching.layer_pos_patch_setter, 14.0
    ),
    Grid(
        "heads by position",
        "z",
        ("layer", "pos", "head"),
        patching.layer_pos_head_vector_patch_setter,
        12.0,
        every=17,
    ),
    Grid("heads, 8 prompts", "z", ("layer", "head"), HEADS.setter, 3.8, n_prompts=8, every=5),
)


def main() -> None:
    """Run all grids, print the table, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="a small shape, once")
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    model = gpt2_shape(given.quick)
    repeats = 1 if given.quick else given.repeats
    short: list[str] = []
    print("| grid | arms | library, CPU s | sweep, CPU s (median) | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for grid in GRIDS:
        short += compared(model, grid, 15, repeats, given.quick)
    if not given.quick:
        smollm2 = load_model("smollm2")
        for grid, every in ((HEADS, 19), (GRIDS[1], 61)):
            wide = Grid(f"SmolLM2, 64 tokens: {grid.name}", grid.act, grid.axes, grid.setter, None)
            short += compared(smollm2, replace(wide, every=every), 64, 1, False)
    short += attribution_at_256(gpt2_shape(True, n_ctx=264))
    if given.check and short:
        raise SystemExit("\n".join(short))


def compared(model: Model, grid: Grid, n_tokens: int, repeats: int, quick: bool) -> list[str]:
    """Both sides of a grid; what falls short, in words."""
    sizes = {"layer": model.cfg.n_layers, "pos": n_tokens, "head": model.cfg.n_heads}
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.cfg.d_vocab, (2, grid.n_prompts, n_tokens), generator=generator)
    corrupt, clean = tokens
    right, wrong = (int(i) for i in torch.randint(model.cfg.d_vocab, (2,), generator=generator))
    prompts = Prompts.from_ids(corrupt.tolist())
    layers = [Site(grid.act, layer) for layer in range(model.cfg.n_layers)]
    acts = run(model, Prompts.from_ids(clean.tolist()), read(*layers)).acts
    over = {axis: range(sizes[axis]) for axis in grid.axes}
    metric, plain = logit_diff(right, wrong), as_the_library_keeps_it(model)

    def ours() -> np.ndarray:
        def arm(layer: int, head: int | None = None, pos: int | None = None) -> Any:
            return patch(Site(grid.act, layer, head, pos), acts)

        return np.asarray(sweep(model, prompts, over, arm, metric).mean("prompt"))

    cells = list(itertools.product(*over.values()))[:: 1 if quick else grid.every]
    made, slow, expected = [], 0.0, np.empty(0)
    for turn in range(repeats):  # by turns, so that both meet the same load of the machine
        made.append(timed(ours))
        part = cells[turn * len(cells) // repeats : (turn + 1) * len(cells) // repeats]
        found, seconds = timed(lambda c=part: library(plain, grid, corrupt, clean, c, right, wrong))
        expected, slow = np.concatenate([expected, found]), slow + seconds
    n_arms = made[0][0].size
    slow *= n_arms / len(cells)
    fast = statistics.median(seconds for _, seconds in made)
    values = np.array([made[0][0][cell] for cell in cells])
    difference, ratio = float(np.abs(values - expected).max()), slow / fast
    print(
        f"| {grid.name} | {n_arms:,} | {slow:.1f} | {fast:.2f} | {ratio:.1f} | {difference:.1e} |",
        flush=True,
    )
    short = []
    if difference > TOLERANCE_LOGITS:
        short.append(f"{grid.name}: {difference:.1e} logits apart, at most {TOLERANCE_LOGITS}")
    if grid.wanted and not quick and ratio < grid.wanted:
        short.append(f"{grid.name}: {ratio:.1f} times faster, wanted {grid.wanted}")
    return short


def library(
    model: Model,
    grid: Grid,
    corrupt: torch.Tensor,
    clean: torch.Tensor,
    cells: list[tuple[int, ...]],
    right: int,
    wrong: int,
) -> np.ndarray:
    """The library's loop over some cells."""
    import pandas as pd

    patching.tqdm = lambda items: items
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        made = patching.generic_activation_patch(
            model,
            corrupt,
            cache,
            lambda logits: (logits[:, -1, right] - logits[:, -1, wrong]).mean(),
            grid.setter,
            grid.act,
            index_df=pd.DataFrame(cells, columns=list(grid.axes)),
        )
    return made.numpy()


def attribution_at_256(model: Model) -> list[str]:
    """Token-layers of a deletion sweep over 256 tokens, beside one full pass per variant."""
    tokens = torch.arange(256)[None] % model.cfg.d_vocab
    made = plan(model, tokens, {"pos": range(256)}, lambda pos: delete_token(pos), logit_diff(1, 2))
    share = made.token_layers / made.token_layers_naive
    print(f"\ntoken deletion, 256 tokens: {share:.3f} of the token-layers of a full pass each")
    scores = attribute(model, tokens[:, :24], 3)
    slow = sweep_naively(model, tokens[:, :24])
    difference = float(np.abs(scores.values - slow).max())
    return [] if share <= 0.56 and difference < 1e-4 else [f"attribution: {share}, {difference}"]


def sweep_naively(model: Model, tokens: torch.Tensor) -> np.ndarray:
    """The scores of `attribute` for three greedy outputs, one full pass for each."""
    from attribution import naive

    return naive(model, tokens, 3)


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the CPU seconds that it took."""
    began = time.process_time()
    result = function()
    return result, time.process_time() - began


if __name__ == "__main__":
    main()
