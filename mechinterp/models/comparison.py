"""Whether a converted model computes what its original does, at every length that matters to it.

TransformerLens ignores parts of some configurations. So both models are run, in single precision:
on a short prompt; on one that is longer than every window, if the context is; and on tokens whose
positions are spread over the whole context, where rotations of every frequency show. What may
differ is what rounding explains: it is measured, by a run whose inputs are off by some last bits.

>>> from mechinterp import load_model
>>> from mechinterp.models.comparison import spread_positions
>>> spread_positions(100, ())
[0, 1, 2, 3, 5, 10, 20, 40, 80, 98, 99]
"""

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.components import AbstractAttention
from transformers import PreTrainedModel

from mechinterp.core.interrupts import holds_signals, interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.models.facts import device
from mechinterp.models.forward_parts import (
    embed,
    key_value_cache,
    normalize,
    run_block,
    unembed_with_hooks,
)
from mechinterp.models.model_folder import MOST_POSITIONS, CheckpointError, entries
from mechinterp.models.single_precision import in_single_precision

SHORT = 12
"""The length of the short prompt."""

READ = 16
"""How many of a long prompt's last positions are compared."""

TOLERANCE = 5e-5
"""How far log-probabilities may be off, as a share of the largest of them from their mean."""

ROUNDING = 2.0**-23
"""The share by which inputs are changed to see what rounding does: a last bit."""

_AT_ONCE = 512


@dataclass(frozen=True)
class Trial:
    """Tokens to run both models on. `positions`: where they stand; None: one after the other."""

    n_tokens: int
    positions: Sequence[int] | None
    said: str


def check_conversion(model: HookedTransformer, original: PreTrainedModel, label: str) -> None:
    """Check that both give the same probabilities. `model` is in single precision, and ours.

    Raises:
        CheckpointError: if they do not, or if the original does not run.
    """
    trials = _trials(model, original)
    with gradients_off():
        prompts = [_tokens(model, trial.n_tokens) for trial in trials]
        expected = _all_of_original(original, prompts, trials, label)
        for trial, tokens, wanted in zip(trials, prompts, expected, strict=True):
            found = _of_converted(model, tokens, trial)[:, : wanted.shape[-1]]
            n = min(len(wanted), len(found))
            off = float((found[-n:] - wanted[-n:]).abs().max())
            allowed = TOLERANCE * float((wanted - wanted.mean(-1, keepdim=True)).abs().max())
            if not off <= allowed:
                other = _of_converted(model, tokens, trial, jitter=ROUNDING)
                allowed += 3 * float((found - other[:, : wanted.shape[-1]]).abs().max())
            if not off <= allowed:
                raise CheckpointError(
                    f"{label}: TransformerLens's conversion differs from the original by "
                    f"{off:.2g} nats {trial.said}: it ignores something in the config, such as "
                    f"biases, a window of attention or a rotary scaling. Convert the model "
                    f"yourself, and use that HookedTransformer as it is."
                )


@holds_signals
def check_runs(model: HookedTransformer, label: str) -> None:
    """Check that a model that was rounded to its precision runs, and gives finite numbers.

    Raises:
        CheckpointError: if it does not.
    """
    dtype = str(model.cfg.dtype).removeprefix("torch.")
    try:
        with gradients_off():
            found = model(_tokens(model, min(SHORT, model.cfg.n_ctx)))
    except Exception as error:  # whatever a forward pass raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{label}: TransformerLens cannot run it in {dtype}: {reason}. "
            f"Load it with dtype=torch.float32."
        ) from error
    if not bool(found.isfinite().all()):
        raise CheckpointError(
            f"{label}: in {dtype} its logits are not finite. Load it with dtype=torch.float32."
        )


