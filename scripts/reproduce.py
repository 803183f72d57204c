"""Runs the experiments in full and compares what they find with docs/findings.md.

A figure with an interval has to lie in it again; one without has to lie in the interval that is
measured now, or within two units of its last digit; counts are exact, and so are the claims that do
not hold. It ends with 1 if one figure left its place, a phrase of the page is no longer found, or
the page gives a figure that no experiment does. `--quick` runs small settings: the numbers are
shown, and only that they can all be made is checked. `--write-intervals` puts the intervals that
are found now into the page; the figures before the brackets stay.

    scripts/reproduce
    scripts/reproduce induction_circuit greater_than_heads
"""

import argparse
import ast
import contextlib
import inspect
import io
import re
import runpy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from figures_of_findings import SOURCES  # noqa: E402 - beside this file
from page_figures import Bound, Source  # noqa: E402 - beside this file

NUMBER = r"[−+-]?(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)%?"
FIGURE = rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\])?"
NEAR = 2
"""Units of the last digit that a figure without an interval may be off."""


@dataclass(frozen=True)
class Figure:
    """A figure as a page gives it. `unit`: one of its last digit; `end`: where it ends there."""

    text: str
    value: float
    low: float | None
    high: float | None
    unit: float
    start: int
    end: int

    @classmethod
    def of(cls, found: re.Match[str], group: int) -> "Figure":
        """From a match of `FIGURE`."""
        text = found[group]
        value, *ends = (_value(part) for part in re.findall(NUMBER, text))
        shown = re.findall(NUMBER, text)[0].rstrip("%")
        unit = 10.0 ** -len(shown.partition(".")[2])
        percent = 0.01 if "%" in text else 1.0
        low, high = ends or (None, None)
        return cls(text, value, low, high, unit * percent, found.start(group), found.end(group))

    def allows(self, number: "Number") -> bool:
        """Whether a number may stand in the place of the figure."""
        if number.is_bound:
            return number.value <= abs(self.value) + self.unit / 2
        if self.low is not None and self.high is not None:
            low, high = sorted((self.low, self.high))
            return low - self.unit / 2 <= number.value <= high + self.unit / 2
        if number.is_count:
            return number.value == self.value
        near = abs(number.value - self.value) <= NEAR * self.unit
        return near or (
            number.low is not None
            and number.high is not None
            and number.low <= self.value <= number.high
        )


@dataclass(frozen=True)
class Number:
    """What an experiment gave."""

    value: float
    low: float | None = None
    high: float | None = None
    is_count: bool = False
    is_bound: bool = False

    @classmethod
    def of(cls, given: object) -> "Number":
        """From a dataset with an interval, a bound, or a plain number."""
        if isinstance(given, Bound):
            return cls(given.value, is_bound=True)
        if hasattr(given, "data_vars"):
            bounds = (float(given[name]) if name in given else None for name in ("low", "high"))
            return cls(float(given["mean"]), *bounds)
        return cls(float(given), is_count=isinstance(given, int))

    def __str__(self) -> str:
        shown = f"{self.value:.4g}"
        if self.low is not None and self.high is not None:
            shown += f" [{self.low:.4g}, {self.high:.4g}]"
        return shown


def _value(text: str) -> float:
    plain = text.replace("−", "-").replace(",", "").removesuffix("%")
    return float(plain) * (0.01 if text.endswith("%") else 1.0)


def sections(page: str) -> dict[str, str]:
    """The parts of a page by their headings, each with its heading, white space made one."""
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: re.sub(r"\s+", " ", part) for part in parts}


def text_of(source: Source, page: str, experiment: Path) -> str:
    """Where an experiment's figures stand.

    Raises:
        ValueError: if the page has no such section.
    """
    if source.section is None:
        return re.sub(r"\s+", " ", ast.get_docstring(ast.parse(experiment.read_text())) or "")
    found = [text for title, text in sections(page).items() if title.startswith(source.section)]
    if len(found) != 1:
        raise ValueError(f"the page has {len(found)} sections {source.section!r}, not one.")
    return found[0]


def figures_at(phrase: str, text: str) -> list[Figure]:
    """The figures that stand where a phrase has `#`.

    Raises:
        ValueError: if the phrase is not there exactly once.
    """
    pattern = f"({FIGURE})".join(re.escape(part) for part in phrase.split("#"))
    begin = r"(?<![\d.,−+-])" if phrase.startswith("#") else ""
    found = list(re.finditer(begin + pattern + r"(?![\d%]| \[)", text))
    if len(found) != 1:
        raise ValueError(f"the phrase {phrase!r} stands there {len(found)} times, not once.")
    return [Figure.of(found[0], group + 1) for group in range(phrase.count("#"))]


def unexplained(text: str, known: Sequence[Figure]) -> list[str]:
    """Figures with a decimal point or an interval that no phrase holds; p values are not asked."""
    bare = [m for m in re.finditer(FIGURE, text) if "." in m[0] or "[" in m[0]]
    outside = [m for m in bare if not any(f.start <= m.start() < f.end for f in known)]
    quoted = [
        m for m in outside if not re.search(r"(?:\bp |[Xx]iv |above |n )$", text[: m.start()])
    ]
    return [text[max(0, m.start() - 30) : m.end()] for m in quoted]


