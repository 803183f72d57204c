"""Direct attribution against a loop over every link, and against the plain model's logits."""

import copy
import warnings

import numpy as np
import pytest
import torch

from mechinterp import HookError, ask, centred_logit, last, load_model, logit_diff
from mechinterp.attribution.methods.direct import direct_attribution, direct_attribution_by_head
from mechinterp.core.metrics import sequence_log_prob

IDS = [7, 1, 30, 8, 2, 19]
INPUTS = [1, 2, 4]


def direction(model, resid, right, wrong):
    """The centred logit (or the difference) as a linear function of the stream: slope, constant."""
    W_U, b_U = model.W_U.double(), model.b_U.double()
    other = (W_U.mean(1), b_U.mean()) if wrong is None else (W_U[:, wrong], b_U[wrong])
    slope, constant = W_U[:, right] - other[0], b_U[right] - other[1]
    kind = model.cfg.normalization_type
    if kind is None:
        return slope, constant
    norm = model.ln_final
    if kind in ("LN", "RMS"):
        constant = constant + (norm.b.double() @ slope if kind == "LN" else 0)
        slope = norm.w.double() * slope
    if kind.startswith("LN"):
        resid, slope = resid - resid.mean(), slope - slope.mean()
    return slope / (resid.pow(2).mean() + norm.eps).sqrt(), constant


def slow_parts(model, question, right, row, wrong=None):
    """Every part by itself: links `[layer, head, source]`, the own embedding, and the rest."""
    cache = model.run_with_cache(question.sequence.tokens)[1]
    cfg, width = model.cfg, question.sequence.width
    slope, constant = direction(
        model, cache["resid_post", cfg.n_layers - 1][0, row].double(), right, wrong
    )
    links = np.zeros((cfg.n_layers, cfg.n_heads, width))
    own = float(cache["hook_embed"][0, row].double() @ slope)
    rest = float(constant)
    if cfg.positional_embedding_type == "standard":
        rest += float(cache["hook_pos_embed"][0, row].double() @ slope)
    for layer in range(cfg.n_layers):
        block = model.blocks[layer]
        rest += float(block.attn.b_O.double() @ slope)
        if not cfg.attn_only:
            rest += float(cache["mlp_out", layer][0, row].double() @ slope)
        for head in range(cfg.n_heads):
            bias = block.attn.b_V[head].double()
            if cfg.normalization_type == "LN":
                bias = bias + block.ln1.b.double() @ block.attn.W_V[head].double()
            toward = block.attn.W_O[head].double() @ slope
            shared = head * cache["v", layer].shape[2] // cfg.n_heads
            for source in range(width):
                share = float(cache["pattern", layer][0, head, row, source])
                value = cache["v", layer][0, source, shared].double()
                links[layer, head, source] = share * float((value - bias) @ toward)
                rest += share * float(bias @ toward)
    return links, own, rest


def centred(model, question):
    logits = model(question.sequence.tokens)[0].double()
    pairs = zip(question.rows, question.output_ids, strict=True)
    return np.array([float(logits[row, token] - logits[row].mean()) for row, token in pairs])


def test_every_part_is_what_the_slow_loop_finds(model):
    question = ask(model, torch.tensor(IDS), 3, inputs=INPUTS)
    whole, heads = direct_attribution(question), direct_attribution_by_head(question)
    assert heads.dims == ("output", "layer", "head", "input")
    for i, (row, token) in enumerate(zip(question.rows, question.output_ids, strict=True)):
        links, own, rest = slow_parts(model, question, token, row)
        np.testing.assert_allclose(heads.values[i][..., INPUTS], links[..., INPUTS], atol=1e-4)
        each = links.sum((0, 1))
        each[row] += own
        np.testing.assert_allclose(whole.values[i, INPUTS], each[INPUTS], atol=1e-4)
        other = [pos for pos in range(len(each)) if pos not in INPUTS]
        assert float(whole.unattributed[i]) == pytest.approx(each[other].sum(), abs=1e-4)
        assert float(whole.rest[i]) == pytest.approx(rest, abs=1e-4)
    assert np.isnan(whole.values).tolist() == [[pos not in INPUTS for pos in range(6)]] * 3


def test_parts_add_up_to_the_centred_logit(model):
    question = ask(model, torch.tensor(IDS), 3, inputs=INPUTS)
    found = direct_attribution(question)
    added = found.sum("input") + found.unattributed + found.rest
    np.testing.assert_allclose(added, centred(model, question), atol=1e-4)
    np.testing.assert_allclose(found.total, centred(model, question), atol=1e-4)
    assert found.attrs["metric"] == "centred_logit"
    assert found.attrs["unit"] == "logits"


def test_heads_and_the_own_embedding_make_the_whole(model):
    question = ask(model, torch.tensor(IDS), last(3))
    heads, whole = direct_attribution_by_head(question), direct_attribution(question)
    together = heads.sum(("layer", "head")) + heads.own
    np.testing.assert_allclose(together, whole.values, atol=1e-9)
    for name in ("rest", "unattributed", "total"):
        np.testing.assert_allclose(heads[name], whole[name], atol=1e-9)
    own = heads.own.values
    assert (own[np.arange(6) != whole.output_position.values[:, None]] == 0).all()
    assert (np.abs(own[[0, 1, 2], whole.output_position.values]) > 1e-4).all()


