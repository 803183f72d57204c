"""From a RASP program to weights, and to the edges that they use: each read block is recorded.

A block is empty at <bos>, so that <bos> scores 0 as a key: between the keys that a query selects
and the others. All heads and neurons that the program does not need are decoys.

    compile_program(program).truth.edges

Source: Lindner et al. 2023 (Tracr), arXiv 2301.05062, whose constructions these are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from mechinterp.toys.blank import zeros
from mechinterp.toys.compiled import BOS, CERTAIN, SHARPNESS
from mechinterp.toys.decoys import Places, add_decoys
from mechinterp.toys.definition import Edge, Toy, Truth
from mechinterp.toys.placement import Placement, Program, place_program
from mechinterp.toys.rasp import (
    Aggregate,
    Indices,
    Map,
    SOp,
    StartShare,
    Steps,
    Tokens,
    Value,
    is_constant,
)

# An edge that reads a block, and whether it carries the same in all prompts of one length.
Reading = tuple[Edge, bool]
Roles = dict[str, Places]
UNKNOWN: Final = "something unknown"
# The logit of a number c when m was computed: this times c m - c^2 / 2.
NUMBER: Final = 1000.0


def compile_program(program: Program) -> Toy:
    """The model of a program, with its true edges: those that read a block.

    A function or predicate that ignores an argument, or a value that never occurs, would add an
    edge that carries nothing; the tests check the programs by brute force.

    Raises:
        ValueError: if a layer needs more heads than there are, or keys hold a value at <bos>.
    """
    placement = place_program(program)
    weights = _embedding(program, placement)
    readings = [_reading(placement, program.output, "logits")]
    for sop in placement.heads:
        _check_start(sop, causal=program.causal)
        readings += _set_head(weights, placement, sop)
    for mapped in placement.mlps:
        readings += _set_neurons(weights, placement, mapped)
    _set_answers(weights, placement, program)
    heads, neurons = _set_decoys(weights, placement)
    edges = {edge for edge, _ in readings}
    varying = {edge for edge, constant in readings if not constant}
    truth = Truth(
        claim=program.claim,
        edges=tuple(sorted(edges)),
        heads=heads,
        neurons=neurons,
        figures=program.figures,
        constant=tuple(sorted(edges - varying)),
    )
    places = (program.words,) * program.most_words
    return Toy(program.name, placement.config, weights, program.vocabulary, BOS, truth, places)


def _embedding(program: Program, placement: Placement) -> dict[str, Tensor]:
    """Weights that are zero except the embeddings: of words, positions and the mark of <bos>."""
    weights = zeros(placement.config)
    weights["embed.W_E"][program.vocabulary.index(BOS), placement.start] = 1
    for sop, block in placement.blocks.items():
        if isinstance(sop, Tokens):
            rows = [program.vocabulary.index(word) for word in sop.words]
            weights["embed.W_E"][rows, block] = torch.eye(sop.size)
        elif isinstance(sop, Indices):
            weights["pos_embed.W_pos"][1 : 1 + sop.n, block] = torch.eye(sop.n)
    return weights


def _check_start(sop: Aggregate | StartShare, *, causal: bool) -> None:
    """Check that the predicate does not select <bos>; for a share, that <bos> is no key at all."""
    at_start = _at_start(sop.select.keys, causal=causal)
    if at_start is None:
        return
    queries, predicate = sop.select.queries.values, sop.select.predicate
    is_selected = at_start is UNKNOWN or any(predicate(at_start, query) for query in queries)
    if is_selected or isinstance(sop, StartShare):
        raise ValueError(
            f"{sop.name}: its keys, {sop.select.keys.name}, hold {at_start} at <bos>, which would "
            "count as a word. Join them with the indices, which hold nothing there."
        )


def _at_start(sop: SOp, *, causal: bool) -> Value | None:
    """The value at <bos>, whose query is 0 and which, if causal, sees only itself."""
    before: list[Value] = [_at_start(source, causal=causal) for source in sop.sources]
    match sop:
        case Map(function=function, form=form):
            if None in before:
                return None if form == "categorical" else 0.0
            return UNKNOWN if UNKNOWN in before else function(*before)
        case Steps(terms=terms, ramps=ramps, outputs=outputs):
            if UNKNOWN in before:
                return UNKNOWN
            total = sum(weight * at for (_, weight), at in zip(terms, before, strict=True))
            between = any(low < total < high for low, high in ramps)
            return UNKNOWN if between else outputs[sum(high <= total for _, high in ramps)]
        case Aggregate(select=select):
            sees_itself = causal or (select.needs_query and before[1] is None)
            return before[2] if sees_itself else UNKNOWN
        case StartShare(select=select):
            sees_all = select.needs_query and before[1] is None
            return 1.0 if causal else 0.0 if sees_all else UNKNOWN
        case _:
            return None


def _set_head(
    weights: Mapping[str, Tensor], placement: Placement, sop: Aggregate | StartShare
) -> Iterator[Reading]:
    """Set a head: scores by the predicate, one dimension per key; then the values, or <bos>.

    The query of <bos> is 0, so the bias says where it attends: for an aggregate only to <bos>, so
    that nothing is written there; for a share to all keys, so that the share is 0.
    """
    (layer, head), blocks = placement.heads[sop], placement.blocks
    select, name, is_share = sop.select, placement.writer(sop), isinstance(sop, StartShare)
    W_Q, W_K, W_V, W_O = (weights[f"blocks.{layer}.attn.W_{letter}"][head] for letter in "QKVO")
    keys = slice(0, select.keys.size)
    b_Q = weights[f"blocks.{layer}.attn.b_Q"][head, keys]
    # <bos> scores 0: as much as a selected key (share), or half way below it (aggregate).
    scores = SHARPNESS * (torch.tensor(select.table()).float() - (1.0 if is_share else 0.5))
    if select.needs_query:
        b_Q += SHARPNESS if is_share else -SHARPNESS
        W_Q[blocks[select.queries], keys] = scores - b_Q
        yield _reading(placement, select.queries, f"{name}.q")
    else:
        b_Q += scores[0]
    if scores.any():
        W_K[blocks[select.keys], keys] = torch.eye(select.keys.size)
        constant = is_constant(select.keys) or not select.needs_key
        yield Edge(placement.writer(select.keys), f"{name}.k"), constant
    if isinstance(sop, Aggregate):
        W_V[blocks[sop.of], : sop.size] = torch.eye(sop.size)
        yield _reading(placement, sop.of, f"{name}.v")
    else:
        W_V[placement.start, 0] = 1
        yield Edge("embed", f"{name}.v"), True
    W_O[: sop.size, blocks[sop]] = torch.eye(sop.size)


def _set_neurons(
    weights: Mapping[str, Tensor], placement: Placement, sop: Map | Steps
) -> Iterator[Reading]:
    (layer, first), blocks = placement.mlps[sop], placement.blocks
    W_in, b_in, W_out, b_out = (
        weights[f"blocks.{layer}.mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out")
    )
    for at, neuron in enumerate(sop.neurons(), first):
        for source, direction, weight in neuron.reads:
            W_in[blocks[source].start + direction, at] = weight
        b_in[at] = neuron.bias
        for direction, by in neuron.writes.items():
            W_out[at, blocks[sop].start + direction] = by
    if isinstance(sop, Steps):
        for direction, by in sop.written(sop.outputs[0]).items():
            b_out[blocks[sop].start + direction] = by
    for source in sop.sources:
        yield _reading(placement, source, placement.writer(sop))


def _reading(placement: Placement, of: SOp, reader: str) -> Reading:
    return Edge(placement.writer(of), reader), is_constant(of)


def _set_answers(weights: Mapping[str, Tensor], placement: Placement, program: Program) -> None:
    """Set a logit for each answer; all other words stay far below."""
    W_U, b_U = weights["unembed.W_U"], weights["unembed.b_U"]
    block = placement.blocks[program.output]
    b_U.fill_(-CERTAIN)
    for word, value in program.answers.items():
        token = program.vocabulary.index(word)
        b_U[token] = 0
        if program.output.values:
            W_U[block.start + program.output.values.index(value), token] = CERTAIN
        else:
            assert isinstance(value, int | float)
            W_U[block.start, token] = NUMBER * value
            b_U[token] = -NUMBER * value**2 / 2


def _set_decoys(weights: Mapping[str, Tensor], placement: Placement) -> tuple[Roles, Roles]:
    """Put random weights wherever the program leaves room; returns roles of heads and neurons."""
    heads = {sop.name: (place,) for sop, place in placement.heads.items()}
    neurons = {
        sop.name: tuple((layer, neuron) for neuron in range(first, first + len(sop.neurons())))
        for sop, (layer, first) in placement.mlps.items()
    }
    free_heads, free_neurons = add_decoys(
        weights,
        placement.config,
        placement.unread,
        heads={place: (sop.select.keys.size, sop.size) for sop, place in placement.heads.items()},
        n_neurons=Counter(layer for places in neurons.values() for layer, _ in places),
        seed=0,
    )
    return heads | {"decoy": free_heads}, neurons | {"decoy": free_neurons}
