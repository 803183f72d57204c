"""What the circuit of SmolLM2 was found to share with GPT-2's, on half of the prompts."""

import runpy
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "indirect_object_circuit.py"


@pytest.mark.slow
def test_indirect_object_circuit(smollm2):
    main = runpy.run_path(str(EXPERIMENT))["main"]
    verdicts, found = main(smollm2, n_prompts=8, n_draws=1, n_exact=25)
    assert len(verdicts) == 15
    for claim in (
        "the strongest edge into the logits is a name mover's",
        "duplicate token heads do",
        "the paper's arrows between these heads, with all MLPs, do most of it",
    ):
        assert not verdicts[claim]
    for claim in (
        "S-inhibition heads act on the queries of name movers",
        "negative name movers write against",
        "as many random heads of the same layers do none of it",
    ):
        assert verdicts[claim]
    assert 5 < found["whole"] < 11
    assert abs(found["residual share"]) < 0.01
    assert found["strongest"][0][0] == "input->m0@S2"
    assert found["effect"]["a23.h3->logits@end"] > 3
    assert found["effect"]["m0->a23.h3<v>@S2"] > 1
    assert found["effect"]["a17.h4->a20.h0<v>@S2"] > 0.3

    def total(arrow, contrast=0):
        return found["arrows"][arrow][contrast][1]

    assert total("S-inhibition -> name mover q") > 1.5
    assert total("induction -> S-inhibition kv") > 0.5
    assert total("duplicate token -> S-inhibition kv") < 0.6
    assert total("previous token -> induction kv", 0) == 0
    assert total("previous token -> induction kv", 1) > 0.4

    def share(circuit):
        return float(found["alone"]["faithfulness"].sel(circuit=circuit))

    assert share("paper's arrows") < 0.6 < 0.8 < share("and L23H3") < 1.3
    assert share("and L23H3, no induction") < share("and L23H3") - 0.1
    assert share("random 0") < 0.1
    assert share("1000 edges") > 0.7
