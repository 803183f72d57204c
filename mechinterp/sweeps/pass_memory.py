"""The most bytes that a pass takes, from shapes alone: nothing is allocated to find them.

A layer runs without data (on torch's meta device) at a few small shapes, and the bytes that are
alive after each of its operations are counted. Each count is linear in the rows, positions and
links of the batch, so that the peak of any batch follows.

>>> from mechinterp import load_model
>>> from mechinterp.sweeps.pass_memory import Footprint, PassShape
>>> shape = PassShape(rows=8, width=16, first_pos=0, n_read=1, n_columns=2, n_prompts=1)
>>> 10**4 < Footprint.from_model(load_model("toy:trigger")).peak_bytes(shape) < 10**6
True
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mechinterp import models
from mechinterp.core.interrupts import holds_signals, interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import ACTS, Site
from mechinterp.core.turns import lock_of
from mechinterp.models.model import Model

log = logging.getLogger(__name__)

_SHAPES = ((2, 2, 3), (3, 3, 2), (2, 3, 6), (5, 2, 7))
"""Shapes for the four numbers of `_basis`: rows, positions, positions in the cache.

Without a cache two of the numbers are the same, and the first three shapes are enough.
"""


@dataclass(frozen=True)
class PassShape:
    """The shape of a pass: `rows` of prompts `width` wide, computed from `first_pos` on.

    `n_read`: positions read in each row. `n_columns`: token ids read at each, None for the whole
    vocabulary. `n_prompts`: rows of each arm.
    """

    rows: int
    width: int
    first_pos: int
    n_read: int
    n_columns: int | None
    n_prompts: int
    whole_logits: bool = False

    @property
    def n_new(self) -> int:
        """Positions that are computed."""
        return self.width - self.first_pos


class _Curve(NamedTuple):
    """Bytes alive after each operation of a layer.

    `forms` `[operation, 4]`: each a linear form in `_basis`. `hooks`: activation -> the operation
    after which its hook runs.
    """

    forms: np.ndarray
    hooks: Mapping[str, int]


_KNOWN: WeakKeyDictionary[Model, dict[Hashable, "Footprint"]] = WeakKeyDictionary()


class Footprint:
    """The memory of a model's passes: `peak_bytes` of one, `base_bytes` of the unchanged run."""

    def __init__(self, model: Model) -> None:
        self._cfg = model.cfg
        self._layer: nn.Module = models.layer_without_data(model)
        self._curves: dict[tuple[frozenset[str], bool, bool], _Curve] = {}

    @classmethod
    def from_model(cls, model: Model) -> "Footprint":
        """The footprint of a model as it is, made once."""
        known, now = _KNOWN.setdefault(model, {}), models.as_it_is(model)
        if now not in known:
            known[now] = cls(model)
        return known[now]

    def peak_bytes(self, shape: PassShape, edited: Iterable[Site] = ()) -> int:
        """The most that is alive at once during a pass, including copies at the sites edited."""
        sites = [s for s in edited if s.axes is not None]
        inside = {s.act for s in sites if ACTS[s.act].per_layer}
        curve = self._curve(
            frozenset(inside), cached=shape.first_pos > 0, several=shape.n_prompts > 1
        )
        alive = curve.forms @ _basis(shape.rows, shape.n_new, shape.first_pos)  # [operation]
        # Layers run one after another and free what they made, so the worst layer is the peak.
        layer = float(alive.max())
        for site in sites:  # twice: what the edit is given, and what it returns
            if site.act in curve.hooks:
                at_hook = alive[curve.hooks[site.act]] + 2 * self._bytes(site, shape)
                layer = max(layer, float(at_hook))
        return int(max(layer, self._logit_bytes(shape)))

    def base_bytes(self, n_prompts: int, width: int, n_layers: int, first_pos: int) -> int:
        """Bytes that the unchanged run keeps: residual streams, and keys and values."""
        cfg = self._cfg
        keys = 2 * cfg.n_layers * first_pos * (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
        return int(n_prompts * (n_layers * width * cfg.d_model + keys) * cfg.dtype.itemsize)

    def _bytes(self, site: Site, shape: PassShape) -> int:
        """Bytes of the site in the rows of one arm."""
        cfg = self._cfg
        sizes = {"prompt": shape.n_prompts, "pos": shape.n_new, "src": shape.width, "one": 1}
        sizes |= {"head": cfg.n_heads, "d_head": cfg.d_head, "d_model": cfg.d_model}
        sizes |= {"neuron": cfg.d_mlp or 0, "vocab": cfg.d_vocab_out}
        return int(np.prod([sizes[a] for a in site.narrowed_axes or ()]) * cfg.dtype.itemsize)

    def _logit_bytes(self, shape: PassShape) -> int:
        """Bytes alive at the end of a pass: the last stream, what is read of it, and logits."""
        cfg = self._cfg
        stream = shape.rows * shape.n_new * cfg.d_model
        if shape.whole_logits:
            places = shape.rows * (shape.n_new + shape.n_read)
            return int((3 * stream + places * cfg.d_vocab_out) * cfg.dtype.itemsize)
        read = shape.rows * shape.n_read
        if shape.n_columns is not None:
            gathered = shape.rows * shape.n_columns * cfg.d_model
            return int((stream + 4 * read * cfg.d_model + gathered) * cfg.dtype.itemsize)
        scores = (
            3 * shape.n_prompts * cfg.d_vocab_out * 8
        )  # the metric, in double, one arm at a time
        kept = stream + 3 * read * cfg.d_model + read * cfg.d_vocab_out
        return int(kept * cfg.dtype.itemsize + scores)

    def _curve(self, acts: frozenset[str], *, cached: bool, several: bool) -> _Curve:
        """The curve of a layer in which `acts` are edited, measured once.

        `cached`: with keys and values before its positions. `several`: an arm has several rows, so
        that these are copied for each arm; those of a single row are views.
        """
        key = (acts, cached, several)
        if key not in self._curves:
            with lock_of(self):  # hooks of two threads on one layer would mix
                self._curves[key] = self._measure(acts, cached=cached, several=several)
        return self._curves[key]

    @holds_signals
    def _measure(self, acts: frozenset[str], *, cached: bool, several: bool) -> _Curve:
        shapes = list(_SHAPES) if cached else [(rows, n_new, 0) for rows, n_new, _ in _SHAPES[:3]]
        try:
            if self._cfg.positional_embedding_type == "alibi":
                # The biases are made at the first run and kept: make them before counting.
                self._run(*max(shapes, key=lambda shape: sum(shape[1:])), acts, several=several)
            runs = [self._run(r, n, before, acts, several=several) for r, n, before in shapes]
        except (RuntimeError, TypeError) as error:
            # The layer looks at its numbers, which the meta device does not have.
            log.info("bytes are estimated, not counted: %s", str(error).split("\n")[0])
            return _Curve(self._rough()[None], {})
        curves, hooks = [run[0] for run in runs], runs[0][1]
        n_ops = min(map(len, curves))
        hooks = {act: place for act, place in hooks.items() if place < n_ops}
        # bases [shape, 4] @ forms [4, operation] = measured [shape, operation]
        bases = np.stack([_basis(*shape) for shape in shapes])
        measured = np.stack([np.array(c[:n_ops]) for c in curves])
        forms, *_ = np.linalg.lstsq(bases, measured, rcond=None)
        return _Curve(forms.T, hooks)

    def _rough(self) -> np.ndarray:
        """A linear form from the model's sizes alone, larger than what layers take."""
        cfg = self._cfg
        heads = cfg.n_heads * cfg.d_head
        each = 8 * cfg.d_model + 6 * heads + 4 * (cfg.d_mlp or 0)
        return np.array([0, each, 4 * cfg.n_heads, 4 * heads], dtype=float) * float(
            cfg.dtype.itemsize
        )

    def _run(
        self, rows: int, n_new: int, before: int, acts: frozenset[str], *, several: bool
    ) -> tuple[list[int], dict[str, int]]:
        """Run the layer once, with a copy made at each edited activation, as the hooks do.

        Bytes alive after each operation, and the operation after which each hook runs.
        """
        cfg, layer = self._cfg, self._layer
        resid = torch.empty(rows, n_new, cfg.d_model, dtype=cfg.dtype, device="meta")
        heads = cfg.n_key_value_heads or cfg.n_heads
        cached = torch.empty(
            rows if several else 1, before, heads, cfg.d_head, dtype=cfg.dtype, device="meta"
        )
        past = [cached.expand(rows, -1, -1, -1), cached.clone().expand(rows, -1, -1, -1)]
        meter = _Meter([*layer.parameters(), *layer.buffers()], [resid, *(past if several else [])])
        places: dict[str, int] = {}
        handles = []
        for act in acts:
            point = ACTS[act].hook.removeprefix("blocks.{layer}.")

            def copy_value(
                module: nn.Module, args: tuple[object, ...], value: Tensor, act: str = act
            ) -> Tensor:
                new = value.clone()
                places[act] = len(meter.curve) - 1
                return new

            handles.append(layer.get_submodule(point).register_forward_hook(copy_value))
        try:
            with interruptible(), meter, gradients_off():
                entry = models.cache_entry(*past) if before else None
                layer(resid, past_kv_cache_entry=entry)
        finally:
            for handle in handles:
                handle.remove()
        return meter.curve, places


def _basis(rows: int, n_new: int, before: int) -> np.ndarray:
    """What bytes are linear in: a constant, values by position, links, and cached values."""
    width = n_new + before
    return np.array([1, rows * n_new, rows * n_new * width, rows * width], dtype=float)


def _reference(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that are alive after each operation."""

    def __init__(self, free: Iterable[Tensor], counted: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.curve: list[int] = []
        self._free = {reference.cdata: reference for reference in map(_reference, free)}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        for tensor in counted:
            self._note(tensor)

    def _note(self, tensor: Tensor) -> None:
        # Views share a storage, which is counted once, under the address of its weak reference.
        reference = _reference(tensor)
        if reference.cdata not in self._free:
            n_bytes = tensor.untyped_storage().nbytes()
            self._alive.setdefault(reference.cdata, (reference, n_bytes))

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}  # type: ignore[no-untyped-call]
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        self.curve.append(sum(n for _, n in self._alive.values()))
        return made
