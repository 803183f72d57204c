"""The options that every named sweep takes by name and passes on to `sweep`.

Such a function declares `**options: Unpack[SweepOptions]`, so that editors complete them, and
begins with `check_options`, so that a typo is an error of the function that was called:

>>> from mechinterp.sweeps.options import check_options
>>> check_options("patch_heads", {"buget_bytes": 10})
Traceback (most recent call last):
    ...
TypeError: patch_heads() takes no option 'buget_bytes'. Did you mean 'budget_bytes'?
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TypedDict, get_type_hints

import xarray as xr

from mechinterp.core.indices import index
from mechinterp.sweeps.pass_plan import Savings

Progress = Callable[[int, int], None]
"""Called with the token-layers done and the total; the first call counts what was done before."""


class PassOptions(TypedDict, total=False):
    """Keyword options of methods that plan their own passes."""

    budget_bytes: int | None
    progress: Progress | None


class SweepOptions(TypedDict, total=False):
    """Keyword options of `sweep`, which describes them."""

    only: xr.DataArray | None
    out: str | Path | None
    progress: Progress | None
    budget_bytes: int | None
    exact: str | Savings


def check_options(
    function: str,
    options: Mapping[str, object],
    known: type = SweepOptions,
) -> None:
    """Check that each option is one of `known`, a TypedDict, and that those of every sweep fit.

    Raises:
        ValueError: if a value does not fit.
        TypeError: if one is not, naming the function that was called and the nearest option.
    """
    names = sorted(get_type_hints(known))
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Options: {', '.join(names)}."
            raise TypeError(f"{function}() takes no option {name!r}. {hint}")
    if options.get("budget_bytes") is not None:
        index(options["budget_bytes"], f"{function}: budget_bytes", least=1)
    if (progress := options.get("progress")) is not None and not callable(progress):
        raise ValueError(
            f"{function}: progress={progress!r} is no function of (done, all): give "
            f'progress_bar("heads").'
        )
    if not isinstance(options.get("out", ""), str | PathLike | None):
        raise ValueError(f"{function}: out={options['out']!r} is no folder. Give its path.")
