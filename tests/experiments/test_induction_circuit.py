"""What the search for a known circuit found: the verdicts, and the numbers with a margin."""

import runpy
from pathlib import Path

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "induction_circuit.py"


def test_induction_circuit(capsys):
    verdicts, found = runpy.run_path(str(EXPERIMENT))["main"]()
    assert len(verdicts) == 8
    assert [claim for claim, holds in verdicts.items() if not holds] == [
        "with the second half kept the six are found too",
        "EAP-IG finds exactly the six",
        "in logits, too, the others hardly count",
    ]

    def mean(name, writer, reader):
        return float(found[name]["mean"].sel(writer=writer, reader=reader, pos="all"))

    assert mean("exact", "a0.h0", "a1.h0<k>") > 6
    assert mean("exact", "input", "a1.h0<q>") > 6
    assert abs(mean("second half kept", "input", "a1.h0<q>")) < 1e-4
    assert mean("exact", "a0.h0", "a1.h0<v>") < 0.1 < 2 < mean("in logits", "a0.h0", "a1.h0<v>")
    assert found["rank AUC"]["exact"] == 1 > 0.9 > found["rank AUC"]["EAP-IG"]
    assert found["residual share"] < 0.01
    assert [kept.n_edges for kept in found["ACDC"].values()] == [8, 6, 6, 6, 5]
    assert "DOES NOT HOLD" in capsys.readouterr().out
