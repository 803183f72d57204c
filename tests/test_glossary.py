"""The glossary: each term once, in a sentence, with a name or a file that is there."""

import re
from pathlib import Path

import pytest

import mechinterp as mi

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()


def terms():
    """The rows of all tables before the table of signs: term, meaning, where."""
    lines = GLOSSARY.split("\n## Signs\n")[0].splitlines()
    cells = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in lines
        if line[:2] == "| "
    ]
    return [row for row in cells if row[0] != "term"]


def test_every_term_stands_once_and_has_a_sentence():
    names = [row[0] for row in terms()]
    assert len(names) > 100
    assert sorted(set(names)) == sorted(names)
    for name, meaning, _ in terms():
        assert meaning.endswith("."), name


@pytest.mark.parametrize("row", terms(), ids=lambda row: row[0])
def test_what_a_term_names_is_there(row):
    for place in re.findall(r"`([^`]+)`", row[2]):
        if "/" in place:
            assert (ROOT / place).exists()
            continue
        found = mi
        for name in place.removeprefix("mi.").split("."):
            found = getattr(found, name)
