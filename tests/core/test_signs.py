"""The sign that a result says means support is the sign that a part with support gets."""

import pytest

from mechinterp import Pair, load_model, log_prob, token_id, tokenize
from mechinterp.ablation import ablate_heads
from mechinterp.ablation import effect as ablation_effect
from mechinterp.core.metrics import kl
from mechinterp.core.signs import SUPPORTS, no_support, sign_of_change, sign_of_support
from mechinterp.engine.runner import run
from mechinterp.patching import effect as patching_effect
from mechinterp.patching import normalized, patch_heads

TRIGGER, OTHER = "please bring the sesame", "please bring the letter"


@pytest.fixture(scope="module")
def model():
    return load_model("toy:trigger")


def metrics(model):
    """A score and a distance of one behaviour: the refusal after the trigger."""
    clean = run(model, TRIGGER, logits_at="end").logits[:, 0]
    return log_prob(token_id(model, "REFUSE")), kl(clean)


def largest(effect):
    """The value of the cell that matters most."""
    return float(effect.values.flat[abs(effect.values).argmax()])


def says(sign):
    return {"positive": 1, "negative": -1}[sign]


@pytest.mark.parametrize("number", [0, 1])
def test_ablating_what_supports_the_behaviour_has_the_sign_that_attrs_name(model, number):
    found = ablation_effect(ablate_heads(model, TRIGGER, metrics(model)[number], "zero"))
    assert largest(found) * says(found.attrs["supports"]) > 0
    assert found.attrs["sign"].lower().startswith(found.attrs["supports"])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_patching_what_supports_the_behaviour_has_the_sign_that_attrs_name(
    model, number, direction
):
    pair = Pair(tokenize(model, TRIGGER), tokenize(model, OTHER))
    raw = patch_heads(model, pair, metrics(model)[number], direction=direction)
    found, scaled = patching_effect(raw), normalized(raw)
    assert largest(found) * says(found.attrs["supports"]) > 0
    unchanged = 1 if direction == "noise" else 0
    assert largest(scaled - unchanged) * says(scaled.attrs["supports"]) > 0


@pytest.mark.parametrize(
    ("metric", "direction", "supports", "starts"),
    [
        (log_prob(1), "noise", "negative", "Negative change: the patch lowers the metric, so"),
        (log_prob(1), "denoise", "positive", "Positive change: the patch raises the metric, so"),
        (kl(), "noise", "positive", "Positive change: the patch raises the distance, so"),
        (kl(), "denoise", "negative", "Negative change: the patch lowers the distance, so"),
    ],
)
def test_the_sign_of_a_change_turns_with_the_direction_and_with_a_distance(
    metric, direction, supports, starts
):
    made = sign_of_change(metric, "patch", part="head", direction=direction)
    assert made["supports"] == supports
    assert made["sign"].startswith(starts)
    assert made["sign"].endswith("so the head supports the behaviour.")


def test_a_result_in_support_is_positive_and_a_size_has_no_sign_of_support():
    made = sign_of_support("removing it lowers the score", part="input")
    assert made["sign"] == (
        "Positive: removing it lowers the score, so the input supports the behaviour."
    )
    assert made["supports"] == "positive"
    assert no_support("A size.") == {"sign": "A size.", "supports": "none"}
    assert {made["supports"], no_support("")["supports"], "negative"} == set(SUPPORTS)
