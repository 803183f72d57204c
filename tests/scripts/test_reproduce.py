"""Figures of the page, and what an experiment finds, are compared as scripts/reproduce says."""

import importlib.util
import sys
from pathlib import Path

import pytest
import xarray as xr

ROOT = Path(__file__).parents[2]
PAGE = """# Findings

## A claim: 1.50 [1.20, 1.80] nats, 24 prompts

| heads | L1H0 −0.93 [−1.05,
−0.80], L2H3 .40; at most 0.05; 3 of 4 | holds (p .005) |
| more | 12.5% off | |

## Another

Nothing.
"""


@pytest.fixture(scope="module")
def reproduce():
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def interval(mean, low, high):
    return xr.Dataset({"mean": mean, "low": low, "high": high})


def phrases(head=-0.9, count=3):
    return {
        "A claim: #": [interval(1.4, 1.1, 1.7)],
        "L1H0 #, L2H3 #": [interval(head, head - 0.1, head + 0.1), 0.41],
        "at most #; # of #": [BOUND, count, 4],
        "# off": [0.125],
    }


BOUND = None


@pytest.fixture
def source(reproduce, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "BOUND", reproduce.Bound(0.04))
    return lambda **changed: reproduce.Source("A claim", lambda found: phrases(**changed), {})


def wrong(reproduce, source, page=PAGE, verdicts=None):
    text = reproduce.text_of(source, page, Path())
    return reproduce.checked("x", source, text, verdicts or {}, {}, quick=False)


def test_figures_in_their_places(reproduce, source, capsys):
    assert wrong(reproduce, source()) == 0
    assert "7 figures, 0 wrong" in capsys.readouterr().out


def test_a_figure_that_left_its_interval(reproduce, source, capsys):
    assert wrong(reproduce, source(head=-0.7)) == 1
    assert capsys.readouterr().out.count("LEFT ITS PLACE") == 1


def test_counts_are_exact(reproduce, source):
    assert wrong(reproduce, source(count=2)) == 1


def test_a_bound_is_one(reproduce, source, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "BOUND", reproduce.Bound(0.06))
    assert wrong(reproduce, source()) == 1


def test_a_figure_that_nothing_gives(reproduce, source, capsys):
    assert wrong(reproduce, source(), PAGE.replace("12.5% off", "12.5% off, or 0.77")) == 1
    assert "no experiment gives" in capsys.readouterr().out


def test_a_verdict_that_changed(reproduce, source, capsys):
    assert wrong(reproduce, source(), verdicts={"it holds": True, "it does not": False}) == 1
    assert "it does not" in capsys.readouterr().out


def test_a_phrase_that_is_gone(reproduce, source):
    with pytest.raises(ValueError, match="0 times"):
        wrong(reproduce, source(), PAGE.replace("at most", "below"))


def test_every_experiment_has_figures_and_a_section(reproduce):
    assert {file.stem for file in (ROOT / "experiments").glob("*.py")} == reproduce.SOURCES.keys()
    page = (ROOT / "docs" / "findings.md").read_text()
    for name, source in reproduce.SOURCES.items():
        assert reproduce.text_of(source, page, ROOT / "experiments" / f"{name}.py")


def test_an_experiment_is_compared_with_the_page(reproduce, capsys):
    assert reproduce.main(["induction_circuit"]) == 0
    assert "all figures are in their places" in capsys.readouterr().out


def test_intervals_of_now_are_put_into_the_page(reproduce, source):
    page = reproduce.with_intervals(PAGE, source(), {})
    assert "A claim: 1.50 [1.10, 1.70] nats" in page
    assert "L1H0 −0.93 [−1.00,\n−0.80], L2H3 .40; at most 0.05; 3 of 4" in page
    assert page.count("[") == PAGE.count("[")
