"""Each metric against numbers worked out in numpy from the logits of a run."""

import numpy as np
import pytest
import torch

from mechinterp import (
    Metric,
    Site,
    centred_logit,
    kl,
    log_prob,
    logit,
    logit_diff,
    prob,
    run,
    sweep,
    zero,
)
from mechinterp.core.metrics import columns, top_token

EACH = [4, 11, 36]
OTHERS = [5, 0, 2]
ROWS = np.arange(3)


@pytest.fixture
def done(absolute_model, ragged):
    return run(absolute_model, ragged, logits_at=("end", 1, "S2"))


def at_end(done):
    return done.logits[:, 0].numpy().astype(np.float64)


def probabilities(logits):
    high = np.exp(logits - logits.max(-1, keepdims=True))
    return high / high.sum(-1, keepdims=True)


def raw(answers, **options):
    with pytest.warns(UserWarning, match="a raw logit contains a constant"):
        return logit(answers, **options)


CASES = {
    "log_prob": (log_prob, "nats", lambda x, ids: np.log(probabilities(x))[ROWS, ids]),
    "prob": (prob, "probability", lambda x, ids: probabilities(x)[ROWS, ids]),
    "centred_logit": (centred_logit, "logits", lambda x, ids: x[ROWS, ids] - x.mean(-1)),
    "logit": (raw, "logits", lambda x, ids: x[ROWS, ids]),
    "logit_diff": (
        lambda ids, **options: logit_diff(ids, OTHERS, **options),
        "logits",
        lambda x, ids: x[ROWS, ids] - x[ROWS, OTHERS],
    ),
    "kl": (
        lambda ids, **options: kl(torch.tensor(BASE), **options),
        "nats",
        lambda x, ids: (probabilities(BASE) * np.log(probabilities(BASE) / probabilities(x))).sum(
            -1
        ),
    ),
    "top_token": (
        lambda ids, **options: top_token(**options),
        "token id",
        lambda x, ids: np.array([max(range(37), key=lambda i: row[i]) for row in x]),
    ),
}
BASE = np.random.default_rng(3).normal(size=(3, 37))
WITH_ANSWERS = ("log_prob", "prob", "centred_logit", "logit", "logit_diff")


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers(name, done):
    make, unit, expected = CASES[name]
    metric = make(EACH)
    assert (metric.name, metric.unit, metric.at) == (name, unit, ("end",))
    close(metric(done), expected(at_end(done), EACH))
    assert metric(done).shape == (3,)


@pytest.mark.parametrize("name", CASES)
def test_at_another_position(name, done):
    make, _, expected = CASES[name]
    for number, pos in enumerate(("end", 1, "S2")):
        logits = done.logits[:, number].numpy().astype(np.float64)
        close(make(EACH, at=pos)(done), expected(logits, EACH))


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_answers_in_every_form(name, done):
    make, _, expected = CASES[name]
    close(make(torch.tensor(EACH))(done), expected(at_end(done), EACH))
    close(make(tuple(EACH))(done), expected(at_end(done), EACH))
    for one in (7, torch.tensor([7]), [7]):
        close(make(one)(done), expected(at_end(done), [7, 7, 7]))


def test_one_answer_and_several_others(done):
    x = at_end(done)
    close(logit_diff(3, OTHERS)(done), x[:, 3] - x[ROWS, OTHERS])
    close(logit_diff(EACH, 3)(done), x[ROWS, EACH] - x[:, 3])


@pytest.mark.parametrize("name", CASES)
def test_in_a_sweep_it_is_the_metric_of_each_run(name, absolute_model, ragged):
    metric = CASES[name][0](EACH)
    swept = sweep(absolute_model, ragged, {"head": [0, 3]}, lambda head: zero(Z[head]), metric)
    for head in (0, 3):
        close(swept.sel(head=head), metric(run(absolute_model, ragged, zero(Z[head]))))
    assert swept.name == name


Z = [Site("z", 1, head) for head in range(4)]


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_bound_to_an_answer_that_the_question_left_open(name, done):
    make, unit, expected = CASES[name]
    base = torch.zeros(3, 37)
    asked = make(None).bind(torch.tensor(EACH), 1, base)
    assert (asked.name, asked.unit, asked.at) == (name, unit, (1,))
    logits = done.logits[:, 1].numpy().astype(np.float64)
    if name != "logit":
        close(asked(done), expected(logits, EACH))
    already = make(9).bind(torch.tensor(EACH), 1, base)
    close(already(done), expected(logits, [9, 9, 9]))
    with pytest.raises(ValueError, match=rf"{name}\(\) has no answer token. Give one"):
        make(None)(done)


def test_bound_to_the_unchanged_run(done):
    asked = kl().bind(torch.tensor([1]), 1, torch.tensor(BASE))
    logits = done.logits[:, 1].numpy().astype(np.float64)
    close(asked(done), CASES["kl"][2](logits, None))
    assert asked.distance
    assert not log_prob(1).distance
    itself = kl(done.logits[:, 0])(done)
    close(itself, np.zeros(3))
    with pytest.raises(ValueError, match=r"kl\(\) has no base"):
        kl()(done)
    assert top_token().bind(torch.tensor([1]), 1, torch.tensor(BASE)).at == (1,)


def test_they_say_which_columns_they_read():
    assert logit_diff(EACH, OTHERS).tokens.tolist() == [[4, 5], [11, 0], [36, 2]]
    assert logit_diff(3, OTHERS).tokens.tolist() == [[3, 5], [3, 0], [3, 2]]
    assert raw(4).tokens.tolist() == [[4]]
    assert log_prob(4).tokens is None


def test_a_metric_of_ones_own(done):
    entropy = Metric(
        "entropy",
        "nats",
        ("end", 1),
        lambda x: -(x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean(1),
    )
    p = probabilities(done.logits[:, :2].numpy().astype(np.float64))
    close(entropy(done), (-(p * np.log(p)).sum(-1)).mean(1))


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_answers_that_do_not_fit(name, done):
    make = CASES[name][0]
    for wrong in (37, -1):
        with pytest.raises(ValueError, match=rf"{name}: token id {wrong} is outside .* 37"):
            make(wrong)(done)
    if name != "logit_diff":
        with pytest.raises(ValueError, match=f"{name}: 2 answers for 3 prompts"):
            make([1, 2])(done)


def test_columns():
    assert columns(torch.tensor([[1, 2]]), 3, 5, "m").tolist() == [[1, 2]] * 3
    assert columns(torch.tensor([[1], [2]]), 2, 5, "m").tolist() == [[1], [2]]
    with pytest.raises(ValueError, match="m: token id 5 is outside the vocabulary of 5"):
        columns(torch.tensor([[1, 5]]), 3, 5, "m")
    with pytest.raises(ValueError, match="m: 2 answers for 3 prompts"):
        columns(torch.tensor([[1], [2]]), 3, 5, "m")


def test_small_probabilities_keep_their_digits(done):
    logits = torch.zeros(1, 1, 50_000)
    logits[0, 0, 7] = 30.0
    # log(e^30 + 49999) - 30, to first order 49999 e^-30
    score = log_prob(7).score(logits)
    np.testing.assert_allclose(score.item(), -49_999 * np.exp(-30.0), rtol=1e-4)
