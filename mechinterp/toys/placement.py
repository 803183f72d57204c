"""The place of each s-op of a RASP program: its block of directions, and the part that writes it.

An s-op goes to the earliest layer that has its sources: to a head of its own, or to neurons of that
layer's MLP. `compiler` writes the weights.

    place_program(program).writer(program.output)    # "L2H1"
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mechinterp.toys.blank import Config, with_mlps
from mechinterp.toys.compiled import BOS
from mechinterp.toys.rasp import Aggregate, Indices, Map, SOp, StartShare, Steps, Value

# The number of directions that decoys write to; of head dimensions or neurons that are decoys.
N_UNREAD: Final = 5
N_SPARE: Final = 6


@dataclass(frozen=True)
class Program:
    """What to compile, and for which model.

    answers: the words that the model predicts -> the output's value that each stands for. For a
        numerical output the nearest number is predicted.
    causal: whether a position sees only itself and earlier positions.
    n_layers: at least this many; layers that the program does not need hold only decoys.
    figures: bounds on what the model reaches.
    """

    name: str
    claim: str
    output: SOp
    words: tuple[str, ...]
    answers: Mapping[str, Value]
    most_words: int
    causal: bool
    n_layers: int
    n_heads: int
    figures: Mapping[str, float]

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((BOS, *self.words, *self.answers)))


@dataclass(frozen=True)
class Placement:
    """The part and the block of each s-op, in an order in which sources come first.

    heads: s-op -> (layer, head); mlps: s-op -> (layer, first neuron).
    start: the direction in which the embedding marks <bos>; unread: those of the decoys.
    config: keyword arguments of `HookedTransformerConfig`.
    """

    heads: Mapping[Aggregate | StartShare, tuple[int, int]]
    mlps: Mapping[Map | Steps, tuple[int, int]]
    blocks: Mapping[SOp, slice]
    start: int
    unread: slice
    config: Config

    def writer(self, sop: SOp) -> str:
        """The name of the part that writes the s-op, as in an `Edge`."""
        if isinstance(sop, Aggregate | StartShare):
            layer, head = self.heads[sop]
            return f"L{layer}H{head}"
        if isinstance(sop, Map | Steps):
            return f"L{self.mlps[sop][0]}.mlp"
        return "pos_embed" if isinstance(sop, Indices) else "embed"


def place_program(program: Program) -> Placement:
    """Find a place for every s-op that the output needs.

    Raises:
        ValueError: if a layer needs more heads than there are.
    """
    stages: dict[SOp, int] = {}
    _set_stage(program.output, stages)
    n_layers = max(program.n_layers, *(1 + stage // 2 for stage in stages.values()))
    free_heads = [_shuffle_heads(program, layer) for layer in range(n_layers)]
    n_neurons = [0] * n_layers
    heads: dict[Aggregate | StartShare, tuple[int, int]] = {}
    mlps: dict[Map | Steps, tuple[int, int]] = {}
    blocks: dict[SOp, slice] = {}
    start, end = 0, 1
    for sop in sorted(stages, key=lambda sop: stages[sop]):
        layer = stages[sop] // 2
        blocks[sop] = slice(end, end + sop.size)
        end += sop.size
        if isinstance(sop, Aggregate | StartShare):
            if not free_heads[layer]:
                raise ValueError(f"{sop.name}: layer {layer} has no head left. Raise n_heads.")
            heads[sop] = (layer, free_heads[layer].pop())
        elif isinstance(sop, Map | Steps):
            mlps[sop] = (layer, n_neurons[layer])
            n_neurons[layer] += len(sop.neurons())
    config = _config(
        program,
        n_layers=n_layers,
        d_head=max((max(sop.select.keys.size, sop.size) for sop in heads), default=0) + N_SPARE,
        d_mlp=max(n_neurons) + N_SPARE,
        d_model=end + N_UNREAD,
    )
    return Placement(heads, mlps, blocks, start, slice(end, config["d_model"]), config)


def _set_stage(sop: SOp, stages: dict[SOp, int]) -> int:
    """The earliest stage of an s-op: -1 embeddings, 2l the heads of layer l, 2l + 1 its MLP."""
    if sop not in stages:
        after = max((_set_stage(source, stages) for source in sop.sources), default=-2) + 1
        is_head = isinstance(sop, Aggregate | StartShare)
        stages[sop] = after + (after >= 0 and after % 2 == is_head)
    return stages[sop]


def _shuffle_heads(program: Program, layer: int) -> list[int]:
    """The heads of a layer in random order, fixed for each program."""
    return random.Random(f"{program.name} {layer}").sample(range(program.n_heads), program.n_heads)


def _config(program: Program, **least: int) -> Config:
    """The configuration: each size is at least as given, and raised until all sizes differ."""
    sizes = {
        "n_layers": least.pop("n_layers"),
        "n_heads": program.n_heads,
        "n_ctx": 1 + program.most_words,
        "d_vocab": len(program.vocabulary),
    }
    for name, size in least.items():
        while size in sizes.values():
            size += 1
        sizes[name] = size
    attention_dir = "causal" if program.causal else "bidirectional"
    return {**with_mlps(**sizes), "attention_dir": attention_dir}