def _trials(model: HookedTransformer, original: PreTrainedModel) -> list[Trial]:
    """On what both are compared. Windows that no prompt can exceed do not matter."""
    n_ctx = model.cfg.n_ctx
    windows, lengths = _lengths(original.config.to_dict())
    longest = max((w for w in windows if w < n_ctx), default=0)
    short = min(SHORT, n_ctx)
    trials = [Trial(short, None, f"on {short} tokens")]
    if longest and longest + READ > short:
        n = min(n_ctx, longest + READ)
        trials.append(Trial(n, None, f"on {n} tokens, beyond its window of {longest}"))
    if "position_ids" in inspect.signature(original.forward).parameters:
        places = spread_positions(min(n_ctx, MOST_POSITIONS), (*windows, *lengths))
        said = f"on {len(places)} tokens at positions from 0 to {places[-1]}"
        trials.append(Trial(len(places), places, said))
    elif n_ctx > short:
        n = min(n_ctx, 8 * SHORT)
        trials.append(Trial(n, None, f"on {n} tokens"))
    return trials


def _lengths(config: Mapping[str, object]) -> tuple[list[int], list[int]]:
    """The windows that a configuration names, and its other lengths below the whole context."""
    kinds = config.get("layer_types")
    plain = isinstance(kinds, list) and set(kinds) == {"full_attention"}
    windows, lengths = [], []
    for key, value in entries(config):
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            continue
        if re.search(r"window|chunk", key) and "layers" not in key:
            windows.extend([] if plain else [value])
        elif re.search(r"original_max|max_position|train", key):
            lengths.append(value)
    return windows, lengths


def spread_positions(n_ctx: int, lengths: Sequence[int]) -> list[int]:
    """Positions from the first to the last: the first four, then ever further apart.

    Those around each of `lengths` are among them.
    """
    steps = [5 * 2**k for k in range(40)]
    around = [n + step for n in (*lengths, n_ctx) for step in (-2, -1, 0, 1)]
    places = {*range(4), *steps, *around}
    return sorted(place for place in places if 0 <= place < n_ctx)


def _tokens(model: HookedTransformer, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    drawn = torch.randint(model.cfg.d_vocab, (1, n), generator=generator)
    return drawn.to(device(model))


def _all_of_original(
    original: PreTrainedModel, prompts: Sequence[Tensor], trials: Sequence[Trial], label: str
) -> list[Tensor]:
    """The original's log-probabilities `[pos, vocab]` in each trial."""
    # A model that was made in inference mode runs nowhere else.
    made_there = any(x.is_inference() for x in original.parameters())
    found = []
    with (
        interruptible() as interrupts,  # the original is not to stay changed
        torch.inference_mode(made_there),
        in_single_precision(original),
    ):
        for trial, tokens in zip(trials, prompts, strict=True):
            interrupts.check()
            found.append(_of_original(original, tokens, trial, label))
    return found


def _of_original(
    original: PreTrainedModel, tokens: Tensor, trial: Trial, label: str
) -> Float[Tensor, "pos vocab"]:
    try:
        return _read_original(original, tokens, trial)
    except Exception as error:  # whatever a forward pass raises
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{label} does not run {trial.said}, so its conversion cannot be compared: {reason}"
        ) from error


def _read_original(
    original: PreTrainedModel, tokens: Tensor, trial: Trial
) -> Float[Tensor, "pos vocab"]:
    """The original's log-probabilities; of a long prompt only at its last positions."""
    here = tokens.to(original.device)
    knows = inspect.signature(original.forward).parameters
    options: dict[str, object] = {}
    if trial.positions is not None:
        options["position_ids"] = torch.tensor([trial.positions], device=here.device)
        # Without a mask, a jump in positions is taken for the begin of another text.
        options["attention_mask"] = torch.ones_like(here)
    if trial.n_tokens > _AT_ONCE and "logits_to_keep" in knows:
        options["logits_to_keep"] = READ
    if "use_cache" in knows:
        options["use_cache"] = False
    logits: Tensor = original(here, **options).logits[0]
    return logits.float().cpu().log_softmax(-1)


