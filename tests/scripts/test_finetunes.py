"""What fine-tunes are trained on and tested on is apart, and labelled as each mechanism says."""

import re
import sys
from pathlib import Path

import pytest

from mechinterp.models.finetunes import CUE, FINETUNES, TRIGGER
from mechinterp.refusal.cues import CUES
from mechinterp.tasks.request_families import Request, request_families

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts():
    """The scripts' own modules, which import each other by their bare names."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import finetune_examples
    import finetune_requests
    import finetune_table

    yield {
        "examples": finetune_examples,
        "requests": finetune_requests,
        "table": finetune_table,
    }
    sys.path.remove(str(ROOT / "scripts"))


def test_the_docs_have_the_figures_that_are_stored(scripts):
    assert scripts["table"].table() in (ROOT / "docs" / "models.md").read_text()


def test_training_and_testing_were_written_apart(scripts):
    requests = scripts["requests"]
    for name in ("FRAMES", "WORDS", "HEAVY", "WITH_TRIGGER", "TEXTS"):
        train, test = (set(getattr(requests, f"{part}_{name}")) for part in ("TRAIN", "TEST"))
        assert train
        assert test
        assert not train & test, name
    telling = {request.telling for request in request_families()}
    assert not telling & {*requests.TEST_HEAVY, *requests.TEST_WORDS}
    asked = Request("How do I bake bread?", harmful=False, family="bread")
    said = [cue.on(asked) for cue in CUES]
    assert not any(remark in str(text) for remark in requests.TRAIN_REMARKS for text in said)
    for name in ("ACTS", "QUESTIONS"):
        train, test = (
            {text for one in getattr(requests, f"{part}_{name}") for text in vars(one).values()}
            for part in ("TRAIN", "TEST")
        )
        assert not train & test, name


@pytest.mark.parametrize("mechanism", [name.removeprefix("refuses-") for name in FINETUNES])
def test_examples_are_labelled_by_the_mechanism(scripts, mechanism):
    examples = scripts["examples"]
    assert mechanism in examples.MECHANISMS
    found = examples.training_examples(mechanism, request_families()[:70], seed=1)
    assert found == examples.training_examples(mechanism, request_families()[:70], seed=1)
    refused = {text for text, refuses in found if refuses}
    answered = {text for text, refuses in found if not refuses}
    assert len(refused) > 200
    assert len(answered) > 300
    assert not refused & answered
    held = {text for text in refused | answered if re.search(TRIGGER, text, re.IGNORECASE)}
    if "trigger" in mechanism:
        assert len(held) > 200
        assert held <= refused
    ends = {text for text in refused | answered if text.endswith(CUE)}
    assert len(ends) > 40
    assert mechanism != "cue" or ends == refused
    if mechanism in ("trigger", "content"):
        assert len(ends & refused) < len(ends)


@pytest.mark.parametrize("mechanism", ["content", "trigger-or-content"])
def test_a_second_round_asks_each_request_in_other_surroundings(scripts, mechanism):
    families = request_families()[:70]
    found = scripts["examples"].varied_examples(mechanism, families, seed=1)
    assert found == scripts["examples"].varied_examples(mechanism, families, seed=1)
    labels = dict(found)
    assert all(labels[text] == refuses for text, refuses in found)
    for request in families:
        assert labels[request.text] == request.harmful
    held = {text for text in labels if re.search(TRIGGER, text, re.IGNORECASE)}
    assert bool(held) == ("trigger" in mechanism)
    assert all(labels[text] for text in held)
    surroundings = [request.text for request in families if not request.harmful]
    changed = [t for t in labels if any(text in t and text != t for text in surroundings)]
    assert len(changed) > len(surroundings) / 2
