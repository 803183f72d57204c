"""The command line: `mechinterp attribute | patch | ablate | models | describe`.

Heavy imports wait for a command, so that --help is quick.

mechinterp attribute "When Mary and John went to the store, John gave a drink to" --expect Mary,John
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import mechinterp
from mechinterp.grid_options import Ablate, GridOptions, Patch


def attribute(
    prompt: tyro.conf.Positional[str],
    /,
    *,
    model: str = "smollm2",
    outputs: int = 5,
    continuation: str | None = None,
    removal: Literal["delete", "mean", "resample", "knockout", "replace"] = "delete",
    metric: Literal["log_prob", "centred_logit", "logit", "prob", "logit_diff", "kl"] = "log_prob",
    contrast: tuple[str, str] | None = None,
    expect: str | None = None,
    chat: bool = False,
    out: Path | None = None,
) -> None:
    """Which input tokens drive each output token: remove one, see how the output's score drops.

    Args:
        prompt: the text; "-" reads it from standard input.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        outputs: how many tokens the model writes on, each of which is explained.
        continuation: explain this text instead of what the model would write.
        removal: what is done to an input token.
        metric: what is measured of an output token.
        contrast: two tokens, --contrast " Mary" " John": measures the first's logit minus the
            second's.
        expect: input tokens or phrases that should matter, with commas between: Mary,John.
        chat: the prompt is a user's message; put it into the model's chat template.
        out: a folder for manifest.json, scores.parquet and report.html.
    """
    from mechinterp.attribution.expect import compare
    from mechinterp.attribution.perturb import attribute as attributed
    from mechinterp.models import load_model
    from mechinterp.report import print_attribution

    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file. Name a folder.")
    text = sys.stdin.read() if prompt == "-" else prompt
    with _busy(f"loading {model}"):
        loaded = load_model(model)
    chosen = _metric(loaded, metric, contrast)
    asked: Any = [{"role": "user", "content": text}] if chat else text
    with _busy("removing one input token after another"):
        scores = attributed(loaded, asked, continuation or outputs, removal, chosen)
    comparisons = compare(scores, [e for e in expect.split(",") if e.strip()]) if expect else ()
    print_attribution(scores, comparisons)
    if out is not None:
        _write(out, loaded, scores, comparisons)


def patch(options: Annotated[Patch, tyro.conf.arg(name="")]) -> None:
    """What carries the difference between clean and corrupt prompts: activation patching.

    Prints a heat map and the strongest cells; --out keeps them, with a report.
    """
    with _going_on(options) as model:
        from mechinterp.grid_runs import patched

        patched(model, options)


def ablate(options: Annotated[Ablate, tyro.conf.arg(name="")]) -> None:
    """What the model loses when a part of it says nothing: ablation, on the clean prompts.

    The corrupt prompts are the reference of means and resampling. Prints a heat map and the
    strongest cells; --out keeps them, with a report.
    """
    with _going_on(options) as model:
        from mechinterp.grid_runs import ablated

        ablated(model, options)


def models() -> None:
    """The models that can be loaded by name without a network."""
    from mechinterp.models import available_models

    for name, what in available_models().items():
        print(f"{name:22}{what}")
    print("\nAlso: a local Hugging Face directory, or a hub name such as gpt2.")


def describe(model: tyro.conf.Positional[str], /) -> None:
    """Every site of a model: its axes, whether it is switched on, and what switches it on.

    Args:
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name.
    """
    from mechinterp.hook_points import describe as described
    from mechinterp.models import load_model

    with _busy(f"loading {model}"):
        loaded = load_model(model)
    print(described(loaded))


def main() -> None:
    """The console script: errors are one line, without a traceback, and exit with 2."""
    # Threads that spin while they wait are many times slower on a machine shared with others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("mechinterp").setLevel(logging.INFO)
    if sys.argv[1:] == ["--version"]:
        print(f"mechinterp {mechinterp.__version__}")
        return
    commands: dict[str, Callable[..., Any]] = {
        "attribute": attribute,
        "patch": patch,
        "ablate": ablate,
        "models": models,
        "describe": describe,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="mechinterp",
            description="Causal experiments on a transformer's internals, exact and fast.",
        )
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and not type(error).__module__.startswith("mechinterp"):
            raise
        print(f"mechinterp: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        print(f"mechinterp: {stop or 'stopped'}", file=sys.stderr)
        raise SystemExit(130) from None


def _metric(model: Any, name: str, contrast: tuple[str, str] | None) -> Any:
    from mechinterp import metrics
    from mechinterp.tokenization import token_id

    if contrast is not None:
        first, second = (token_id(model, text) for text in contrast)
        return metrics.logit_diff(first, second)
    if name == "logit_diff":
        raise ValueError('--metric logit_diff needs --contrast, two tokens: " Mary" " John".')
    return getattr(metrics, name)()


def _write(out: Path, model: Any, scores: Any, comparisons: Sequence[Any]) -> None:
    import dataclasses

    import torch

    from mechinterp.models import fingerprint
    from mechinterp.report import attribution_page
    from mechinterp.store import scores_parquet, write_run

    facts = {
        "kind": "attribution",
        "command": sys.argv,
        "fingerprint": fingerprint(model),
        "dtype": str(model.cfg.dtype),
        "threads": torch.get_num_threads(),
        "input_token_ids": scores.input_token_id.values.tolist(),
        "output_token_ids": scores.output_token_id.values.tolist(),
        "expected": [dataclasses.asdict(c) for c in comparisons],
        **scores.attrs,
    }
    page = attribution_page(scores, comparisons)
    files = {"scores.parquet": scores_parquet(scores), "report.html": page.encode()}
    write_run(out, facts, files)
    print(f"wrote {out / 'report.html'}, scores.parquet and manifest.json")


@contextmanager
def _going_on(options: GridOptions) -> Iterator[Any]:
    """The model; a stop says how to go on."""
    try:
        from mechinterp.grid_questions import check_task
        from mechinterp.models import load_model

        check_task(options.task)
        with _busy(f"loading {options.model}"):
            model = load_model(options.model)
        yield model
    except KeyboardInterrupt:
        how = "the same command goes on with what is finished"
        if options.out is None:
            how = "with --out FOLDER it could go on from there"
        raise KeyboardInterrupt(f"stopped; {how}") from None


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """Say on stderr what takes a while: a spinner on a terminal, else one line."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"mechinterp: {what} ...", file=sys.stderr, flush=True)
        yield
        return
    with console.status(what):
        yield


if __name__ == "__main__":
    main()