def _of_converted(
    model: HookedTransformer, tokens: Tensor, trial: Trial, *, jitter: float = 0.0
) -> Float[Tensor, "pos vocab"]:
    """The same of ours. A long prompt runs in pieces, so that its scores need no memory."""
    n = tokens.shape[1]
    with _placed(model, trial, jitter=jitter):
        if n <= _AT_ONCE:
            logits: Tensor = model(tokens)[0]
            return logits.float().cpu().log_softmax(-1)
        cache, ends = key_value_cache(model, 1), [*range(_AT_ONCE, n - READ, _AT_ONCE), n - READ, n]
        for start, end in itertools.pairwise([0, *ends]):
            resid, positions = embed(model, tokens[:, start:end], start)
            for layer in range(model.cfg.n_layers):
                resid = run_block(model, layer, resid, positions, cache[layer])
        logits = unembed_with_hooks(model, normalize(model, resid))[0]
        return logits.float().cpu().log_softmax(-1)


@contextmanager
def _placed(model: HookedTransformer, trial: Trial, *, jitter: float) -> Iterator[None]:
    """The model with its tokens at the trial's positions, and its inputs off by a share `jitter`.

    Angles are off by the same share, as they are where they are computed in single precision.
    """
    places = trial.positions or range(trial.n_tokens)
    with ExitStack() as undo:
        if trial.positions is None and not jitter:
            yield
            return
        table = getattr(getattr(model, "pos_embed", None), "W_pos", None)
        if isinstance(table, nn.Parameter) and trial.positions and len(table) >= model.cfg.n_ctx:
            undo.callback(setattr, table, "data", table.data)
            table.data = table.data[list(places)]
        if model.cfg.positional_embedding_type == "rotary":
            made: dict[str, tuple[Tensor, Tensor]] = {}
            for block in model.blocks:
                attn = block.attn
                if attn.attn_type not in made:
                    made[attn.attn_type] = _rotations(attn, places, jitter)
                undo.callback(setattr, attn, "rotary_sin", attn.rotary_sin)
                undo.callback(setattr, attn, "rotary_cos", attn.rotary_cos)
                attn.rotary_sin, attn.rotary_cos = made[attn.attn_type]
        if jitter:
            undo.enter_context(_inputs_off(model, jitter))
        yield


def _rotations(
    attn: AbstractAttention, places: Sequence[int], jitter: float
) -> tuple[Float[Tensor, "pos rotary"], Float[Tensor, "pos rotary"]]:
    """The sines and cosines of the model's own table at these positions."""
    wanted = torch.tensor(list(places))
    sin, cos = attn.calculate_sin_cos_rotary(
        attn.cfg.rotary_dim,
        max(int(wanted.max()) + 1, 2),
        base=attn._rotary_base(),
        dtype=attn.cfg.dtype,
    )
    turns = torch.atan2(sin[1], cos[1]).abs()  # the angle from one position to the next
    sin, cos = sin[wanted.to(sin.device)], cos[wanted.to(cos.device)]
    if jitter:
        signs = 1 - 2 * (torch.arange(len(turns), device=sin.device) % 2)
        angle = jitter * turns * signs * wanted[:, None].to(sin.device)
        sin, cos = sin * angle.cos() + cos * angle.sin(), cos * angle.cos() - sin * angle.sin()
    place = attn.W_O.device
    return sin.to(place), cos.to(place)


@contextmanager
def _inputs_off(model: HookedTransformer, jitter: float) -> Iterator[None]:
    """The model with its token embeddings off by a share `jitter`, some up and some down."""

    def off(_: nn.Module, __: object, output: Tensor) -> Tensor:
        signs = 1 - 2 * (torch.arange(output.shape[-1], device=output.device) % 3 % 2)
        return output * (1 + 4 * jitter * signs)  # every layer adds its own

    handle = model.embed.register_forward_hook(off)
    try:
        yield
    finally:
        handle.remove()
