"""What `mechinterp patch` and `ablate` were asked: which cells of a model, on which prompts.

>>> from mechinterp import load_model
>>> from mechinterp.grid_options import Patch
>>> from mechinterp.grid_questions import Question
>>> asked = Question.of(load_model("toy:induction-trained"), Patch(task="induction", n=4))
>>> asked.over, [str(site) for site in asked.sites(layer=1, head=0)]
({'layer': [0, 1], 'head': [0]}, ['L1H0.z'])
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import xarray as xr

from mechinterp import ablation, axes, patching
from mechinterp.grid_options import Ablate, GridOptions, Patch
from mechinterp.metrics import Metric
from mechinterp.pairs import read_pairs
from mechinterp.prompts import Pair, Prompts
from mechinterp.runner import run
from mechinterp.sites import Pos, Site
from mechinterp.specs import Specs, zero
from mechinterp.sweeps import plan
from mechinterp.tasks import TASKS, Finding

ACTS = {"heads": "z", "heads-by-position": "z", "neurons": "mlp_post", "positions": "resid_pre"}
"""The activation of a --what that is not called as it is."""
BY_POSITION = ("heads-by-position", "positions", *patching.RESIDUALS, *patching.OUTPUTS)


@dataclass(frozen=True, eq=False)
class Question:
    """What a command ranges over, and on which prompts: its options, resolved for the model.

    `over`: as of a sweep. `together`: the positions that each cell is of, where it has none of its
    own; None for all.
    """

    options: Patch | Ablate
    model: Any
    name: str
    pair: Pair
    metric: Metric
    prompts_note: str
    findings: tuple[Finding, ...]
    act: str
    over: Mapping[str, Sequence[Any]]
    together: list[Pos] | None

    @classmethod
    def of(cls, model: Any, options: Patch | Ablate) -> "Question":
        """The question, checked against the model and the prompts."""
        n_layers = model.cfg.n_layers
        layers = options.chosen_layers() if options.layer is None else [options.layer]
        for layer in layers or ():
            if layer >= n_layers:
                raise ValueError(f"layer {layer} is out of range: layers 0 to {n_layers - 1}.")
        name, pair, metric, note, findings = _prompts(model, options)
        positions = _positions(options.positions, pair.clean)
        act = ACTS.get(options.what, options.what)
        over: dict[str, Sequence[Any]] = {"layer": axes.layers(model, layers)}
        if options.what == "layers":
            over = {"part": ["attn"] if model.cfg.attn_only else list(ablation.PARTS), **over}
        elif options.what == "neurons":
            over["neuron"] = axes.neurons(model, None)
        elif act in axes.HEAD_ACTS:
            over |= axes.heads(model, act, None)
        is_by_position = options.what in BY_POSITION
        if is_by_position:
            over["pos"] = positions = axes.positions(pair.clean, positions)
        together = None if is_by_position else positions
        return cls(options, model, name, pair, metric, note, findings, act, over, together)

    @property
    def what(self) -> str:
        """What the cells are of, in words."""
        layer = self.options.layer
        return self.options.what if layer is None else f"{self.options.what} of layer {layer}"

    @property
    def layers(self) -> list[int]:
        """Those chosen."""
        return list(self.over["layer"])

    @property
    def positions(self) -> list[Pos] | None:
        """Those chosen, whether each is a cell or all are one."""
        return list(self.over["pos"]) if "pos" in self.over else self.together

    @property
    def together_note(self) -> str:
        """Words for the positions of each cell."""
        return f" at {', '.join(map(str, self.together))}" if self.together else ""

    def site(
        self, layer: int, pos: Pos | None = None, neuron: int | None = None, **head: int
    ) -> Site:
        """The site of a cell, at no position unless the cell has one."""
        return Site(self.act, layer, next(iter(head.values()), None), pos, neuron)

    def sites(self, part: str | None = None, **point: Any) -> list[Site]:
        """All sites of a cell."""
        whole = [self.site(**point)] if part is None else []
        whole += [Site(act, **point) for act in ablation.PARTS.get(part or "", ())]
        return [site for wide in whole for site in axes.at_positions(wide, self.together)]

    def print_plan(self, base: Prompts) -> None:
        """What the sweep will cost: any edit of these sites costs the same."""

        def arm(**point: Any) -> Specs:
            return sum((zero(site) for site in self.sites(**point)), ())

        print(plan(self.model, base, self.over, arm, self.metric))

    def scores(self) -> tuple[xr.DataArray, xr.DataArray]:
        """The metric of the clean and of the corrupt prompts."""
        sides = (self.pair.clean, self.pair.corrupt)
        runs = (run(self.model, side, logits_at=self.metric.at) for side in sides)
        clean, corrupt = (
            xr.DataArray(self.metric(r).double().cpu().numpy(), dims="prompt") for r in runs
        )
        return clean, corrupt


def check_task(name: str | None) -> None:
    """Nothing, if there is such a task: known before the model loads."""
    if name is not None and name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(
            f'--task "{name}": no task has this name.{hint} Tasks: {", ".join(TASKS)}.'
        )


def _prompts(
    model: Any, options: GridOptions
) -> tuple[str, Pair, Metric, str, tuple[Finding, ...]]:
    """The name, the pair, the metric, a note on them, and what was published."""
    if options.task is not None:
        made = TASKS[options.task](model, options.n or 16, options.seed)
        note = f"{made.name}: {len(made.pair.clean)} pairs, seed {options.seed}; corrupt: "
        return made.name, made.pair, made.metric, f"{note}{made.corruption}.", made.findings
    assert options.pairs is not None
    pair, metric = read_pairs(model, options.pairs, options.n)
    return options.pairs.name, pair, metric, f"{options.pairs.name}: {len(pair.clean)} pairs.", ()


def _positions(text: str | None, prompts: Prompts) -> list[Pos] | None:
    """The positions of an option: numbers, and names, which may have commas in them."""
    if text is None:
        return None
    names = sorted({"end", *prompts.names}, key=len, reverse=True)
    pattern = "|".join([rf"(?:{'|'.join(map(re.escape, names))})(?=,|$)", "[^,]+"])
    chosen = [int(p) if p.isdigit() else p for p in re.findall(pattern, text)]
    for pos in chosen:
        if isinstance(pos, str) and pos not in names:
            raise ValueError(
                f"--positions {text}: no position is called {pos!r}. Named are "
                f"{', '.join(sorted(names))}; or give a number, from 0."
            )
        prompts.given_positions(pos)
    if not chosen:
        raise ValueError("--positions: none is given. Write them with commas between: end,4.")
    return list(dict.fromkeys(chosen))
