"""The page of probes: every number of the results is on it, and no label is markup."""

import re

import numpy as np
import pytest
import xarray as xr

from mechinterp.probing import Labelled, best_layers, description_length, probe_layers
from mechinterp.report import print_probes, probing_page

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    given = Labelled.of([f"text {i}" for i in range(60)], ["no", EVIL] * 30)
    x = rng.normal(size=(4, 60, 9))
    x[2:, :, 0] += 5 * (1 - given.y)
    acts = xr.DataArray(x, dims=("layer", "prompt", "feature"))
    types = [f"w{i % 6}" for i in range(60)]
    found = probe_layers(acts, given, types=types).assign_attrs(model=EVIL, position="end")
    bits = xr.concat([description_length(acts, given)] * 2, dim="of").assign_coords(
        of=["task", "control"]
    )
    return found, bits, best_layers(found)


def causal(beyond):
    shape = {"how": ["ablate", "steer up"], "kind": ["random", "spread"]}
    own = 3.0 if beyond else 0.5
    values = {"mean": own, "low": own - 0.25, "high": own + 0.25, "least": -1.0, "most": 1.0}
    cells = {name: (("how", "kind"), np.full((2, 2), v)) for name, v in values.items()}
    more = {
        "p": (("how", "kind"), np.full((2, 2), 0.05)),
        "z": (("how", "kind"), [[4.0, np.nan]] * 2),
    }
    attrs = {"layer": 2, "metric": "log_odds"}
    return xr.Dataset(cells | more, shape | {"unit": "nats", "unchanged": 0.5}, attrs)


def test_the_page_says_what_was_found(study):
    found, bits, best = study
    html = probing_page(found, title=f"T {EVIL}", notes=[EVIL], description=bits, best=best)
    assert EVIL not in html
    assert html.count("<script") == 2
    task = found.sel(of="task", measure="balanced_accuracy")
    for layer in range(4):
        mean, low, high = (float(task[name][layer]) for name in ("mean", "low", "high"))
        assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in html
    assert "of 2 layers, 2 to 3, none can be told from it" in html
    assert html.count("<svg") == 2
    marks = re.findall(r'<circle class="mark', html)
    assert len(marks) == 4 * (len(found["of"]) + 2)
    assert "nothing was changed" in html


@pytest.mark.parametrize("beyond", [True, False])
def test_the_causal_half_is_judged_beside_random_directions(study, beyond):
    html = probing_page(study[0], title="T", causal=causal(beyond))
    assert ("beyond every random direction" in html) == beyond
    assert ("no more than random directions do" in html) != beyond
    assert "Is it used? Layer 2" in html
    assert "nothing was changed" not in html
    assert "nan" not in html.replace("finance", "")


def test_the_terminal_says_the_same(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    found, bits, best = study
    print_probes(found, description=bits, best=best, causal=causal(True))
    said = capsys.readouterr().out
    assert "beyond every random direction" in said
    assert "p beside the highest" in said


def test_what_is_no_probe_is_refused(study, refuses):
    other = study[0].sel(of=["shuffled"])
    refuses(lambda: probing_page(other, title="T"), "probed has no task")