def test_a_difference_of_logits_is_measured_as_it_is(model):
    question = ask(model, torch.tensor(IDS), 2, logit_diff(5, 11))
    found = direct_attribution(question)
    assert found.attrs["metric"] == "logit_diff"
    np.testing.assert_allclose(found.total, question.scores, atol=1e-4)
    for i, row in enumerate(question.rows):
        links, own, rest = slow_parts(model, question, 5, row, wrong=11)
        each = links.sum((0, 1))
        each[row] += own
        np.testing.assert_allclose(found.values[i], each[:6], atol=1e-4)
        assert float(found.rest[i]) == pytest.approx(rest, abs=1e-4)


def test_several_outputs_together_are_their_sum(model):
    together = direct_attribution(ask(model, torch.tensor(IDS), 3, sequence_log_prob()))
    apart = direct_attribution(ask(model, torch.tensor(IDS), 3, centred_logit()))
    np.testing.assert_allclose(together.values[0], apart.values.sum(0), atol=1e-4)
    for name in ("rest", "unattributed", "total"):
        assert float(together[name][0]) == pytest.approx(float(apart[name].sum()), abs=1e-4)


def test_folding_the_weights_changes_no_part(absolute_model, grouped_model):
    for model in (absolute_model, grouped_model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folded = copy.deepcopy(model)
            folded.load_and_process_state_dict(
                copy.deepcopy(model.state_dict()),
                center_writing_weights=model.cfg.normalization_type == "LN",
            )
        assert folded.cfg.normalization_type.endswith("Pre")
        answers = list(ask(model, torch.tensor(IDS), 3).output_ids)
        raw, new = (direct_attribution(ask(m, torch.tensor(IDS), answers)) for m in (model, folded))
        np.testing.assert_allclose(new.values, raw.values, atol=1e-4)
        np.testing.assert_allclose(new.rest, raw.rest, atol=1e-4)


def test_what_comes_after_an_output_scores_exactly_zero(model):
    found = direct_attribution(ask(model, torch.tensor(IDS), last(4)))
    future = found.input.values > found.output_position.values[:, None]
    assert future.sum() == 3 + 2 + 1
    assert (found.values[future] == 0.0).all()
    assert (found.values[~future] != 0.0).all()


def test_a_unit_is_the_sum_of_its_tokens(model):
    spans = {"a": [0, 5], "b": (1, 3)}
    each = direct_attribution(ask(model, torch.tensor(IDS), last(2))).values
    found = direct_attribution(ask(model, torch.tensor(IDS), last(2), units=spans))
    names = found.input_name.values.tolist()
    for name, positions in {"a": [0, 5], "b": [1, 2, 3]}.items():
        summed = each[:, positions].sum(1)
        np.testing.assert_allclose(found.values[:, names.index(name)], summed, atol=1e-6)
    np.testing.assert_allclose(found.unattributed, each[:, 4], atol=1e-6)


def test_both_of_two_triggers_are_read():
    found = direct_attribution(ask(load_model("toy:trigger"), "bring the sesame and the sesame", 1))
    words = found.values[0, 1:]
    assert sorted(np.argsort(-words)[:2]) == [2, 5]
    np.testing.assert_allclose(words[2], words[5], atol=1e-3)
    assert np.abs(np.delete(words, [2, 5])).max() < 0.1 * words[2]


def test_nothing_is_left_on_the_model(absolute_model, snapshot):
    before = snapshot(absolute_model)
    direct_attribution(ask(absolute_model, torch.tensor(IDS), 2))
    before.check()


def test_positions_that_each_layer_reads_are_no_part(small):
    model = small(positional_embedding_type="shortformer")
    question = ask(model, torch.tensor(IDS), 2)
    found = direct_attribution(question)
    for i, (row, token) in enumerate(zip(question.rows, question.output_ids, strict=True)):
        assert float(found.rest[i]) == pytest.approx(
            slow_parts(model, question, token, row)[2], abs=1e-4
        )


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"use_normalization_before_and_after": True}, ValueError, "a norm to the summed output"),
        ({"output_logits_soft_cap": 3.0}, ValueError, "caps its logits"),
        ({"clip_qkv": 0.5}, HookError, "differ from what the heads wrote"),
    ],
)
def test_a_logit_that_is_no_sum_is_refused(options, kind, said, small):
    question = ask(small(**options), torch.tensor(IDS), 2)
    with pytest.raises(kind, match=said):
        direct_attribution(question)


@pytest.mark.slow
def test_a_real_model_adds_up(smollm2):
    text = "When Mary and John went to the store, John gave a drink to"
    question = ask(smollm2, text, 3)
    found = direct_attribution(question)
    added = found.sum("input") + found.unattributed + found.rest
    np.testing.assert_allclose(added, centred(smollm2, question), atol=1e-3)
    heads = direct_attribution_by_head(question)
    np.testing.assert_allclose(heads.sum(("layer", "head")) + heads.own, found, atol=1e-6)
    assert heads.shape == (3, 30, 9, len(question.units))
