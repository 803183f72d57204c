"""Sweeps, attributions and circuits in several threads on one model give each its own numbers.

    python scripts/proofs/threads.py [--check] [--quick]

600 sweeps, 200 attributions and 100 circuits, in 2 and in 4 threads and in 2 forked processes of 2
threads each, beside contexts (`hooked`) that generate. Each result is compared with that of the
same call made alone. Prints how many of each are wrong; with --check, exits with 1 if any is.
`--quick`: a tenth of each.
"""

import argparse
import os
import random
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from mechinterp import (
    Pair,
    Site,
    ask,
    attribute,
    hooked,
    load_model,
    log_prob,
    sweep,
    token_id,
    tokenize,
    zero,
)
from mechinterp.attribution import integrated_gradients
from mechinterp.circuits import Contrast, acdc, eap, eap_ig, exact_edges
from mechinterp.models import Model

TIMES = {"sweep": 600, "attribution": 200, "circuit": 100, "context": 100}
TEXTS = ("please bring the sesame", "bring the letter and the map", "the sesame and some sesame")
PAIRS = (
    ("please bring the sesame", "please bring the letter"),
    ("bring the sesame", "bring the map"),
)
GREEDY = {"max_new_tokens": 2, "do_sample": False, "stop_at_eos": False, "verbose": False}

Call = Callable[[], np.ndarray]


def calls(model: Model) -> dict[str, list[Call]]:
    """Calls of each kind, each with its own answer."""
    refuse = log_prob(token_id(model, "REFUSE"))

    def swept(text: str, layer: int) -> np.ndarray:
        def arm(head: int) -> object:
            return zero(Site("z", layer, head=head))

        return sweep(model, text, {"head": range(3)}, arm, refuse).values

    def context(text: str, head: int) -> np.ndarray:
        with hooked(model, zero(Site("z", 1, head=head))) as same:
            return same.generate(tokenize(model, text).tokens, **GREEDY).numpy()

    def contrast(number: int) -> Contrast:
        pair = Pair(*(tokenize(model, text) for text in PAIRS[number]))
        return Contrast.from_pair(model, pair, refuse)

    def attributed(text: str) -> np.ndarray:
        return attribute(model, text, outputs=1).values

    def integrated(text: str) -> np.ndarray:
        return integrated_gradients(ask(model, text, outputs=1), steps=17).values

    circuits = [lambda n=number, f=found: f(contrast(n)) for number in range(2) for found in FOUND]
    return {
        "sweep": [lambda t=t, n=n: swept(t, n) for t in TEXTS for n in range(2)],
        "attribution": [lambda t=t, f=f: f(t) for t in TEXTS for f in (attributed, integrated)],
        "circuit": circuits,
        "context": [lambda t=t, n=n: context(t, n) for t in TEXTS for n in range(3)],
    }


FOUND = (
    lambda contrast: eap(contrast).mean,
    lambda contrast: eap_ig(contrast, steps=2).mean,
    lambda contrast: exact_edges(contrast).mean,
    lambda contrast: acdc(contrast, 0.1).mask,
)


def count_wrong(model: Model, n_threads: int, share: float) -> Counter[str]:
    """How many results of each kind differ from the call alone."""
    made = calls(model)
    right = {kind: [call() for call in each] for kind, each in made.items()}
    jobs = [
        (kind, number % len(made[kind]))
        for kind, times in TIMES.items()
        for number in range(int(times * share))
    ]
    random.Random(n_threads).shuffle(jobs)
    wrong: Counter[str] = Counter(dict.fromkeys(TIMES, 0))

    def work(mine: list[tuple[str, int]]) -> None:
        for kind, number in mine:
            try:
                found = made[kind][number]()
                same = np.allclose(found, right[kind][number], atol=1e-5, equal_nan=True)
            except Exception as error:  # whatever it is, the call alone raised nothing
                print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr)
                same = False
            wrong[kind] += not same

    threads = [threading.Thread(target=work, args=(jobs[n::n_threads],)) for n in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def in_a_process(model: Model, share: float) -> int:
    """Fork, count there in two threads; the process's id."""
    process = os.fork()
    if process:
        return process
    wrong = sum(count_wrong(model, 2, share).values())
    os._exit(min(wrong, 250))


def main() -> None:
    """Count and print, and exit with 1 if anything is wrong and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of attributions, about redundant inputs
    sys.setswitchinterval(1e-4)
    model, total = load_model("toy:trigger"), 0
    for n_threads in (2, 4):
        wrong = count_wrong(model, n_threads, share)
        total += sum(wrong.values())
        counts = ", ".join(
            f"{n} of {int(TIMES[kind] * share)} {kind}s" for kind, n in wrong.items()
        )
        print(f"{n_threads} threads: wrong are {counts}")
    processes = [in_a_process(model, share / 10) for _ in range(2)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(f"2 processes of 2 threads each: {ends} are wrong")
    total += sum(map(abs, ends))
    if options.check and total:
        sys.exit(1)


if __name__ == "__main__":
    main()
