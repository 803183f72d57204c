"""Every public function with wrong arguments, one at a time: each is refused by a sentence of ours.

A refusal counts if the exception was raised on purpose, by a `raise` in the package. What is taken
without a word is listed with --accepted, to be read: a wrong value may be right for an argument.

    python scripts/proofs/wrong_arguments.py --check
    python scripts/proofs/wrong_arguments.py --quick --only patch_heads --accepted
"""

import argparse
import inspect
import linecache
import math
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping

import torch
import xarray as xr

import mechinterp as mi
from mechinterp import Pair, Site, load_model, log_prob, read, run, tokenize, zero

PACKAGES = (
    *("ablation", "attention", "attribution", "circuits", "engine", "layers", "patching"),
    *("probing", "stats", "sweeps", "tasks", "toys"),
)
WRONG: dict[str, object] = {
    "None": None,
    "True": True,
    "-1": -1,
    "too large": 10**7,
    "1.5": 1.5,
    "NaN": math.nan,
    "text": "nonsense",
    "empty text": "",
    "empty list": [],
    "list of True": [True],
    "list of text": ["nonsense"],
    "list of -1": [-1],
    "dict": {},
    "object": object(),
    "tensor": torch.ones(2),
}
QUICK = ("None", "True", "-1", "1.5", "text", "empty list", "object")
SECONDS = 20
CALLABLE_CLASSES = ("Contrast",)


class TooLongError(Exception):
    """A call that did not end."""


def valid_arguments() -> dict[str, object]:
    """A right value for each name of an argument, all for one small model."""
    model = load_model("toy:trigger")
    texts = ["please bring the sesame", "please bring the map"] * 2
    prompts, other = tokenize(model, texts), tokenize(model, texts[::-1])
    pair = Pair(prompts, other)
    metric = log_prob(mi.token_id(model, "REFUSE"))
    acts = run(model, prompts, read(Site("z", 1))).acts
    graph = mi.circuits.Graph.from_model(model)
    contrast = mi.circuits.Contrast.from_pair(model, pair, metric, graph)
    scores = mi.circuits.eap(contrast)
    circuit = mi.circuits.top_n(scores, 6)
    question = mi.ask(model, texts[0], 1)
    attributed = mi.attribute(model, texts[0], 1)
    patched = mi.patching.patch_heads(model, pair, metric)
    found = mi.attention.patterns(model, texts[0]).isel(prompt=0)
    links = mi.attention.find_links(found)
    return {
        "model": model,
        "prompts": prompts,
        "prompt": texts[0],
        "pair": pair,
        "metric": metric,
        "metrics": [metric],
        "acts": acts,
        "source": acts,
        "graph": graph,
        "contrast": contrast,
        "scores": scores,
        "start": scores,
        "circuit": circuit,
        "truth": circuit,
        "circuits": {"ours": circuit},
        "edges": circuit,
        "question": question,
        "result": patched,
        "found": found,
        "links": links,
        "numerator": patched,
        "denominator": patched["clean_score"],
        "a": patched,
        "b": patched + 1.0,
        "p": xr.DataArray([0.01, 0.5], dims="cell"),
        "over": {"layer": [0, 1]},
        "arm": lambda layer: zero(Site("z", layer)),
        "site": lambda layer: Site("z", layer),
        "sites": [Site("z", 0, 1), Site("z", 1, 0)],
        "senders": [Site("z", 0, 0)],
        "receiver": Site("q", 1, 0),
        "directions": torch.eye(model.cfg.d_head)[:2],
        "how": "zero",
        "layer": 1,
        "head": 1,
        "tokens": [3, 4],
        "screen": patched,
        "expected": ["sesame"],
        "attributed": attributed,
        "methods": {"single": attributed},
        "text": "please",
        "n": 4,
        "k": 2,
        "tau": 0.1,
        "taus": [0.1, 0.2],
        "threshold": 0.1,
        "name": "ioi",
        "removal": "delete",
        "weight": 0.1,
        "times": 2.0,
        "query": 2,
        "seed": 0,
    }


