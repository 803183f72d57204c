"""The options of `mechinterp patch` and `ablate`, checked before anything loads.

>>> from mechinterp.commands.options.grid import PatchOptions
>>> PatchOptions(task="ioi", layers="0,3-5").chosen_layers()
[0, 3, 4, 5]
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mechinterp.commands.options.prompt import PromptOptions
from mechinterp.commands.options.ranges import chosen_layers


@dataclass(frozen=True, kw_only=True)
class GridOptions(PromptOptions):
    """What `mechinterp patch` and `ablate` both take.

    Args:
        layers: such as 0,1,2 or 3-8; all unless given.
        positions: numbers or names, such as end,S2,4. A grid by position has these; in any other,
            each cell covers these together. All unless given.
        layer: the layer of --what neurons.
        plan: print the passes that would run and what they cost, and stop.
    """

    layers: str | None = None
    positions: str | None = None
    layer: int | None = None
    plan: bool = False

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        super().__post_init__()
        self.chosen_layers()
        is_of_one_layer = getattr(self, "what", "") == "neurons"
        if is_of_one_layer and (self.layer is None or self.layers is not None):
            raise ValueError("--what neurons is of one layer: give --layer, such as --layer 5.")
        if not is_of_one_layer and self.layer is not None:
            raise ValueError(f"--layer is for --what neurons. Use --layers {self.layer}.")

    def chosen_layers(self) -> list[int] | None:
        """The numbers of `--layers`; None for all."""
        if self.layers is None:
            return None
        return chosen_layers(self.layers)


@dataclass(frozen=True, kw_only=True)
class PatchOptions(GridOptions):
    """What `mechinterp patch` takes.

    Args:
        what: each head's output (z), query, key, value or pattern; at each position the residual
            stream, or what attention or the MLP of a layer writes; each neuron of a layer.
        direction: noise runs the clean prompts and puts in what the corrupt ones had, which shows
            what is needed; denoise is the other way round, which shows what suffices.
        screen: estimate every patch from gradients first (attribution patching; patterns of patched
            queries and keys are exact), then compute only this many, the strongest.
    """

    kind: ClassVar[str] = "activation patching"

    what: Literal[
        "heads", "heads-by-position", "resid_pre", "resid_mid", "resid_post", "attn_out",
        "mlp_out", "q", "k", "v", "pattern", "neurons",
    ] = "heads"  # fmt: skip
    direction: Literal["noise", "denoise"] = "noise"
    screen: int | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        super().__post_init__()
        if self.screen is not None and self.screen < 1:
            raise ValueError(f"--screen {self.screen}: keep at least one cell.")


@dataclass(frozen=True, kw_only=True)
class AblateOptions(GridOptions):
    """What `mechinterp ablate` takes.

    Args:
        what: each head's output (z), query, key or value; what attention, the MLP or both of a
            layer write; each neuron of a layer; the residual stream at each layer and position.
        how: what takes its place: zero; the mean over the corrupt prompts at the same position;
            or resample, what a corrupt prompt drawn at random had there.
    """

    kind: ClassVar[str] = "ablation"

    what: Literal["heads", "layers", "neurons", "positions", "q", "k", "v"] = "heads"
    how: Literal["zero", "mean", "resample"] = "mean"
