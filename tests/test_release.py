"""Name and version of the distribution, the changelog, and what CONTRIBUTING.md points to."""

import re
import tomllib
from pathlib import Path

import mechinterp
from mechinterp.storage.run_folder import PACKAGES, package_version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = "mechinterp-sweeps"  # on PyPI, mechinterp is another project
PLANNED = {"scripts/coverage", "scripts/mutants", "scripts/reproduce"}
"""What CONTRIBUTING.md names before it is there."""


def written():
    """Every file that a user reads, or that prints."""
    yield from ROOT.glob("*.md")
    yield from (file for file in (ROOT / "scripts").rglob("*") if file.is_file())
    for folder, ending in (("docs", "md"), ("mechinterp", "py"), ("experiments", "py")):
        yield from (ROOT / folder).rglob(f"*.{ending}")


def installs_another(text):
    return re.findall(r"pip3? install (?:-\S+ )*[\"']?mechinterp(?!-sweeps)\b", text)


def test_nothing_says_to_install_the_other_mechinterp():
    assert PROJECT["project"]["name"] == NAME
    for said in ("pip install -U mechinterp", "pip install mechinterp[x]"):
        assert installs_another(said)
    assert not installs_another(f"pip install {NAME}")
    texts = {file: file.read_text("utf-8", "ignore") for file in written()}
    assert [file for file, text in texts.items() if installs_another(text)] == []


def test_there_is_one_source_of_the_version():
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = PROJECT["tool"]["setuptools"]["dynamic"]["version"]
    assert source == {"attr": "mechinterp.__version__"}
    assert PACKAGES[0] == "mechinterp"
    assert package_version(PACKAGES[0]) == mechinterp.__version__
    assert package_version("no such package") == "not installed"


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(name for name in versions if name != "Unreleased") == mechinterp.__version__


def test_what_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`(?:python )?((?:\w+/)+[\w.]*)[^`]*`", text))
    assert len(paths) > 20
    assert [path for path in paths - PLANNED if not (ROOT / path).exists()] == []
    for cell, where in re.findall(r"\| `?(\w+)`? in `([^`]+)` \|", text):
        assert re.search(rf"^{cell}\b", (ROOT / where).read_text(), re.MULTILINE), (cell, where)


def test_what_to_copy_from_is_in_the_file_that_is_named():
    """Functions by name, in the files of the same row."""
    rows = [line.split(" | ") for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()]
    for row in (row for row in rows if len(row) == 4 and "mechinterp/" in row[1]):
        files = [ROOT / path for path in re.findall(r"`(mechinterp/[^`]+)`", row[1])]
        text = "".join(file.read_text() for file in files if file.is_file())
        for name in re.findall(r'`"?(\w+)"?`', row[2]):
            assert re.search(rf'\b{name}\(|"{name}"', text), (row[0], name)
