"""Faithfulness of every attribution method on a real model, beside chance.

    python scripts/bench/faithfulness.py [--check] [--quick] [--prompts 40] [--out FILE.json]

SmolLM2-135M-Instruct, prompts of `faithfulness_prompts.py`; the score is the log-probability of the
3 greedy tokens together. Every method answers the same question, then sets of inputs are removed
that no method has seen: by deletion, and by a draw of other tokens. Means over prompts with
intervals; differences are paired, prompt by prompt. One thread, CPU seconds.

`--out` keeps the result of each prompt; the same call goes on from there, another one, or one of
other code, is refused.
`--check` exits with 1 if a drop is not that of a pass of the plain model, random scores tell
anything, or leave-one-out misses what is near it. `--quick`: 2 prompts and few sets, for the first.
"""

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from faithfulness_prompts import prompts

from mechinterp import ask, load_model, read, run, sequence_log_prob
from mechinterp.attribution.methods.attention import attention_rollout, value_weighted_attention
from mechinterp.attribution.methods.direct import direct_attribution
from mechinterp.attribution.methods.gradient import gradient_x_input, integrated_gradients
from mechinterp.attribution.methods.positions import sum_by_unit
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.methods.subsets import kernel_shap, sparse_surrogate
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.question.removals import REMOVALS, resampled_token
from mechinterp.attribution.scores import label_scores, run_cost
from mechinterp.attribution.tables import from_json, to_json
from mechinterp.attribution.trust.evaluation import compare_scorers, summarise, table
from mechinterp.attribution.trust.faithfulness import SEED_OFFSET, faithfulness
from mechinterp.core.sites import Site
from mechinterp.storage.run_folder import write_whole

N_OUTPUTS = 3
FRACTIONS = (0.2, 0.5, 0.8)
HYBRID = "single and pair deletions"
SHOWN = ("lds@0.5", "lds@0.9", "drop@1", "drop@3", "sufficiency@5", "comprehensiveness")
SHOWN += ("sufficiency",)
TOLERANCE_NATS = 1e-3
CHANCE_ERRORS = 3.3
"""How many standard errors random scores may be off zero: one figure in a thousand is."""
WANTED_LDS = 0.80
"""What single deletions reach at least, of sets with a tenth deleted."""

Method = Callable[[Question, int, int], xr.DataArray]
"""Scores from a question, how many variants of the prompt the hybrid ran, and a seed."""


def single(question: Question, how: str, seed: int) -> xr.DataArray:
    """Each unit removed by itself; draws are the prompt's own."""
    drawn = how == "resample"
    return leave_one_out(question, resampled_token(question.model, seed=seed) if drawn else how)


def mean_attention(question: Question) -> xr.DataArray:
    """The share of attention that each unit gets from where outputs are read, over all heads."""
    began, layers = time.perf_counter(), range(question.model.cfg.n_layers)
    sites = [Site("pattern", layer, pos=row) for layer in layers for row in question.reads]
    acts = run(question.model, question.sequence, read(*sites), logits_at=()).acts
    mean = torch.stack([acts[site][0].mean(0) for site in sites]).mean(0).cpu().double().numpy()
    attrs = {"method": "attention", **run_cost(question, began, passes=1, rows=1)}
    return label_scores(question, sum_by_unit(question, mean[None]), attrs)


METHODS: Mapping[str, Method] = {
    HYBRID: lambda q, n, seed: pair_removals(q)["score"],
    **{f"single, {how}": lambda q, n, seed, how=how: single(q, how, seed) for how in REMOVALS},
    **{
        f"surrogate, {m}": lambda q, n, seed, m=m: sparse_surrogate(q, m, seed=seed)
        for m in (32, 256)
    },
    "surrogate, as hybrid": lambda q, n, seed: sparse_surrogate(q, n, seed=seed),
    **{
        f"kernel SHAP, {m}": lambda q, n, seed, m=m: kernel_shap(
            q, max(m, 2 * len(q.attributed)), seed=seed
        )
        for m in (32, 256)
    },
    "kernel SHAP, as hybrid": lambda q, n, seed: kernel_shap(q, n, seed=seed),
    "gradient x input": lambda q, n, seed: gradient_x_input(q),
    "integrated gradients, 32": lambda q, n, seed: integrated_gradients(q, steps=32),
    "direct attribution": lambda q, n, seed: direct_attribution(q),
    "attention": lambda q, n, seed: mean_attention(q),
    "attention x value": lambda q, n, seed: value_weighted_attention(q),
    "attention rollout": lambda q, n, seed: attention_rollout(q),
}
"""The hybrid goes first: others get as many variants. Kernel SHAP needs 2 a unit, and gets them."""