SPECIAL: dict[str, Mapping[str, Callable[[Mapping[str, object]], object]]] = {
    "ablate_directions": {"site": lambda _: Site("z", 1, 0)},
    "compare": {"scores": lambda given: given["attributed"]},
    "evaluate": {"circuits": lambda given: [given["circuit"]]},
    "effect": {},
    "repeated_tokens": {"model": lambda _: load_model("toy:induction-trained")},
    "top_k": {},
    "patterns": {"prompts": lambda given: given["prompt"]},
}
SKIPPED = {
    *("known_circuit", "published_circuit", "circuit_of_roles", "example_inputs", "random_circuit"),
    *("show", "learned_mask", "cascading_randomization", "compare_scorers", "summarise", "table"),
    *("over_prompts", "by_span", "ablate_sites", "with_scores", "notable_effect", "progress_bar"),
    *("additivity_residual", "shows_redundancy", "additivity", "deletion", "find", "by_position"),
}
"""Of values that only the package makes, or that have tests of their own."""


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """The public functions, by name, of every package, each once."""
    seen = set()
    for package in ("", *PACKAGES):
        module = getattr(mi, package) if package else mi
        stub = inspect.getfile(module).replace("__init__.py", "__init__.pyi")
        with open(stub, encoding="utf-8") as file:
            names = re.findall(r"import (\w+) as", file.read())
        for name in names:
            function = getattr(module, name)
            if inspect.isfunction(function) and function not in seen and name not in SKIPPED:
                seen.add(function)
                yield name, function


def arguments_of(
    name: str, function: Callable[..., object], given: Mapping[str, object]
) -> tuple[dict[str, object], list[str]] | None:
    """Right arguments of a function, and the names of all that it takes; None if not known."""
    parameters = inspect.signature(function).parameters.values()
    special = SPECIAL.get(name, {})
    kept: dict[str, object] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.name in special:
            kept[parameter.name] = special[parameter.name](given)
        elif parameter.default is parameter.empty:
            if parameter.name not in given:
                return None
            kept[parameter.name] = given[parameter.name]
    named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return kept, named


def outcome(function: Callable[..., object], arguments: Mapping[str, object]) -> tuple[str, str]:
    """How a call ended: "accepted", "refused" or "traceback", and the words."""
    signal.alarm(SECONDS)
    try:
        function(**arguments)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = linecache.getline(frame.filename, frame.lineno or 0).strip()
        said = f"{type(error).__name__}: {str(error)[:150]}"
        ours = "/mechinterp/" in frame.filename and line.startswith("raise ")
        place = f"{frame.filename.split('/mechinterp/')[-1]}:{frame.lineno}"
        return ("refused", said) if ours else ("traceback", f"{said} [{place}]")
    finally:
        signal.alarm(0)
    return "accepted", ""


def main() -> int:
    """Call everything; the exit status is 1 with --check if a call was neither."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    options.add_argument("--quick", action="store_true")
    options.add_argument("--accepted", action="store_true", help="list what was taken")
    options.add_argument("--only", default="", help="the functions whose name contains this")
    chosen = options.parse_args()
    warnings.simplefilter("ignore")

    def stop(*_: object) -> None:
        raise TooLongError(f"longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    given, counts, unknown = valid_arguments(), {"accepted": 0, "refused": 0, "traceback": 0}, []
    for name, function in public_functions():
        if chosen.only not in name:
            continue
        made = arguments_of(name, function, given)
        right = outcome(function, made[0]) if made else ("unknown", "")
        if made is None or right[0] != "accepted":
            unknown.append(f"{name}: {right[1]}")
            continue
        for parameter in made[1]:
            for label in QUICK if chosen.quick else WRONG:
                ended, said = outcome(function, {**made[0], parameter: WRONG[label]})
                counts[ended] += 1
                if ended == "traceback" or (ended == "accepted" and chosen.accepted):
                    print(f"{ended}: {name}({parameter}={label}) {said}", flush=True)
    print(counts, "not tried:", *unknown, sep="\n  ")
    return 1 if chosen.check and counts["traceback"] else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory():
        sys.exit(main())
