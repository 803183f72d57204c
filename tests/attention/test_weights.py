import copy

import numpy as np
import pytest
import torch

from mechinterp import Site, load_model, read, run
from mechinterp.attention import ov_circuit, qk_circuit

TOKENS = [3, 17, 8, 3, 30]


def without_positions(model):
    """A copy whose position embeddings are 0; one with rotary positions has none to begin with."""
    bare = copy.deepcopy(model)
    if bare.cfg.positional_embedding_type == "standard":
        bare.pos_embed.W_pos.data.zero_()
    return bare


def test_attention_scores_are_those_of_the_first_layer(model):
    """Token by token, at every distance, as the model itself scores them in a prompt."""
    bare = without_positions(model)
    site = Site("attn_scores", 0)
    own = run(bare, torch.tensor([TOKENS]), read(site)).acts[site][0]
    for head in range(model.cfg.n_heads):
        for query in range(len(TOKENS)):
            for key in range(query + 1):
                scores = qk_circuit(bare, 0, head, TOKENS, distance=query - key)
                made = scores.values[query, key]
                np.testing.assert_allclose(made, float(own[head, query, key]), atol=1e-4)


def test_distance_matters_under_rotary_positions_alone(model):
    near = qk_circuit(model, 1, 2, [3, 17, 8]).values
    far = qk_circuit(model, 1, 2, [3, 17, 8], distance=4).values
    is_rotary = model.cfg.positional_embedding_type == "rotary"
    assert np.allclose(near, far, atol=1e-5) != is_rotary


def explicit(model, layer, head, source, target):
    """W_E W_V W_O W_U, with the norms written out by hand."""
    cfg, block = model.cfg, model.blocks[layer]
    x = model.W_E[source].double()
    kind = cfg.normalization_type
    if kind in ("LN", "LNPre"):
        x = x - x.mean()
        x = x / (x.pow(2).mean() + cfg.eps).sqrt()
    if kind == "RMS":
        x = x / (x.pow(2).mean() + cfg.eps).sqrt()
    if kind in ("LN", "RMS"):
        x = x * block.ln1.w.double() + (block.ln1.b.double() if kind == "LN" else 0)
    written = x @ model.W_V[layer, head].double() @ model.W_O[layer, head].double()
    if kind in ("LN", "LNPre"):
        written = written - written.mean()
    if kind in ("LN", "RMS"):
        written = written * model.ln_final.w.double()
    return float(written @ model.W_U[:, target].double())


def test_logits_are_the_product_of_the_weights(model):
    for layer in (0, 2):
        for head in range(model.cfg.n_heads):
            found = ov_circuit(model, layer, head, [3, 17, 8], to=[1, 30])
            for row, source in enumerate((3, 17, 8)):
                for column, target in enumerate((1, 30)):
                    slow = explicit(model, layer, head, source, target)
                    np.testing.assert_allclose(found.values[row, column], slow, atol=1e-4)


def test_a_model_without_norms_writes_what_the_circuit_says(attention_only_model):
    """In a run of one token what a head does to the logits is a row of its OV circuit."""
    model = without_positions(attention_only_model)
    last = model.cfg.n_layers - 1
    model.blocks[last].attn.b_V.data.zero_()
    for layer in range(last):
        model.blocks[layer].attn.W_O.data.zero_()
        model.blocks[layer].attn.b_O.data.zero_()
    with_head = model(torch.tensor([[17]]))[0, 0]
    cut = copy.deepcopy(model)
    cut.blocks[last].attn.W_O.data[3] = 0
    direct = with_head - cut(torch.tensor([[17]]))[0, 0]
    found = ov_circuit(model, last, 3, [17], to=range(model.cfg.d_vocab))
    np.testing.assert_allclose(found.values[0], direct.numpy(), atol=1e-5)


def test_labels():
    model = load_model("toy:trigger")
    made = ov_circuit(model, 1, 0, [4, 5], to=[2])
    assert made.dims == ("source", "output")
    assert made["source_token"].values.tolist() == ["a", "the"]
    assert made["output_token"].values.tolist() == ["REFUSE"]
    assert qk_circuit(model, 1, 0, [4, 5])["query_token"].values.tolist() == ["a", "the"]


@pytest.mark.parametrize("circuit", [qk_circuit, ov_circuit])
@pytest.mark.parametrize(
    ("where", "tokens", "said"),
    [
        ((9, 0), [1], "layer 9"),
        ((0, 99), [1], "head 99"),
        ((0, 0), [], "no tokens"),
        ((0, 0), [5000], "5000"),
    ],
)
def test_what_is_refused(absolute_model, refuses, circuit, where, tokens, said):
    refuses(lambda: circuit(absolute_model, *where, tokens), said)


def test_a_distance_beyond_the_context_is_refused(absolute_model, refuses):
    refuses(lambda: qk_circuit(absolute_model, 0, 0, [1], distance=99), "distance=99")
