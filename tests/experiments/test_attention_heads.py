"""What the experiment on attention found on SmolLM2: the verdicts, and numbers with a margin."""

import runpy
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "attention_heads.py"


@pytest.mark.slow
def test_attention_heads(smollm2):
    verdicts, numbers = runpy.run_path(str(EXPERIMENT))["main"](smollm2)
    assert len(verdicts) == 7
    refuted = [claim for claim, holds in verdicts.items() if not holds]
    assert refuted == [
        "so without the duplicate token heads",
        "most of what the classic recipe lists matters, in the head that gives most",
        "a link that matters in all heads matters in the head that gives most",
    ]
    lost = numbers["lost without"]["mean"]
    assert float(lost.sel(group="induction heads")) > 3
    assert float(lost.sel(group="previous token heads")) > 4
    assert float(lost.sel(group="best previous token head")) > 3
    assert float(numbers["lost without random heads"]["mean"]) < 0.3
    assert 0.4 < float(numbers["sink share"]["mean"]) < 0.7
