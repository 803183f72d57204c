import numpy as np
import torch

from mechinterp import load_model
from mechinterp.attention import copying_scores, logit_copying
from mechinterp.toys import toy


def linear(kind, value, weight):
    if kind in ("LN", "LNPre"):
        value = value - value.mean(-1, keepdim=True)
    return value * weight.double() if kind in ("LN", "RMS") else value


def test_eigenvalues_are_those_of_the_whole_matrix(model):
    """d_head by d_head has the same ones, but for 0, as vocabulary by vocabulary."""
    scores, cfg = copying_scores(model), model.cfg
    assert scores.dims == ("layer", "head")
    for layer in range(cfg.n_layers):
        norm = getattr(model.blocks[layer], "ln1", None)
        embed = linear(
            cfg.normalization_type, model.W_E.double(), getattr(norm, "w", torch.ones(1))
        )
        for head in range(cfg.n_heads):
            written = model.W_V[layer, head].double() @ model.W_O[layer, head].double()
            final = getattr(getattr(model, "ln_final", None), "w", torch.ones(1))
            whole = embed @ linear(cfg.normalization_type, written, final) @ model.W_U.double()
            values = np.linalg.eigvals(whole.numpy())
            slow = values.sum().real / np.abs(values).sum()
            np.testing.assert_allclose(scores.values[layer, head], slow, atol=1e-4)


def test_the_head_that_copies_and_those_that_do_not():
    planted = toy("induction")
    model = load_model(planted)
    scores, ((layer, head),) = copying_scores(model), planted.truth.heads["induction"]
    assert float(scores.sel(layer=layer, head=head)) > 0.999
    rest = scores.values.copy()
    rest[layer, head] = 0
    assert abs(rest).max() < 1e-6
    assert logit_copying(model, layer, head, top=1) == 1.0
    # The previous token head moves a token to where no logit reads it.
    assert logit_copying(model, 0, 1) == 0.0


def test_top_logits_by_hand(attention_only_model):
    model = attention_only_model
    every = torch.arange(model.cfg.d_vocab)
    logits = model.W_E @ model.W_V[1, 2] @ model.W_O[1, 2] @ model.W_U
    place = (logits > logits[every, every, None]).sum(1)
    share = float((place < 5).double().mean())
    assert abs(logit_copying(model, 1, 2) - share) < 1e-6


def test_the_trained_head_copies():
    model = load_model("toy:induction-trained")
    scores = copying_scores(model)
    assert float(scores.sel(layer=1, head=0)) > 0.9
    assert logit_copying(model, 1, 0) > 0.9
