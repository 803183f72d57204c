"""The toy whose induction mechanism is known, and its prompts."""

import pytest

from mechinterp import load_model, task


@pytest.fixture(scope="session")
def toy():
    return load_model("toy:induction-trained")


@pytest.fixture(scope="session")
def asked(toy):
    return task("induction", toy, n=6)