def with_intervals(page: str, source: Source, found: object) -> str:
    """The page with each interval as the experiment gives it, in as many digits as its figure."""
    for phrase, numbers in source.figures(found).items():
        parts = (re.sub(r"(\\ )+", r"\\s+", re.escape(part)) for part in phrase.split("#"))
        figure = FIGURE.replace(" ", r"\s")
        begin = r"(?<![\d.,−+-])" if phrase.startswith("#") else ""
        place = re.search(begin + f"({figure})".join(parts), page)
        if place is None:
            raise ValueError(f"the page does not have {phrase!r} once.")
        for group, given in reversed([*enumerate(map(Number.of, numbers), 1)]):
            begin_at, end_at = place.span(group)
            new = _with_interval(place[group], given)
            page = page[:begin_at] + new + page[end_at:]
    return page


def _with_interval(text: str, number: Number) -> str:
    """A figure as a page gives it, with the ends of its interval put anew."""
    figure, *ends = re.findall(NUMBER, text)
    if not ends or number.low is None or number.high is None:
        return text
    digits = len(figure.rstrip("%").partition(".")[2])
    times = 100 if figure.endswith("%") else 1
    low, high = sorted((number.low, number.high))
    if number.value * _value(figure) < 0:  # the page gives its size
        low, high = -high, -low
    new = iter((low, high))

    def put(end: re.Match[str]) -> str:
        value = next(new) * times
        shown = f"{abs(value):.{digits}f}"
        sign = "−" if value < 0 and float(shown) else ""
        shown = shown.removeprefix("0") if figure.lstrip("−+-").startswith(".") else shown
        return sign + shown + ("%" if end[0].endswith("%") else "")

    before, bracket, after = text.rpartition("[")
    return before + bracket + re.sub(NUMBER, put, after)


def run(name: str, options: Mapping[str, Any], model: object) -> tuple[dict[str, bool], Any, float]:
    """What the `main` of an experiment returns, and the seconds of a processor that it took."""
    began = time.process_time()
    main = runpy.run_path(str(ROOT / "experiments" / f"{name}.py"))["main"]
    given = {"model": model} if "model" in inspect.signature(main).parameters else {}
    with contextlib.redirect_stdout(io.StringIO()):
        verdicts, found = main(**given, **options)
    return verdicts, found, time.process_time() - began


def compared(source: Source, found: object, text: str) -> Iterator[tuple[Figure, Number]]:
    """Each figure with the number that the experiment gives.

    Raises:
        ValueError: if a phrase is not there, or has another number of figures.
    """
    for phrase, numbers in source.figures(found).items():
        for figure, given in zip(figures_at(phrase, text), numbers, strict=True):
            yield figure, Number.of(given)


def checked(
    name: str,
    source: Source,
    text: str,
    verdicts: Mapping[str, bool],
    found: object,
    *,
    quick: bool,
) -> int:
    """Print the figures of an experiment; how many are wrong."""
    n_wrong, known = 0, []
    print(f"  {'on the page':24} {'now':32} after")
    for figure, number in compared(source, found, text):
        known.append(figure)
        fine = quick or figure.allows(number)
        n_wrong += not fine
        before = text[max(0, figure.start - 36) : figure.start].strip()
        print(f"  {figure.text:24} {number!s:32} …{before}{'' if fine else '   LEFT ITS PLACE'}")
    for figure in unexplained(text, known) if source.section else ():
        n_wrong += 1
        print(f"  no experiment gives …{figure}")
    refuted = [claim for claim, holds in verdicts.items() if not holds]
    if not quick and sorted(refuted) != sorted(source.refuted):
        n_wrong += 1
        changed = set(refuted) ^ set(source.refuted)
        print(*(f"  the verdict changed: {claim}" for claim in sorted(changed)), sep="\n")
    print(f"  {len(known)} figures, {n_wrong} wrong; {len(verdicts) - len(refuted)} claims hold")
    return n_wrong


def main(arguments: Sequence[str] | None = None, model: object = None) -> int:
    """Run the experiments; 1 if a figure is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments (default: all)")
    parser.add_argument("--quick", action="store_true", help="small settings, nothing is judged")
    parser.add_argument("--write-intervals", action="store_true", help="into the page")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "findings.md")
    options = parser.parse_args(arguments)
    there = {file.stem for file in (ROOT / "experiments").glob("*.py")}
    for name in {*options.names, *there} - SOURCES.keys():
        parser.error(f"{name!r} has no figures in scripts/figures_of_findings.py: {[*SOURCES]}")
    names = options.names or list(SOURCES)
    page = options.page.read_text(encoding="utf-8")
    n_wrong, began = 0, time.monotonic()
    if model is None and set(names) != {"induction_circuit"}:
        from mechinterp import load_model

        model = load_model("smollm2")
    for number, name in enumerate(names, 1):
        source = SOURCES[name]
        print(f"{number} of {len(names)}, {name} ({time.monotonic() - began:.0f} s)", flush=True)
        text = text_of(source, page, ROOT / "experiments" / f"{name}.py")
        mine = None if name == "induction_circuit" else model
        verdicts, found, seconds = run(name, source.quick if options.quick else {}, mine)
        try:
            if options.write_intervals and source.section and not options.quick:
                page = with_intervals(page, source, found)
                options.page.write_text(page, encoding="utf-8")
                text = text_of(source, page, ROOT / "experiments" / f"{name}.py")
            n_wrong += checked(name, source, text, verdicts, found, quick=options.quick)
        except ValueError as error:
            n_wrong += 1
            print(f"  {error}")
        print(f"  {seconds:.0f} s of a processor\n", flush=True)
    print("all figures are in their places" if not n_wrong else f"{n_wrong} wrong")
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
