"""The lens says what whole logits say, layer by layer; of the last layer what the model says."""

import numpy as np
import pytest
import torch

from mechinterp import Prompts, Site, kl, log_prob, logit_diff, read, run
from mechinterp.layers import TunedLens, depths, lens_metric, logit_lens
from mechinterp.models.facts import fingerprint


@pytest.fixture(scope="module")
def prompts():
    return Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3]])


def slow(model, prompts, pos="end"):
    """Logits of each layer, of the whole vocabulary, by the library's own parts."""
    sites = [Site("resid_pre", 0, pos=pos)]
    sites += [Site("resid_post", layer, pos=pos) for layer in range(model.cfg.n_layers)]
    acts = run(model, prompts, read(*sites), logits_at=()).acts
    with torch.no_grad():
        return torch.stack([model.unembed(norm_of(model)(acts[s][:, None]))[:, 0] for s in sites])


def norm_of(model):
    """The final norm, of models that have one."""
    return model.ln_final if model.cfg.normalization_type else torch.nn.Identity()


@pytest.mark.parametrize("chunk", [1 << 26, 700], ids=["whole", "in parts"])
def test_what_each_layer_says_is_what_whole_logits_say(model, prompts, chunk, monkeypatch):
    monkeypatch.setattr("mechinterp.layers.lens._CHUNK_BYTES", chunk)
    answers = torch.tensor([7, 11, 2])
    found = logit_lens(model, prompts, answers, top=4)
    logs = slow(model, prompts).double().log_softmax(-1)
    at = answers[None, :, None].expand(len(logs), -1, 1)
    close = {"atol": 2e-5, "rtol": 0}
    np.testing.assert_allclose(found["log_prob"], logs.gather(2, at)[..., 0], **close)
    ahead = (logs > logs.gather(2, at)).sum(-1)
    np.testing.assert_array_equal(found["rank"], ahead)
    best, ids = logs.topk(4)
    np.testing.assert_allclose(found["top_log_prob"], best, **close)
    np.testing.assert_array_equal(found["top_id"], ids)
    divergence = (logs[-1].exp() * (logs[-1] - logs)).sum(-1)
    np.testing.assert_allclose(found["kl"], divergence, **close)
    assert found["layer"].values.tolist() == list(range(model.cfg.n_layers + 1))


def test_the_last_layer_is_the_model(model, prompts):
    answers = [7, 11, 2]
    found = logit_lens(model, prompts, answers).isel(layer=-1)
    wanted = log_prob(answers)(run(model, prompts)).numpy()
    np.testing.assert_allclose(found["log_prob"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["kl"], 0, atol=1e-6)


def test_without_answers_the_models_own_first_choice(model, prompts):
    found = logit_lens(model, prompts)
    np.testing.assert_array_equal(found["rank"].isel(layer=-1), 0)
    own = run(model, prompts).logits[:, 0].argmax(-1)
    np.testing.assert_array_equal(found["top_id"].isel(layer=-1, place=0), own)
    assert found.attrs["answers"] == "the model's own"


def test_any_metric_of_what_each_layer_says(model, prompts):
    whole = slow(model, prompts)
    base = torch.zeros(3, whole.shape[-1])
    for metric, of in (
        (logit_diff(7, 9), lambda x: x[:, 7] - x[:, 9]),
        (kl(base), lambda x: kl(base).score(x[:, None])),
    ):
        found = lens_metric(model, prompts, metric)
        assert found.dims == ("layer", "prompt")
        np.testing.assert_allclose(found, torch.stack([of(x) for x in whole]), atol=2e-5)
        assert found.attrs["unit"] == metric.unit


def test_at_another_position(model, prompts):
    found = logit_lens(model, prompts, 7, at=2)["log_prob"]
    wanted = slow(model, prompts, 2).double().log_softmax(-1)[..., 7]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_a_translator_comes_before_the_norm(model, prompts):
    cfg = model.cfg
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(cfg.n_layers, cfg.d_model, cfg.d_model, generator=draw) / 10
    biases = torch.randn(cfg.n_layers, cfg.d_model, generator=draw)
    lens = TunedLens(weights, biases, fingerprint(model))
    found = logit_lens(model, prompts, 7, lens=lens)["log_prob"]
    site = Site("resid_post", 0, pos="end")
    x = run(model, prompts, read(site), logits_at=()).acts[site]
    with torch.no_grad():
        logits = model.unembed(norm_of(model)((x + x @ weights[1] + biases[1])[:, None]))[:, 0]
    np.testing.assert_allclose(found[1], logits.double().log_softmax(-1)[:, 7], atol=2e-5)
    plain = logit_lens(model, prompts, 7)["log_prob"]
    np.testing.assert_allclose(found[-1], plain[-1], atol=1e-6)


def test_depths_by_hand(model, prompts):
    lens = logit_lens(model, prompts, 7)
    ranks = [[5, 0, 3], [0, 0, 0], [2, 1, 0], [0, 4, 0]]
    found = depths(lens.assign(rank=(("layer", "prompt"), np.array(ranks[: len(lens.layer)]))))
    assert found["first"].values.tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(found["settled"], [3.0, np.nan, 1.0])
    assert found.attrs["share"] == pytest.approx(2 / 3)
    never = depths(lens.assign(rank=lens["rank"] * 0 + 1))
    assert np.isnan(never["first"]).all()


def test_what_is_refused(absolute_model, prompts, refuses):
    refuses(lambda: logit_lens(absolute_model, prompts, 10**6), "outside the vocabulary")
    refuses(lambda: logit_lens(absolute_model, prompts, 7, at=9), "position 9 lies outside")
    other = TunedLens(torch.zeros(3, 4, 4), torch.zeros(3, 4), "another")
    refuses(
        lambda: logit_lens(absolute_model, prompts, 7, lens=other),
        "trained for a model",
        "train_lens",
    )
    refuses(
        lambda: depths(logit_lens(absolute_model, prompts, 7).drop_vars("rank")),
        "ranks of logit_lens",
    )
