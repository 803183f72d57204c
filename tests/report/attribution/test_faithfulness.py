"""Faithfulness as it is shown: the numbers of the data, the best marked, chance set back."""

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from mechinterp.report import print_faithfulness
from mechinterp.report.attribution.faithfulness import read_faithfulness


def printed(found, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_faithfulness(found, console=console)
    return console.file.getvalue()


def test_curves_are_the_data_from_nothing_removed_on(faithful):
    found = read_faithfulness(faithful)
    assert [row.output for row in found.rows] == [0, 1, None]
    panel = found.rows[1].panels[1]
    assert panel.removal == "resample"
    for name, lines in (("most_first", panel.most_first), ("least_first", panel.least_first)):
        for s, line in enumerate(lines):
            assert line.xs == (0.0, 0.25, 0.75)
            assert line.ys == (0.0, *faithful[name].values[s, 1, 1])
            assert line.is_chance == (line.name == "random")
    mean = found.rows[2].panels[0].most_first[0]
    np.testing.assert_allclose(mean.ys[1:], faithful["most_first"].values[0, 0].mean(0))


def test_figures_are_the_data_and_the_best_method_is_marked(faithful):
    found = read_faithfulness(faithful)
    names = [measure.name for measure in found.measures]
    assert names == [
        "comprehensiveness", "sufficiency", "lds@0.5", "drop@1", "drop@3", "sufficiency@1",
        "sufficiency@3",
    ]  # fmt: skip
    panel = found.rows[0].panels[0]
    for s, (scorer, figures) in enumerate(panel.figures.items()):
        here = faithful.isel(scorer=s, removal=0, output=0)
        wanted = [
            here["comprehensiveness"], here["sufficiency"], *here["lds"], *here["drop_at_k"],
            *here["sufficiency_at_k"],
        ]  # fmt: skip
        np.testing.assert_allclose([f.value for f in figures], [float(w) for w in wanted])
        for m, figure in enumerate(figures):
            both = [panel.figures[name][m].value for name in ("one out", "gradients")]
            best = min(both) if names[m].startswith("sufficiency") else max(both)
            known = not np.isnan(both).any()
            chance = panel.figures["random"][m].value
            beats = best < chance if names[m].startswith("sufficiency") else best > chance
            is_best = known and beats and scorer != "random" and figure.value == best
            assert figure.is_best == is_best


def test_an_unknown_number_leaves_the_mean_of_the_others(faithful):
    mean = read_faithfulness(faithful).rows[2].panels[0].figures["gradients"][2]
    assert mean.value == faithful["lds"].values[1, 0, 1, 0]


def test_over_prompts_there_are_intervals_and_no_curves(faithful_prompts):
    found = read_faithfulness(faithful_prompts)
    assert (found.n_prompts, found.has_curves, found.has_intervals) == (7, False, True)
    assert (found.unit, len(found.rows)) == ("nats", 1)
    gradients = found.rows[0].panels[0].figures["gradients"]
    assert [(f.value, f.low, f.high) for f in gradients] == [(0.75, 0.5, 1.25), (2.0, 1.75, 2.5)]
    assert [f.is_best for f in gradients] == [True, False]


def test_other_data_is_refused(faithful, scores):
    with pytest.raises(ValueError, match="holds flips: give the dataset of faithfulness"):
        read_faithfulness(scores["flip"].to_dataset(name="flips").drop_vars("flip"))


def test_terminal_has_every_figure_of_the_mean(faithful):
    text = printed(faithful)
    assert "Faithfulness, mean over outputs; drops in nats" in text
    for panel in read_faithfulness(faithful).rows[2].panels:
        part = text.split(f"removed by {panel.removal}")[1].split("removed by")[0]
        for figures in panel.figures.values():
            for figure in figures:
                mark = r"\*" if figure.is_best else r"(?!\*)"
                number = f"{figure.value:+.2f}".replace("-", "−").replace("+", r"\+")
                assert re.search(number + mark, part)


def test_terminal_prints_intervals(faithful_prompts):
    text = printed(faithful_prompts)
    assert "mean over 7 prompts, with intervals" in text
    assert "+0.75* [+0.50, +1.25]" in text
    assert "sufficiency ↓" in text


@pytest.mark.parametrize("width", [40, 60, 200])
def test_no_line_is_wider_than_the_terminal(faithful, faithful_prompts, width):
    for found in (faithful, faithful_prompts):
        text = printed(found, width)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert text.count("gradients") >= 2 - (found is faithful_prompts)


def test_one_output_is_named(faithful):
    assert "Faithfulness, for ␣her" in printed(faithful.isel(output=[0]))
