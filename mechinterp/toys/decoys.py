"""Decoys: parts that read the residual stream but write where nothing reads.

A search must tell them from the circuit. Decoy heads and neurons have random weights; so do the
heads of the circuit, in the dimensions that they do not need.
"""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from mechinterp.toys.blank import Config

Places = tuple[tuple[int, int], ...]


def add_decoys(
    weights: Mapping[str, Tensor],
    config: Config,
    unread: slice,
    *,
    heads: Mapping[tuple[int, int], tuple[int, int]],
    n_neurons: Mapping[int, int],
    seed: int,
) -> tuple[Places, Places]:
    """Write random weights wherever they cannot change a logit; return the heads and neurons.

    `unread`: the directions of the residual stream that decoys and positions write to.
    `heads`: the circuit's heads (layer, head) -> how many dimensions their queries and keys, and
    their values, need. `n_neurons`: layer -> how many neurons the circuit needs. Returns the decoy
    heads as (layer, head) and the decoy neurons as (layer, neuron).
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(weight: Tensor) -> None:
        """Fill with random numbers, so scaled that a sum over directions of size 1 is about 1."""
        drawn = torch.randn(weight.shape, generator=generator)
        weight.copy_(drawn / weight.shape[0] ** 0.5)

    draw(weights["pos_embed.W_pos"][:, unread])
    layers, d_head = range(config["n_layers"]), config["d_head"]
    free_heads = [
        place for place in itertools.product(layers, range(config["n_heads"])) if place not in heads
    ]
    for layer, head in (*heads, *free_heads):
        W_Q, W_K, W_V, W_O = (weights[f"blocks.{layer}.attn.W_{name}"][head] for name in "QKVO")
        scores, values = heads.get((layer, head), (0, 0))
        # In a head of the circuit a free dimension gets a query or a key, not both: scores stay.
        middle = (scores + d_head) // 2 if (layer, head) in heads else None
        draw(W_Q[:, scores:middle])
        draw(W_K[:, middle:])
        draw(W_V[:, values:])
        draw(W_O[values:, unread])
    if config["attn_only"]:
        return tuple(free_heads), ()
    for layer in layers:
        draw(weights[f"blocks.{layer}.mlp.W_in"][:, n_neurons.get(layer, 0) :])
        draw(weights[f"blocks.{layer}.mlp.W_out"][n_neurons.get(layer, 0) :, unread])
    return tuple(free_heads), tuple(
        (layer, neuron)
        for layer in layers
        for neuron in range(n_neurons.get(layer, 0), config["d_mlp"])
    )
