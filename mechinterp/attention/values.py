"""Value-weighted attention: much attention to a short value moves nothing.

>>> from mechinterp import load_model
>>> from mechinterp.attention import patterns, value_weighted
>>> model, prompt = load_model("toy:trigger"), "please bring the letter"
>>> resting = {"prompt": 0, "layer": 1, "head": 0, "pos": 4, "src": 0}
>>> bool(patterns(model, prompt).sel(resting) > 0.9)
True
>>> float(value_weighted(model, prompt).sel(resting))
0.0
"""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from mechinterp.attention.pattern import patterns
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.models.weights import value_lengths
from mechinterp.sweeps.axes import layers as chosen_layers


@checks_arguments
def value_weighted(
    model: Model, prompts: Text, *, layers: Iterable[int] | None = None
) -> xr.DataArray:
    """Attention times ‖v W_O‖: the length of what each head writes from each source.

    Dims and coordinates as in `patterns`; in units of the residual stream, never negative. It is a
    length, not an effect: later layers need not use what was written.

    Raises:
        HookError: as `patterns`.

    Source: Kobayashi et al. 2020, section 3, arXiv 2004.10102.
    """
    given = tokenize(model, prompts)
    numbers = chosen_layers(model, layers)
    found = patterns(model, given, layers=numbers)
    acts = run(model, given, read(*(Site("v", n) for n in numbers)), logits_at=()).acts
    each = [value_lengths(model, n, acts[Site("v", n)]).cpu().numpy() for n in numbers]
    lengths = xr.DataArray(np.stack(each, 1), dims=("prompt", "layer", "head", "src"))
    weighted = (found * lengths).transpose(*found.dims).rename("value-weighted attention")
    return weighted.assign_attrs(found.attrs | {"unit": "norm"})
