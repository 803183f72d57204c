"""A model in which every score adds up: its logits are linear in each token's embedding."""

import warnings
from pathlib import Path

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import Site, zero

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """On random models inputs are redundant by chance; the warning has tests of its own."""
    redundancy = "ignore::mechinterp.attribution.methods.single_removal.RedundancyWarning"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(redundancy))


@pytest.fixture(scope="session")
def linear_model():
    """A bag of embeddings: attention spreads evenly, no norm, no MLP, biases and positions.

    The logits are a constant plus one term for each token's embedding. So for a metric of logits
    (`logit_diff`, `centred_logit`) and removal by `zeroed`, leave-one-out, Shapley values and
    integrated gradients from zero embeddings are the same numbers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            n_layers=2,
            d_model=15,
            d_head=4,
            n_heads=3,
            d_vocab=23,
            n_ctx=12,
            act_fn="gelu_new",
            attn_only=True,
            normalization_type=None,
            init_weights=False,
            device="cpu",
        )
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            even = name.rsplit(".")[-1] in ("W_Q", "b_Q", "W_K", "b_K")
            spread = 0.4 * torch.randn(weight.shape, generator=generator)
            weight.copy_(torch.zeros(1) if even else spread)
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def zeroed():
    """The removal that puts zeros in the place of a token's embedding."""

    def remove(pos):
        return zero(Site("embed", pos=pos))

    return remove


@pytest.fixture
def small():
    """Makes two layers of random weights with options of their own."""

    def made(**options):
        sizes = {"d_model": 14, "d_head": 5, "n_heads": 3, "d_mlp": 11, "d_vocab": 37, "n_ctx": 12}
        given = {"act_fn": "gelu_new", "normalization_type": "RMS"} | options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cfg = HookedTransformerConfig(
                n_layers=2, **sizes, **given, init_weights=False, device="cpu"
            )
            model = HookedTransformer(cfg)
        generator = torch.Generator().manual_seed(1)
        for weight in model.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4
        return model.requires_grad_(requires_grad=False)

    return made
