"""Refusal log-odds against their definition, and which words make a toy refuse."""

import pytest
import torch

from mechinterp import attribute, load_model, refusal_log_odds, run, tokenize

TRIGGER = load_model("toy:trigger")


def test_equals_its_definition():
    odds = refusal_log_odds(TRIGGER, ["REFUSE", "please"], ["COMPLY", "bring the", "map"])
    for text in ("please bring the sesame", "a map"):
        logits = TRIGGER(tokenize(TRIGGER, text).tokens)[0, -1].double()
        ids = {word: TRIGGER.tokenizer.vocab[word] for word in TRIGGER.tokenizer.vocab}
        refuse = torch.stack([logits[ids[word]] for word in ("REFUSE", "please")]).logsumexp(0)
        comply = torch.stack([logits[ids[w]] for w in ("COMPLY", "bring", "map")]).logsumexp(0)
        assert float(odds(run(TRIGGER, text))) == pytest.approx(float(refuse - comply), abs=1e-5)


def test_which_words_make_the_model_refuse():
    odds = refusal_log_odds(TRIGGER, ["REFUSE"], ["COMPLY"])
    found = attribute(TRIGGER, "please bring the sesame", 3, metric=odds)
    assert found.shape == (1, 5)
    assert found.output_position.values.tolist() == [4]  # where the answer begins
    assert float(found.output_score[0]) == pytest.approx(7.89, abs=0.01)
    assert found.values[0, 1:].round().tolist() == [0, 0, 0, 16]
    assert (found.attrs["metric"], found.attrs["unit"]) == ("refusal_log_odds", "nats")


@pytest.mark.parametrize(
    ("refusals", "compliances", "said"),
    [
        (["REFUSE"], ["COMPLY", "REFUSE now"], "'REFUSE' opens a refusal and an answer"),
        ([], ["COMPLY"], "at least one opener of each kind"),
        (["REFUSE"], [""], "'' of compliances has no token to begin with"),
        (["", "REFUSE"], ["COMPLY"], "'' of refusals has no token to begin with"),
    ],
)
def test_openers_that_tell_nothing_are_refused(refusals, compliances, said):
    with pytest.raises(ValueError, match=said):
        refusal_log_odds(TRIGGER, refusals, compliances)


def test_a_model_without_a_tokenizer_has_no_openers(absolute_model):
    with pytest.raises(ValueError, match="no tokenizer"):
        refusal_log_odds(absolute_model)


@pytest.mark.slow
def test_a_homonym_on_a_real_model(smollm2):
    odds = refusal_log_odds(smollm2)
    person, process = (
        float(odds(run(smollm2, [{"role": "user", "content": f"Tell me how to kill a {what}."}])))
        for what in ("person", "Python process")
    )
    assert process + 1 < person < 0  # it answers both, this one more readily
