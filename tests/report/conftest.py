"""Results built by hand, and a browser to look at their pages with."""

import functools
import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from mechinterp.attribution.question.expectations import Comparison, RankedInput
from mechinterp.report.render.numbers import MINUS

NAN = float("nan")
CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ATTRS = {
    "model": "tiny",
    "metric": "log-probability of the output token",
    "unit": "nats",
    "removal": "the token is deleted",
    "sign": "Positive: the input token supports the output token.",
    "arms": 18,
    "passes": 2,
    "token_layers": 1500,
    "token_layers_naive": 6000,
    "seconds": 0.25,
    "peak_bytes_planned": 3 * 1024**2,
}
HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    '"><svg onload=window.pwned=3>',
    "{{ 7 * 7 }}",
    "\x1b[31mred\x07",
    "[bold red]markup[/] :smile:",
    "\u202eevil",
    "\u05e9\u05dc\u05d5\u05dd",
    "\U0001f41d\ufffd",
    "\u2028\x00\ud800",
)


@dataclass
class Opened:
    """A page in the browser, with all that it asked for and complained about."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def make_scores(
    values: np.ndarray,
    inputs: list[str],
    outputs: list[str],
    roles: list[str] | None = None,
) -> xr.DataArray:
    n_outputs, n_inputs = values.shape
    flip = np.zeros(values.shape, dtype=bool)
    flip[0, np.nanargmax(values[0])] = True
    return xr.DataArray(
        values,
        dims=("output", "input"),
        coords={
            "output": range(n_outputs),
            "input": range(n_inputs),
            "output_token": ("output", outputs),
            "output_token_id": ("output", [700 + i for i in range(n_outputs)]),
            "output_score": ("output", [-0.5 - i for i in range(n_outputs)]),
            "bos_effect": ("output", [9.0 - i for i in range(n_outputs)]),
            "input_token": ("input", inputs),
            "input_token_id": ("input", [40 + i for i in range(n_inputs)]),
            "input_role": ("input", roles or ["text"] * n_inputs),
            "flip": (("output", "input"), flip),
        },
        attrs=ATTRS,
    )


@pytest.fixture
def scores() -> xr.DataArray:
    """3 outputs, 7 inputs; the absolute scores of the first output sum to 8, of the second to 6."""
    values = np.array(
        [
            [NAN, 4.0, -1.0, 0.5, 0.0, 2.5, NAN],
            [NAN, 1.0, 0.25, -3.0, 0.75, 0.0, 1.0],
            [NAN, 1.0, 0.25, -0.5, 0.25, 0.0, -2.0],
        ]
    )
    inputs = ["<|endoftext|>", "Mary", " and", " John", " gave", "\n", " her"]
    roles = ["bos", "text", "text", "text", "text", "text", "output"]
    return make_scores(values, inputs, [" her", " a", " drink"], roles)


PROMPT = ["<s>", "Mary", " met", " John", ".\n", " Then", " Mary", " left", "."]
UNITS = {"her": (1, 6), " met John.\n": (2, 3, 4), " Then": (5,), " left.": (7, 8)}


def make_units(values: np.ndarray, outputs: list[str]) -> xr.DataArray:
    """A result whose inputs are the start token and the units above, one of them in two places."""
    groups = {"<s>": (0,)} | UNITS
    owner = {pos: n for n, group in enumerate(groups.values()) for pos in group}
    texts = ["<s>", "Mary … Mary", *list(UNITS)[1:]]
    scores = make_scores(values, texts, outputs, ["bos"] + ["text"] * len(UNITS))
    return scores.assign_coords(
        input_name=("input", ["<s>", *UNITS]),
        input_token_id=("input", [0, -1, -1, 45, -1]),
        input_first=("input", [group[0] for group in groups.values()]),
        input_last=("input", [group[-1] for group in groups.values()]),
    ).assign_attrs(tokens=PROMPT, token_unit=[owner[pos] for pos in range(len(PROMPT))])


@pytest.fixture(scope="session")
def any_units() -> xr.DataArray:
    """A result of one output with five inputs, for tests that give it a prompt."""
    return make_units(np.zeros((1, 5)), ["x"])


@pytest.fixture
def unit_scores() -> xr.DataArray:
    """2 outputs, 4 units: removing all takes 8 of the first, where they make 6, and 10."""
    values = np.array([[NAN, 4.0, 2.0, 0.5, -0.5], [NAN, -1.0, 0.5, 0.25, 0.75]])
    return make_units(values, [" her", " a"]).assign_coords(
        joint_effect=("output", [8.0, 10.0]),
        residual=("output", [1 - 6 / 8, 1 - 0.5 / 10]),
        error=(("output", "input"), [[NAN, 0.5, 0.25, 0.125, NAN], [NAN] + 4 * [0.5]]),
    )


@pytest.fixture
def token_scores() -> xr.DataArray:
    """The same question, one input a token."""
    values = np.array([[NAN, 3.0, 0, 0, 0, 0, 2.0, 0, -1.0], [NAN, 0, 0, 0, 1.0, 0, 0, 0, 0]])
    return make_scores(values, PROMPT, [" her", " a"], ["bos"] + ["text"] * 8)


@pytest.fixture
def pairs() -> xr.Dataset:
    """Three candidates of four inputs: the first two stand in for each other, two need each other.

    Alone 0, 0 and 3 for the first output; together 6 (first two), 1 (first, third), 3.
    """
    single = make_scores(
        np.array([[0.0, 0.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0]]),
        ["sesame", "copper", "the", "map"],
        ["REFUSE", "now"],
    )
    square = np.full((2, 3, 3), NAN)
    for output, first, second, value in [
        (0, 0, 1, -6.0), (0, 0, 2, 2.0), (0, 1, 2, 0.0), (1, 0, 1, 0.01), (1, 0, 2, 0.5),
    ]:  # fmt: skip
        square[output, first, second] = square[output, second, first] = value
    group = {"output": 0, "units": [0, 1], "texts": ["sesame", "copper"], "joint": 6.0, "sum": 0.0}
    score = single.copy(data=single.values + 3).assign_attrs(groups=[group])
    names = ["sesame", "copper", "the"]
    interaction = xr.DataArray(
        square,
        dims=("output", "first", "second"),
        coords={
            "first": [0, 1, 2],
            "second": [0, 1, 2],
            "first_token": ("first", names),
            "second_token": ("second", names),
        },
    )
    return xr.Dataset(
        {"score": score, "single": single, "interaction": interaction},
        attrs={"groups": [group], "interaction_sign": "Negative: each stands in for the other."},
    )


GRID_ATTRS = {
    "model": "tiny",
    "unit": "logits",
    "sign": "Positive: the head helps.",
    "arms": 20,
    "token_layers": 1500,
    "token_layers_naive": 6000,
}


def swept_result(*shape, dims=("layer", "head"), n=8, seed=0, **coords) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.laplace(size=(*shape, 1)) + rng.normal(scale=0.3, size=(*shape, n))
    labels = {dim: range(size) for dim, size in zip(dims, shape, strict=True)} | coords
    return xr.DataArray(
        values, dims=(*dims, "prompt"), coords=labels, attrs=GRID_ATTRS, name="logit_diff"
    )


@pytest.fixture(scope="session")
def swept() -> Callable[..., xr.DataArray]:
    """Makes a result of a sweep: `swept(4, 5, dims=("layer", "pos"), n=8)`, n prompts."""
    return swept_result


@pytest.fixture
def effect() -> xr.DataArray:
    """4 layers, 5 positions with tokens, 8 prompts with both baselines."""
    return swept_result(
        4,
        5,
        dims=("layer", "pos"),
        token=("pos", ["<|endoftext|>", "When", " Mary", "\n", " went"]),
        clean_score=("prompt", np.linspace(3, 4, 8)),
        corrupt_score=("prompt", np.full(8, -2.0)),
    )


@pytest.fixture(scope="session")
def number() -> Callable[[str], float]:
    """Reads a number as a page prints it; NaN where there is none. A unit may follow it."""

    def read(text: str) -> float:
        return math.nan if text == "–" else float(text.split()[0].replace(MINUS, "-"))

    return read


SCORERS = ["one out", "gradients", "random"]


@pytest.fixture
def faithful() -> xr.Dataset:
    """One prompt: 3 scorers, 2 removals, 2 outputs; one number is unknown."""
    shape = (3, 2, 2)
    rng = np.random.default_rng(0)
    dims = ("scorer", "removal", "output")
    found = xr.Dataset(
        {
            "most_first": ((*dims, "fraction"), rng.uniform(1, 9, (*shape, 2))),
            "least_first": ((*dims, "fraction"), rng.uniform(0, 3, (*shape, 2))),
            "drop_at_k": ((*dims, "k"), rng.uniform(0, 9, (*shape, 2))),
            "sufficiency_at_k": ((*dims, "k"), rng.uniform(0, 9, (*shape, 2))),
            "lds": ((*dims, "keep"), rng.uniform(-1, 1, (*shape, 1))),
        },
        coords={
            "scorer": SCORERS,
            "removal": ["delete", "resample"],
            "output": [0, 1],
            "output_token": ("output", [" her", " a"]),
            "fraction": [0.25, 0.75],
            "k": [1, 3],
            "keep": [0.5],
        },
        attrs={"unit": "nats", "metric": "log_prob", "seconds": 1.5},
    )
    found["lds"][1, 0, 0, 0] = NAN
    return found.assign(
        comprehensiveness=found["most_first"].mean("fraction"),
        sufficiency=found["least_first"].mean("fraction"),
    )


@pytest.fixture
def faithful_prompts() -> xr.Dataset:
    """Means with intervals over 7 prompts, by hand: 2 measures, 1 removal."""
    dims = ("measure", "removal", "scorer")
    mean = np.array([[[0.5, 0.75, 0.0]], [[1.25, 2.0, 3.0]]])
    return xr.Dataset(
        {
            "mean": (dims, mean),
            "low": (dims, mean - 0.25),
            "high": (dims, mean + 0.5),
            "n": (dims[:2], [[7], [6]]),
        },
        coords={
            "measure": ["lds@0.5", "sufficiency"],
            "removal": ["delete"],
            "scorer": SCORERS,
            "unit": ("measure", ["", "nats"]),
            "low_is_good": ("measure", [False, True]),
        },
    )


@pytest.fixture
def long_scores() -> xr.DataArray:
    """5 outputs, 60 inputs."""
    values = np.random.default_rng(0).laplace(0.0, 0.5, (5, 60))
    inputs = [f" word{i}" for i in range(60)]
    return make_scores(values, inputs, [" one", " two", " three", " four", " five"])


@pytest.fixture
def hostile_scores() -> xr.DataArray:
    """Tokens that try to run, to write in colour, to turn the text round or to be invisible."""
    tokens = list(HOSTILE)
    values = np.linspace(-1.0, 3.0, 2 * len(tokens)).reshape(2, -1)
    return make_scores(values, tokens, [HOSTILE[0], HOSTILE[4]])


@pytest.fixture
def comparisons() -> tuple[Comparison, ...]:
    mary = RankedInput(1, "Mary", 1, 4.0, 0.5)
    also = RankedInput(2, " and", 3, -1.0, 0.125)
    newline = RankedInput(5, "\n", 2, 2.5, 0.3125)
    reason = "A line break outranks an expected token."
    return (
        Comparison(
            0,
            " her",
            "partly as expected",
            reason,
            (mary, also),
            (newline,),
            2,
            0.5,
            5 / 6,
            0.625,
            0.04,
        ),
        Comparison(
            None, "", "as expected", "It comes first.", (mary,), (), 1, 1.0, 1.0, 0.4, 0.00001
        ),
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the PATH: install it to run the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_with(browser: Browser) -> Callable[..., Page]:
    """A page in a context of these options; one for all tests, since a new one is a new process."""

    @functools.cache
    def make(**options: object) -> Page:
        return browser.new_context(**options).new_page()

    return make


@pytest.fixture
def open_page(page_with: Callable[..., Page], tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens HTML from a file, one at a time: `open_page(html, width=400, color_scheme="dark")`."""
    listening: list[tuple[Page | BrowserContext, str, Callable[..., None]]] = []
    pages: set[Page] = set()
    files = itertools.count()

    def open_html(html: str, *, width: int = 1280, **options: object) -> Opened:
        path = tmp_path / f"report{next(files)}.html"
        path.write_text(html, encoding="utf-8")
        page = page_with(**options)
        page.set_viewport_size({"width": width, "height": 800})
        opened = Opened(page, path.as_uri())
        pages.add(page)
        for source, event, listen in (
            (page.context, "request", lambda request: opened.requests.append(request.url)),
            (page, "console", lambda message: opened.complaints.append(message.text)),
            (page, "pageerror", lambda error: opened.complaints.append(str(error))),
        ):
            source.on(event, listen)
            listening.append((source, event, listen))
        page.goto(opened.url)
        return opened

    yield open_html
    for source, event, listen in listening:
        source.remove_listener(event, listen)
    for page in pages:
        page.mouse.move(0, 0)
        page.goto("about:blank")
