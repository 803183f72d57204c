"""One run over prompts of several lengths, against `gather` and single runs."""

import pytest

from mechinterp import load_model, log_prob, run, token_id
from mechinterp.models.tokenization import tokenize
from mechinterp.probing import gather
from mechinterp.refusal.readings import read_prompts

TEXTS = ["bring the sesame to us", "open it", "please show me the old map near the river", "go"]


def test_readings_are_those_of_gather_and_of_single_runs() -> None:
    model = load_model("toy:refusal")
    metric = log_prob(token_id(model, "REFUSE"))
    found = read_prompts(model, metric, TEXTS)
    prompts = tokenize(model, TEXTS)
    for place, position in (("end", "end"), ("content", "mean")):
        expected = gather(model, prompts, position=position)
        assert found.acts.sel(place=place).values == pytest.approx(expected.values, abs=1e-5)
    alone = [float(metric(run(model, text))) for text in TEXTS]
    assert found.scores == pytest.approx(alone, abs=1e-5)
    assert found.lengths.tolist() == prompts.lengths.tolist()
    some = found.rows([2, 0])
    assert some.prompts == (TEXTS[2], TEXTS[0])
    assert some.scores.tolist() == found.scores[[2, 0]].tolist()
