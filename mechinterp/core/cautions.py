"""Warnings that point at the user's line, however many functions of ours stand in between.

>>> import warnings
>>> from mechinterp.core.cautions import caution
>>> with warnings.catch_warnings(record=True) as found:
...     warnings.simplefilter("always")
...     caution("few prompts")
>>> str(found[0].message)
'few prompts'
"""

import os
import sys
import warnings
from pathlib import Path
from types import FrameType

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"  # not a folder beside it of a longer name


def caution(said: str, kind: type[Warning] = UserWarning) -> None:
    """Warn, as from the line that called into this package."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(said, kind, stacklevel=level)
