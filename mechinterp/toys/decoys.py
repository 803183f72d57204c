"""Parts that read what is there and write where nothing reads: they look at work, and do nothing.

What a search must tell from the circuit. Decoy heads and neurons have random weights, and a head of
the circuit has some too, in the dimensions that its own work leaves free.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Places = tuple[tuple[int, int], ...]


def add_decoys(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    unread: slice,
    *,
    heads: Mapping[tuple[int, int], tuple[int, int]],
    n_neurons: Mapping[int, int],
    seed: int,
) -> tuple[Places, Places]:
    """Write random weights wherever no logit can change by it, and return what is all decoy.

    `unread`: the directions of the residual stream that decoys write to, and positions too.
    `heads`: (layer, head) -> how many dimensions its queries and keys, and its values, need.
    `n_neurons`: layer -> how many neurons are needed. Returns the (layer, head) pairs and the
    (layer, neuron) pairs.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(weight: Tensor) -> None:
        """Of a size that makes a sum over directions of size 1 about 1."""
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
        # Beside the work of a head a dimension has a query or a key, not both: scores stay.
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
