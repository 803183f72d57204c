"""Everything that is written is read back whole or not at all: the proof, with few of each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_damages_full_disks_and_kills():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "proofs" / "files.py", "--quick", "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "150 damages, 0 used" in done.stdout
