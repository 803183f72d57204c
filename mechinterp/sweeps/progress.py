"""Progress of a long sweep: `progress_bar`, a bar on a terminal, elsewhere a line now and then.

>>> from mechinterp import Site, load_model, log_prob, progress_bar, sweep, zero
>>> model = load_model("toy:trigger")
>>> with progress_bar("layers") as tick:
...     found = sweep(model, "please bring the sesame", {"layer": [0, 1]},
...                   lambda layer: zero(Site("z", layer)), log_prob(1), progress=tick)

The time left follows from the work left, in token-layers, and the rate since the start. What an
earlier run had finished does not count towards the rate.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mechinterp.core.printable import escape

_SECONDS_BETWEEN_LINES = 20.0


class progress_bar:  # noqa: N801 - used as a context manager, like contextlib's
    """A context that gives a function of (done, all), to be called as work is done.

    Sweeps that follow one another count as steps; the time left is that of the current step.

    `console`: where progress is shown; by default standard error.
    """

    def __init__(self, label: str, *, console: Console | None = None) -> None:
        self._label = escape(label)
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=None, left="")
        self._began: tuple[float, int] | None = None
        self._seen = (0, 0)
        self._step = 1
        self._last_line = 0.0

    def __enter__(self) -> "progress_bar":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        again = done < self._seen[0]
        self._step += again
        if self._began is None or again or total != self._seen[1]:
            # The first call, or the first of a further sweep.
            self._began, self._last_line = (now, done), self._last_line or now
        self._seen = done, total
        left = time_left(now - self._began[0], done - self._began[1], total - done)
        label = self._label if self._step == 1 else f"{self._label}, step {self._step}"
        if self._console.is_terminal:
            self._bar.update(self._task, description=label, completed=done, total=total, left=left)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = f"{100 * done / max(total, 1):.0f}% done"
            self._console.print(f"{label}: {share}, {left}", markup=False, highlight=False)


def time_left(seconds: float, done: int, left: int) -> str:
    """The time left at the rate so far, in words; "" if it is not known yet."""
    if done <= 0:
        return ""
    estimate = round(seconds * left / done)
    if estimate < 100:
        return f"about {estimate} s left"
    if estimate < 5400:
        return f"about {estimate / 60:.0f} min left"
    return f"about {estimate / 3600:.1f} h left"
