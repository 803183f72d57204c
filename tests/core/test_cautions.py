"""A warning points at the line of the user, above checks and modes that stand in between."""

import subprocess
import sys
import warnings

import pytest

from mechinterp.core.cautions import caution

SCRIPT = """
import warnings
import numpy as np, xarray as xr
from mechinterp.patching import normalized

scores = {"clean_score": ("prompt", [1.0, 1.0, 0.02]), "corrupt_score": ("prompt", [0.0, 0.0, 0.0])}
result = xr.DataArray(np.ones((2, 3)), dims=("head", "prompt"), coords=scores)
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    normalized(result.assign_attrs(direction="noise"))  # line 10
print(found[-1].filename, found[-1].lineno)
"""


@pytest.mark.slow
def test_it_is_the_users_line(tmp_path):
    """In a process of its own: here the check of shapes stands in between too."""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(file), "10"]


def test_its_kind():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        caution("few prompts", RuntimeWarning)
    assert [(str(each.message), each.category) for each in found] == [
        ("few prompts", RuntimeWarning)
    ]
