"""What was found of harmful requests, on fewer pairs, layers and random directions."""

import runpy
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "harmful_direction.py"


@pytest.mark.slow
def test_harmful_direction(smollm2):
    main = runpy.run_path(str(EXPERIMENT))["main"]
    verdicts, found = main(smollm2, n_per_topic=6, layers=(0, 14, 16), n_random=2, n_measured=6)
    assert len(verdicts) == 7
    for claim, holds in verdicts.items():
        if "is the best" in claim or "refuse" in claim or "learnt better" in claim:
            assert not holds, claim
    balanced = found["probed"]["mean"].sel(measure="balanced_accuracy")
    assert float(balanced.sel(of="task", layer=0)) == 0.5  # the last token is the template's
    assert float(balanced.sel(of="task", layer=16)) > 0.7
    assert float(balanced.sel(of="random weights", layer=16)) < 0.65
    assert float(balanced.sel(of="control", layer=16)) > 0.7
    assert abs(found["refusal"]["harmful"] - found["refusal"]["benign"]) < 0.5
    assert abs(float(found["used"]["mean"].sel(how="ablate")[0])) < 0.6
