"""The command line: `mechinterp attribute | patch | ablate | circuit | attention | layers | ...`.

Heavy imports wait for a command, so that --help is quick.

mechinterp attribute "When Mary and John went to the store, John gave a drink to" --expect Mary,John
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import tyro

import mechinterp
from mechinterp.commands.options.attention import AttentionOptions
from mechinterp.commands.options.attribution import AttributeOptions
from mechinterp.commands.options.circuit import CircuitOptions
from mechinterp.commands.options.grid import AblateOptions, PatchOptions
from mechinterp.commands.options.layer import LayerOptions
from mechinterp.commands.options.probe import ProbeOptions
from mechinterp.commands.options.refusal import RefusalOptions
from mechinterp.commands.terminal import busy, complain, parse, say, send_messages_here


def attribute(options: Annotated[AttributeOptions, tyro.conf.arg(name="")]) -> None:
    """Which inputs drive each output token: remove one, see how the output's score drops.

    Units may be words, sentences or spans that you name; other methods find inputs that stand in
    for each other, sample sets of removals, or read gradients and attention. Prints a table; --out
    keeps the numbers, with a report.
    """
    if options.file is None:
        with _loaded(options.model) as model:
            from mechinterp.commands.attribution import run_attribution

            run_attribution(model, options)
        return
    with _resumable(options.out), _loaded(options.model) as model:
        from mechinterp.commands.attribution_cases import run_attribution_cases

        run_attribution_cases(model, options)


def patch(options: Annotated[PatchOptions, tyro.conf.arg(name="")]) -> None:
    """What carries the difference between clean and corrupt prompts: activation patching.

    Prints a heat map and the strongest cells; --out keeps them, with a report.
    """
    with _resumable(options.out), _loaded(options.model, options.task) as model:
        from mechinterp.commands.grid import run_patch

        run_patch(model, options)


def ablate(options: Annotated[AblateOptions, tyro.conf.arg(name="")]) -> None:
    """What the model loses when a part of it says nothing: ablation, on the clean prompts.

    The corrupt prompts are the reference of means and resampling. Prints a heat map and the
    strongest cells; --out keeps them, with a report.
    """
    with _resumable(options.out), _loaded(options.model, options.task) as model:
        from mechinterp.commands.grid import run_ablate

        run_ablate(model, options)


def circuit(options: Annotated[CircuitOptions, tyro.conf.arg(name="")]) -> None:
    """Which edges between heads and MLPs carry a behaviour: a circuit, and how faithful it is.

    Prints the strongest edges and the parts that they join; --out keeps scores and circuit, with a
    report that draws them.
    """
    with _resumable(options.out), _loaded(options.model, options.task) as model:
        from mechinterp.commands.circuit import run_circuit

        run_circuit(model, options)


def layers(options: Annotated[LayerOptions, tyro.conf.arg(name="")]) -> None:
    """What each layer would say already, who writes the answer, and what is lost without them.

    The logit lens, a tuned lens if you give or train one, direct attribution by layer and head, and
    beside it ablation. Prints the figures by layer; --out keeps them, with a report.
    """
    with _resumable(options.out), _loaded(options.model, options.task) as model:
        from mechinterp.commands.layer import run_layers

        run_layers(model, options)


def attention(options: Annotated[AttentionOptions, tyro.conf.arg(name="")]) -> None:
    """Where heads look: the strongest links, the head that carries each, and whether it matters.

    Prints the links and what goes to the first token; --confirm cuts each link; --out keeps them,
    with a report that shows the pattern of every head.
    """
    with _loaded(options.model, options.task) as model:
        from mechinterp.commands.attention import run_attention

        run_attention(model, options)


def probe(options: Annotated[ProbeOptions, tyro.conf.arg(name="")]) -> None:
    """What can be read off each layer: linear probes of labelled prompts, beside all controls.

    With --causal also whether the model uses it. Prints a table by layer; --out keeps the numbers
    and directions, with a report.
    """
    with _resumable(options.out), _loaded(options.model) as model:
        from mechinterp.commands.probe import run_probe

        run_probe(model, options)


def refusal(options: Annotated[RefusalOptions, tyro.conf.arg(name="")]) -> None:
    """Why it refuses: what is asked for, certain words, or a cue; of the model or of one prompt.

    Prints a verdict with its probability, or why there is none, and its evidence; of a prompt the
    smallest sets of words that flip the answer. --out keeps them, with a report.
    """
    with _resumable(options.out):
        from mechinterp.commands.refusal import requests_of, run_refusal

        requests = requests_of(options)
        with _loaded(options.model) as model:
            run_refusal(model, options, requests)


def models() -> None:
    """The models that can be loaded by name without a network."""
    from mechinterp.models.loading import available_models

    for name, what in available_models().items():
        say(f"{name:22}{what}")
    say("\nAlso: a local Hugging Face directory, or a hub name such as gpt2.")


def describe(model: tyro.conf.Positional[str], /) -> None:
    """Every site of a model: its axes, whether it is switched on, and what switches it on.

    Args:
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name.
    """
    with _loaded(model) as loaded:
        from mechinterp.models.hook_points import describe as described

        say(described(loaded))


def main() -> None:
    """The console script: errors are one line, without a traceback, and exit with 2."""
    # Threads that spin while they wait are many times slower on a machine shared with others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    send_messages_here()
    if sys.argv[1:] == ["--version"]:
        say(f"mechinterp {mechinterp.__version__}")
        return
    commands: dict[str, Callable[..., None]] = {
        "attribute": attribute,
        "patch": patch,
        "ablate": ablate,
        "circuit": circuit,
        "layers": layers,
        "attention": attention,
        "probe": probe,
        "refusal": refusal,
        "models": models,
        "describe": describe,
    }
    try:
        run_command = parse(
            lambda: tyro.extras.subcommand_cli_from_dict(
                {name: _later(command) for name, command in commands.items()},
                prog="mechinterp",
                description="Causal experiments on a transformer's internals, exact and fast.",
            )
        )
        run_command()
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and not type(error).__module__.startswith("mechinterp"):
            raise
        complain(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        complain(str(stop) or "stopped")
        raise SystemExit(130) from None


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The command, to be called with its options now and run later, when all are read."""

    @wraps(command)
    def with_options(*given: object, **named: object) -> Callable[[], None]:
        return partial(command, *given, **named)

    return with_options


@contextmanager
def _loaded(model: str, task: str | None = None) -> Iterator[Any]:  # Model, which needs torch
    """The model of this name, loaded after the name of a task has been checked.

    Raises:
        ValueError: if there is no such model or task.
    """
    if task is not None:
        from mechinterp.commands.prompt_request import check_task

        check_task(task)
    from mechinterp.models.loading import load_model

    with busy(f"loading {model}"):
        loaded = load_model(model)
    yield loaded


@contextmanager
def _resumable(out: Path | None) -> Iterator[None]:
    """Make a Ctrl-C say how the run can be continued."""
    try:
        yield
    except KeyboardInterrupt:
        how = "the same command continues from what is finished"
        if out is None:
            how = "with --out FOLDER it could be continued"
        raise KeyboardInterrupt(f"stopped; {how}") from None


if __name__ == "__main__":
    main()