def main() -> None:
    """Attribute and evaluate each prompt, print the tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if a figure is off")
    arguments.add_argument("--quick", action="store_true", help="2 prompts, few sets")
    arguments.add_argument("--prompts", type=int, default=40)
    arguments.add_argument("--subsets", type=int, default=64)
    arguments.add_argument("--out", type=Path, help="a file for the results of finished prompts")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="redundancy:|integrated gradients")
    n, n_subsets = (2, 8) if given.quick else (given.prompts, given.subsets)
    model = load_model("smollm2", device="cpu")
    kept = Kept(given.out, f"{n_subsets} subsets, code {code()}")
    results = []
    for number, (source, prompt) in enumerate(prompts(model, n)):
        began = time.process_time()
        question = ask(model, prompt, N_OUTPUTS, sequence_log_prob())
        result = kept.load(question)
        if result is None:
            result = evaluated(question, n_subsets, seed=number).assign_attrs(source=source)
            kept.save(question, result)
        results.append(result)
        spent = time.process_time() - began
        print(
            f"{number + 1}/{n} {source}, {result.attrs['units']} units, {spent:.0f} s", flush=True
        )
    short = [*inexact(results), *([] if given.quick else off(results))]
    show(results)
    if given.check and short:
        raise SystemExit("\n".join(short))


def evaluated(question: Question, n_subsets: int, seed: int) -> xr.Dataset:
    """The faithfulness of all methods on one prompt, with what each method cost.

    Every prompt has its own seed: else those of as many units would share their random sets.
    """
    scores: dict[str, xr.DataArray] = {}
    seconds, variants, work = [], [], []
    for name, method in METHODS.items():
        began = time.process_time()
        scores[name] = method(question, scores[HYBRID].attrs["arms"] if scores else 0, seed)
        seconds.append(time.process_time() - began)
        attrs = scores[name].attrs
        variants.append(attrs.get("arms", 0))
        work.append(attrs["token_layers"] / question.model.cfg.n_layers / question.sequence.width)
    drawn = resampled_token(question.model, n_draws=1, seed=seed + SEED_OFFSET)
    began = time.process_time()
    result = faithfulness(
        question, scores, ["delete", drawn], n_subsets=n_subsets, fractions=FRACTIONS, seed=seed
    )
    return result.assign(
        seconds=("cost_of", seconds), variants=("cost_of", variants), full_passes=("cost_of", work)
    ).assign_attrs(
        units=len(question.attributed),
        seconds_to_evaluate=time.process_time() - began,
        plain_drop_at_3=plain_drop(question, scores["single, delete"].values[0], 3),
    )


def plain_drop(question: Question, scores: np.ndarray, k: int) -> float:
    """The drop without the k highest units, by two passes of the plain model."""
    ranked = sorted(question.attributed, key=lambda number: (-scores[number], number))
    gone = set(question.positions(ranked[:k]))
    ids = question.sequence.tokens[0].tolist()

    def log_prob(left: list[int]) -> float:
        with torch.no_grad():
            logs = question.model(torch.tensor([[ids[pos] for pos in left]]))[0].log_softmax(-1)
        rows = [sum(pos <= row for pos in left) - 1 for row in question.reads]
        return sum(float(logs[row, i]) for row, i in zip(rows, question.read_ids, strict=True))

    everything = list(range(len(ids)))
    return log_prob(everything) - log_prob([pos for pos in everything if pos not in gone])


# What is kept


def code() -> str:
    """A digest of the sources that make a result: results of other code do not go beside it."""
    loaded = [m.__file__ for name, m in sys.modules.items() if name.startswith("mechinterp")]
    here = map(str, Path(__file__).parent.glob("faithfulness*.py"))
    files = [Path(file) for file in sorted({*filter(None, loaded), *here})]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


class Kept:
    """A file of the results of finished prompts."""

    def __init__(self, file: Path | None, settings: str) -> None:
        self._file, self._settings = file, settings
        self._found: dict[str, Any] = {}
        if file is not None and file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["settings"] != settings:
                raise SystemExit(
                    f"{file}: made with {kept['settings']}, not {settings}. Name another."
                )
            self._found = kept["prompts"]

    def load(self, question: Question) -> xr.Dataset | None:
        """The result of a prompt, if it was finished."""
        found = self._found.get(question.text)
        return None if found is None else from_json(json.dumps(found))

    def save(self, question: Question, result: xr.Dataset) -> None:
        """Keep a result, whole or not at all."""
        self._found[question.text] = json.loads(to_json(result))
        if self._file is not None:
            kept = {"settings": self._settings, "prompts": self._found}
            write_whole(self._file, json.dumps(kept).encode())


# What is shown and checked


def show(results: list[xr.Dataset]) -> None:
    """The tables: what each method reaches, what it costs, and the hybrid beside each other one."""
    sources = [result.attrs["source"] for result in results]
    units = [result.attrs["units"] for result in results]
    counts = {source: sources.count(source) for source in dict.fromkeys(sources)}
    print(
        f"\n{len(results)} prompts ({', '.join(f'{c} {s}' for s, c in counts.items())}) of ", end=""
    )
    print(f"{min(units)} to {max(units)} units, {np.mean(units):.0f} on average.")
    if len(results) < 2:
        return
    summary = summarise(results).sel(measure=list(SHOWN))
    for removal in summary["removal"].values.tolist():
        print(f"\n{table(summary.sel(removal=[removal]))}")
    print("\n| scorer | CPU s a prompt | variants of the prompt | whole passes, in work |")
    print("|---|---|---|---|")
    mean = {
        name: np.mean([result[name].values for result in results], 0)
        for name in ("seconds", "variants", "full_passes")
    }
    for at, name in enumerate(METHODS):
        cells = [f"{mean['seconds'][at]:.2f}", f"{mean['variants'][at]:.0f}"]
        print(f"| {name} | {' | '.join(cells)} | {mean['full_passes'][at]:.0f} |")
    spent = np.mean([result.attrs["seconds_to_evaluate"] for result in results])
    print(f"\nTo evaluate all of them: {spent:.1f} CPU s a prompt.")
    beside = compare_scorers(results, HYBRID).sel(measure=["lds@0.5", "lds@0.9"])
    print(f"\n{HYBRID}, less each other one, prompt by prompt:\n")
    print(table(beside))
    for removal in beside["removal"].values.tolist():
        for measure in beside["measure"].values.tolist():
            cell = beside.sel(measure=measure, removal=removal)
            better = [s for s in cell["scorer"].values.tolist() if cell["high"].sel(scorer=s) < 0]
            print(f"\n{measure} under {removal}: beaten by: {'; '.join(better) or 'none'}.", end="")
    print()


def inexact(results: list[xr.Dataset]) -> list[str]:
    """Drops that are not those of passes of the plain model."""
    short = []
    for number, result in enumerate(results):
        at = {"scorer": "single, delete", "removal": "delete", "k": 3}
        drop, plain = result["drop_at_k"].sel(at).item(), result.attrs["plain_drop_at_3"]
        if not abs(drop - plain) <= TOLERANCE_NATS:
            short.append(f"prompt {number}: drop@3 is {drop:.4f}, of the plain model {plain:.4f}")
    return short


def off(results: list[xr.Dataset]) -> list[str]:
    """Figures of many prompts that fall short."""
    summary, short = summarise(results), []
    each = np.stack([r["lds"].sel(scorer="random").mean("output").values for r in results])
    error = np.nanstd(each, 0, ddof=1) / np.sqrt(np.isfinite(each).sum(0))
    for (r, k), mean in np.ndenumerate(np.nanmean(each, 0)):
        if not abs(mean) <= CHANCE_ERRORS * error[r, k]:
            where = f"{results[0]['removal'].values[r]}, keep {results[0]['keep'].values[k]}"
            short.append(f"random scores, {where}: LDS {mean:.2f} +- {error[r, k]:.2f}")
    at = {"scorer": "single, delete", "measure": "lds@0.9", "removal": "delete"}
    found = summary["mean"].sel(at).item()
    if not found > WANTED_LDS:
        short.append(f"single deletions: lds@0.9 is {found:.2f}, wanted above {WANTED_LDS}")
    return short


if __name__ == "__main__":
    main()
