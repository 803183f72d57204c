"""What `mechinterp patch` and `ablate` were asked: which cells of a model, on which prompts.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.grid import PatchOptions
>>> from mechinterp.commands.grid_request import GridRequest
>>> options = PatchOptions(task="induction", n=4)
>>> request = GridRequest.of(load_model("toy:induction-trained"), options)
>>> request.over, [str(site) for site in request.sites(1, head=0)]
({'layer': [0, 1], 'head': [0]}, ['L1H0.z'])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from mechinterp import ablation, patching
from mechinterp.commands.options.grid import AblateOptions, PatchOptions
from mechinterp.commands.prompt_request import PromptRequest, requested_positions
from mechinterp.commands.terminal import say
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import Specs, zero
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.sweeps import axes
from mechinterp.sweeps.experiment import plan

ACTS = {"heads": "z", "heads-by-position": "z", "neurons": "mlp_post", "positions": "resid_pre"}
"""The activation of each --what that is not the name of one."""
BY_POSITION = ("heads-by-position", "positions", *patching.RESIDUALS, *patching.OUTPUTS)


@dataclass(frozen=True, eq=False)
class GridRequest:
    """The options of a grid of patches or ablations, resolved for a model.

    `over`: what the sweep ranges over, among it `layers`. `together`: the positions that each cell
    covers, where a cell has no position of its own; None for all.
    """

    options: PatchOptions | AblateOptions
    model: Model
    prompts: PromptRequest
    act: str
    layers: list[int]
    over: Mapping[str, Sequence[int] | Sequence[str] | Sequence[Pos]]
    together: list[Pos] | None

    @classmethod
    def of(cls, model: Model, options: PatchOptions | AblateOptions) -> "GridRequest":
        """The request that the options make, checked against the model and the prompts.

        Raises:
            ValueError: if a layer or a position is out of range, or the prompts do not fit.
        """
        n_layers = model.cfg.n_layers
        chosen = options.chosen_layers() if options.layer is None else [options.layer]
        for layer in chosen or ():
            if layer >= n_layers:
                raise ValueError(f"layer {layer} is out of range: layers 0 to {n_layers - 1}.")
        prompts = PromptRequest.of(model, options)
        positions = requested_positions(options.positions, prompts.pair.clean)
        act = ACTS.get(options.what, options.what)
        layers = axes.layers(model, chosen)
        over: dict[str, Sequence[int] | Sequence[str] | Sequence[Pos]] = {"layer": layers}
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
        return cls(options, model, prompts, act, layers, over, together)

    @property
    def what(self) -> str:
        """What the cells stand for, in words."""
        layer = self.options.layer
        return self.options.what if layer is None else f"{self.options.what} of layer {layer}"

    @property
    def positions(self) -> list[Pos] | None:
        """The chosen positions, whether each is a cell or all are one."""
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

    def sites(
        self,
        layer: int,
        part: str | None = None,
        pos: Pos | None = None,
        neuron: int | None = None,
        **head: int,
    ) -> list[Site]:
        """All sites of a cell: of `--what layers` those of a part of the layer."""
        if part is None:
            whole = [self.site(layer, pos, neuron, **head)]
        else:
            whole = [Site(act, layer) for act in ablation.PARTS[part]]
        return [site for wide in whole for site in axes.at_positions(wide, self.together)]

    def print_plan(self, base: Prompts) -> None:
        """Print what the sweep will cost: any edit of these sites costs the same."""

        def arm(
            layer: int,
            part: str | None = None,
            pos: Pos | None = None,
            neuron: int | None = None,
            **head: int,
        ) -> Specs:
            return sum((zero(site) for site in self.sites(layer, part, pos, neuron, **head)), ())

        say(str(plan(self.model, base, self.over, arm, self.prompts.metric)))

    def scores(self) -> tuple[xr.DataArray, xr.DataArray]:
        """The metric of the clean and of the corrupt prompts: dims (prompt)."""
        sides = (self.prompts.pair.clean, self.prompts.pair.corrupt)
        runs = (run(self.model, side, logits_at=self.prompts.metric.at) for side in sides)
        clean, corrupt = (
            xr.DataArray(self.prompts.metric(r).double().cpu().numpy(), dims="prompt") for r in runs
        )
        return clean, corrupt
