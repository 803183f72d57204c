"""What `mechinterp patch` and `ablate` were asked: which cells of a model, on which prompts.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.grid import Patch
>>> from mechinterp.commands.grid_questions import Question
>>> asked = Question.of(load_model("toy:induction-trained"), Patch(task="induction", n=4))
>>> asked.over, [str(site) for site in asked.sites(layer=1, head=0)]
({'layer': [0, 1], 'head': [0]}, ['L1H0.z'])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from mechinterp import ablation, patching
from mechinterp.commands.options.grid import Ablate, Patch
from mechinterp.commands.prompt_questions import AskedPrompts, asked_positions
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import Specs, zero
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.sweeps import axes
from mechinterp.sweeps.experiment import plan

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
    model: Model
    prompts: AskedPrompts
    act: str
    over: Mapping[str, Sequence[Any]]
    together: list[Pos] | None

    @classmethod
    def of(cls, model: Model, options: Patch | Ablate) -> "Question":
        """The question, checked against the model and the prompts."""
        n_layers = model.cfg.n_layers
        layers = options.chosen_layers() if options.layer is None else [options.layer]
        for layer in layers or ():
            if layer >= n_layers:
                raise ValueError(f"layer {layer} is out of range: layers 0 to {n_layers - 1}.")
        prompts = AskedPrompts.of(model, options)
        positions = asked_positions(options.positions, prompts.pair.clean)
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
            over["pos"] = positions = axes.positions(prompts.pair.clean, positions)
        together = None if is_by_position else positions
        return cls(options, model, prompts, act, over, together)

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

        print(plan(self.model, base, self.over, arm, self.prompts.metric))

    def scores(self) -> tuple[xr.DataArray, xr.DataArray]:
        """The metric of the clean and of the corrupt prompts."""
        sides = (self.prompts.pair.clean, self.prompts.pair.corrupt)
        runs = (run(self.model, side, logits_at=self.prompts.metric.at) for side in sides)
        clean, corrupt = (
            xr.DataArray(self.prompts.metric(r).double().cpu().numpy(), dims="prompt") for r in runs
        )
        return clean, corrupt
