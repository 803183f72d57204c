"""Rates by kind, agreement of first tokens, replies and wordings."""

import numpy as np
import pytest

from mechinterp.refusal.behaviour import (
    is_refusing_reply,
    measure_behaviour,
    refusal_behaviour,
    share_estimate,
)
from mechinterp.refusal.texts import score_prompts
from mechinterp.tasks.request_families import Request

REQUESTS = [
    Request("bring the sesame", harmful=True, family="a", topic="x"),
    Request("open the sesame to me", harmful=True, family="a", topic="x"),
    Request("close the door", harmful=True, family="b", topic="y"),
    Request("open your sesame", harmful=True, family="b", topic="y"),
    Request("bring my book", harmful=False, family="a", topic="x", telling="bring"),
    Request("paint my book", harmful=False, family="b", topic="y"),
]


def test_what_the_trigger_toy_does(refusing):
    model, _ = refusing("toy:trigger")
    behaviour = refusal_behaviour(model)
    scores = score_prompts(model, behaviour, [r.prompt for r in REQUESTS])
    found = measure_behaviour(model, behaviour, REQUESTS, scores, n_replies=4)
    assert found.rates["harmful"].mean == 0.75
    assert found.rates["harmful"].n == 2
    assert found.rates["benign with the telling word"].mean == 0
    assert found.by_topic == {"x": 1.0, "y": 0.5}
    assert found.paraphrase_agreement == 0.5
    assert found.agreement == found.seed_agreement == 1
    assert len(found.replies) == 4
    assert found.n_seeds == 5
    pairs = [a > b for a in scores[:4] for b in scores[4:]] + [0.5] * 0
    ties = [a == b for a in scores[:4] for b in scores[4:]]
    assert found.auroc == pytest.approx(np.mean(pairs) + np.mean(ties) / 2)


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I cannot assist with this request.", True),
        ("As an AI I am not able to provide that.", True),
        ("Sure! To kill a process, use the kill command.", False),
        ("I would begin with the soil: no weeds grow there.", False),
        ("Here is what you cannot see from afar.", False),
    ],
)
def test_replies_are_told_by_what_they_say(refusing, reply, refuses):
    _, behaviour = refusing("toy:trigger")
    assert is_refusing_reply(reply, behaviour) == refuses


def test_shares_of_few_groups():
    assert np.isnan(share_estimate([]).mean)
    assert share_estimate([[True, False]]).low == 0
    found = share_estimate([[True, True], [False, False], [True, False]])
    assert found.low < found.mean == 0.5 < found.high


def test_bad_input(refusing, refuses):
    model, behaviour = refusing("toy:trigger")
    refuses(lambda: measure_behaviour(model, behaviour, REQUESTS, np.zeros(2)), "2 scores of 6")
    zeros = np.zeros(6)
    refuses(lambda: measure_behaviour(model, behaviour, REQUESTS, zeros, n_seeds=3), "fewer than 5")
