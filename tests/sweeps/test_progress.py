"""How far a sweep is, and when it will be done."""

import io
import re

import pytest
from rich.console import Console

from mechinterp import Site, log_prob, progress_bar, sweep, zero
from mechinterp.sweeps import progress as module
from mechinterp.sweeps.progress import time_left


@pytest.mark.parametrize(
    ("seconds", "done", "left", "words"),
    [
        (10.0, 50, 100, "about 20 s left"),
        (10.0, 0, 100, ""),
        (60.0, 10, 100, "about 10 min left"),
        (60.0, 1, 180, "about 3.0 h left"),
        (5.0, 10, 0, "about 0 s left"),
    ],
)
def test_the_time_left(seconds, done, left, words):
    assert time_left(seconds, done, left) == words


def shown(monkeypatch, calls, **console):
    """What a bar shows of some calls, each at its second."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    to = Console(file=io.StringIO(), width=80, **console)
    with progress_bar("heads", console=to) as tick:
        for second, done in calls:
            now = float(second)
            tick(done, 1000)
    return to.file.getvalue()


def test_without_a_terminal_a_plain_line_now_and_then(monkeypatch):
    lines = shown(monkeypatch, [(0, 0), (5, 50), (21, 210), (30, 300), (45, 450), (100, 1000)])
    assert lines.splitlines() == [
        "heads: 21% done, about 79 s left",
        "heads: 45% done, about 55 s left",
        "heads: 100% done, about 0 s left",
    ]


def test_what_was_done_before_does_not_make_it_look_fast(monkeypatch):
    lines = shown(monkeypatch, [(0, 800), (30, 830)])
    assert lines == "heads: 83% done, about 3 min left\n"


def test_what_follows_is_a_further_step(monkeypatch):
    lines = shown(monkeypatch, [(0, 0), (5, 500), (9, 1000), (10, 0), (40, 500), (60, 750)])
    assert lines.splitlines() == [
        "heads, step 2: 50% done, about 30 s left",
        "heads, step 2: 75% done, about 17 s left",
    ]


def test_on_a_terminal_a_bar_that_goes_away(monkeypatch):
    text = shown(monkeypatch, [(0, 0), (10, 500)], force_terminal=True)
    assert "heads" in text
    assert "50%" in text
    assert "about 10 s left" in text
    assert text.endswith("\x1b[2K") or re.search(r"\x1b\[\?25h", text)  # the cursor is back


def test_an_error_inside_puts_the_terminal_right(monkeypatch):
    to = Console(file=io.StringIO(), force_terminal=True)

    def fails():
        with progress_bar("heads", console=to) as tick:
            tick(0, 10)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fails()
    assert "\x1b[?25h" in to.file.getvalue()


def test_a_finished_sweep_is_at_its_end_at_once(absolute_model, tmp_path):
    def ticks(out):
        told = []
        sweep(
            absolute_model,
            [[3, 1, 4, 1]],
            {"layer": range(1, 3)},
            lambda layer: zero(Site("mlp_out", layer)),
            log_prob(5),
            out=out,
            progress=lambda done, total: told.append((done, total)),
        )
        return told

    first = ticks(None)
    assert first[0][0] == 0 < first[-1][0] == first[-1][1]
    assert ticks(tmp_path / "run") == first
    ((done, total),) = ticks(tmp_path / "run")
    assert done == total > 0
