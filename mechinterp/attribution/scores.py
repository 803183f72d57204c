"""What every method returns: scores labelled with their tokens, and what they cost.

>>> import numpy as np
>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.scores import label_scores
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> found = label_scores(question, np.array([[0.0, 0.0, 0.0, 8.0]]), {"method": "by hand"})
>>> found["input_token"].values[found.argmax("input").values].tolist()
['sesame']
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp import models
from mechinterp.attribution.question.definition import Question, sign_of_drop


def label_scores(
    question: Question,
    values: Float[np.ndarray, "output attributed"],
    attrs: Mapping[str, object],
    **coords: np.ndarray,
) -> xr.DataArray:
    """The scores of the attributed units as a labelled array, dims `("output", "input")`.

    NaN: not attributed. `coords`: more coordinates, with one value for each output, or one for each
    output and attributed unit (elsewhere NaN, or False). The metric, its unit, what the sign means,
    the prompt, its tokens and the unit of each are added to `attrs`.
    """
    units, wanted = question.units, question.attributed
    n_outputs = len(question.metrics)
    texts = question.sequence.token_text[0]
    shown = sorted(pos for unit in units for pos in unit.positions)
    owner = {pos: number for number, unit in enumerate(units) for pos in unit.positions}
    ids = question.sequence.tokens[0].tolist()
    more: dict[str, tuple[str | tuple[str, ...], np.ndarray]] = {}
    for name, array in coords.items():
        if array.shape == (n_outputs, len(wanted)) and array.ndim == 2:
            more[name] = (("output", "input"), _spread(array, wanted, len(units)))
        else:
            more[name] = ("output", array)
    return xr.DataArray(
        _spread(values, wanted, len(units)),
        dims=("output", "input"),
        name="score",
        coords={
            "output": list(range(n_outputs)),
            "input": list(range(len(units))),
            "output_token": ("output", list(question.output_texts)),
            "output_token_id": ("output", list(question.output_ids)),
            "output_position": ("output", list(question.rows)),
            "output_score": ("output", question.scores),
            "input_name": ("input", [unit.name for unit in units]),
            "input_token": ("input", [unit.text for unit in units]),
            "input_token_id": (
                "input",
                [ids[u.positions[0]] if len(u.positions) == 1 else -1 for u in units],
            ),
            "input_role": ("input", [unit.role for unit in units]),
            "input_first": ("input", [unit.positions[0] for unit in units]),
            "input_last": ("input", [unit.positions[-1] for unit in units]),
            **more,
        },
        attrs={
            "metric": question.metric.name,
            "unit": question.metric.unit,
            **sign_of_drop(question.metric),
            "prompt": question.text,
            "units": question.kind,
            "tokens": [texts[pos] for pos in shown],
            "token_unit": [owner[pos] for pos in shown],
            **attrs,
        },
    )


def _spread(values: np.ndarray, wanted: Sequence[int], n_units: int) -> np.ndarray:
    """Values of the `wanted` units among all units; NaN or False of the others."""
    missing = False if values.dtype == bool else np.nan
    whole = np.full((*values.shape[:-1], n_units), missing, dtype=values.dtype)
    whole[..., wanted] = values
    return whole


def sweep_cost(
    question: Question, measured: xr.Dataset, n_naive: int, began: float
) -> dict[str, object]:
    """The cost of a sweep over sets, as attrs: that of `measured`, from `drops`, and `question`'s.

    The naive cost is one full pass for each output on each of `n_naive` prompts and the whole one.
    """
    layers = question.sequence.width * question.model.cfg.n_layers
    return {
        **measured.attrs,
        "passes": measured.attrs["passes"] + question.n_passes,
        "token_layers": measured.attrs["token_layers"] + question.n_passes * layers,
        "token_layers_naive": len(question.reads) * (n_naive + 1) * layers,
        "seconds": time.perf_counter() - began,
    }


def run_cost(
    question: Question, began: float, *, passes: int, rows: int, backward: int = 0
) -> dict[str, object]:
    """The cost of `passes` over `rows` sequences in all, and of `question`, as attrs.

    `backward`: the number of backward passes through each. In `token_layers` a backward pass counts
    as two forward ones; `passes` and `backward_passes` count them separately.
    """
    model = question.model
    rows_forward = rows * (1 + 2 * backward) + question.n_passes
    return {
        "passes": passes + question.n_passes,
        "backward_passes": passes * backward,
        "token_layers": rows_forward * question.sequence.width * model.cfg.n_layers,
        "model": models.name(model),
        "size": models.size(model),
        "weights": models.processing(model),
        "seconds": time.perf_counter() - began,
    }
