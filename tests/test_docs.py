"""Every Python block of the README and the docs runs, each file's in order, in one namespace."""

import importlib
import re
from inspect import isfunction
from pathlib import Path

import pytest

import mechinterp

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in re.finditer(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        line = page.read_text()[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


def test_every_public_name_has_an_example():
    shown = "".join(
        block
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    )
    for file in Path(mechinterp.__file__).parent.rglob("*.py"):
        shown += "".join(re.findall(r"^ *>>> (.*)", file.read_text(), re.MULTILINE))
    missing = [name for name in public_names() if not re.search(rf"\b{name}\b", shown)]
    assert missing == []


def public_names():
    """Those of the package, and the functions of its subpackages."""
    yield from mechinterp.__all__
    for part in ("attention", "circuits", "layers", "probing"):
        module = importlib.import_module(f"mechinterp.{part}")
        yield from (name for name in module.__all__ if isfunction(getattr(module, name)))


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
