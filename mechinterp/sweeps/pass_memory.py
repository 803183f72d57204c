"""Bytes that a pass takes at most, from shapes alone: nothing is allocated to find them.

A layer is run without data (on torch's meta device) at a few small shapes, and the bytes that are
alive after each of its operations are noted. Each is a linear form in the rows, positions and links
of the batch, so that the peak of any batch follows.

>>> from mechinterp import load_model
>>> from mechinterp.sweeps.pass_memory import Batch, Footprint
>>> batch = Batch(rows=8, width=16, first=0, n_read=1, n_columns=2, n_prompts=1)
>>> 10**4 < Footprint.of(load_model("toy:trigger")).peak_bytes(batch) < 10**6
True
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mechinterp import models
from mechinterp.core.sites import ACTS, Site
from mechinterp.models.model import Model

log = logging.getLogger(__name__)

_SHAPES = ((2, 2, 3), (3, 3, 2), (2, 3, 6), (5, 2, 7))  # rows, positions, positions before them


@dataclass(frozen=True)
class Batch:
    """The shape of a pass. `n_columns`: token ids read at each place, None for the vocabulary."""

    rows: int
    width: int
    first: int
    n_read: int
    n_columns: int | None
    n_prompts: int
    whole_logits: bool = False

    @property
    def n_new(self) -> int:
        """Positions that are computed."""
        return self.width - self.first


_KNOWN: WeakKeyDictionary[Any, dict[str, "Footprint"]] = WeakKeyDictionary()


class Footprint:
    """What a model takes: `peak_bytes` of a batch, `base_bytes` of what the unchanged run keeps."""

    def __init__(self, model: Model) -> None:
        self._cfg = model.cfg
        self._layer = models.layer_without_data(model)
        self._curves: dict[Any, tuple[np.ndarray, dict[str, int]]] = {}

    @classmethod
    def of(cls, model: Model) -> "Footprint":
        """The one of a model and its switches, made once."""
        known, switches = _KNOWN.setdefault(model, {}), models.configuration_text(model)
        if switches not in known:
            known[switches] = cls(model)
        return known[switches]

    def peak_bytes(self, batch: Batch, edited: Iterable[Site] = ()) -> int:
        """The most that is alive at once while a batch passes, the sites that are edited too."""
        sites = [s for s in edited if s.axes is not None]
        inside = {s.act for s in sites if ACTS[s.act].per_layer}
        forms, hooks = self._curve(frozenset(inside), batch.first > 0, batch.n_prompts > 1)
        basis = _basis(batch.rows, batch.n_new, batch.first)
        alive = forms @ basis
        layer = float(alive.max())
        for site in sites:  # what the edit is given, and what it returns
            if site.act in hooks:
                layer = max(layer, alive[hooks[site.act]] + 2 * self._bytes(site, batch))
        return int(max(layer, self._logit_bytes(batch)))

    def base_bytes(self, n_prompts: int, width: int, n_layers: int, first: int) -> int:
        """What the unchanged run keeps: residual streams, and keys and values."""
        cfg = self._cfg
        keys = 2 * cfg.n_layers * first * (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
        return int(n_prompts * (n_layers * width * cfg.d_model + keys) * cfg.dtype.itemsize)

    def _bytes(self, site: Site, batch: Batch) -> int:
        """The site in the rows of one arm."""
        cfg = self._cfg
        sizes = {"prompt": batch.n_prompts, "pos": batch.n_new, "src": batch.width, "one": 1}
        sizes |= {"head": cfg.n_heads, "d_head": cfg.d_head, "d_model": cfg.d_model}
        sizes |= {"neuron": cfg.d_mlp or 0, "vocab": cfg.d_vocab_out}
        return int(np.prod([sizes[a] for a in site.narrowed_axes or ()]) * cfg.dtype.itemsize)

    def _logit_bytes(self, batch: Batch) -> int:
        cfg = self._cfg
        stream = batch.rows * batch.n_new * cfg.d_model
        if batch.whole_logits:
            places = batch.rows * (batch.n_new + batch.n_read)
            return int((3 * stream + places * cfg.d_vocab_out) * cfg.dtype.itemsize)
        read = batch.rows * batch.n_read
        if batch.n_columns is not None:
            gathered = batch.rows * batch.n_columns * cfg.d_model
            return int((stream + 4 * read * cfg.d_model + gathered) * cfg.dtype.itemsize)
        scores = 3 * batch.n_prompts * cfg.d_vocab_out * 8  # in double, one arm at a time
        kept = stream + 3 * read * cfg.d_model + read * cfg.d_vocab_out
        return int(kept * cfg.dtype.itemsize + scores)

    def _curve(
        self, acts: frozenset[str], cached: bool, several: bool
    ) -> tuple[np.ndarray, dict[str, int]]:
        """Bytes alive after each operation of a layer, as linear forms; where each hook runs."""
        key = (acts, cached, several)
        if key not in self._curves:
            shapes = [(r, n, before if cached else 0) for r, n, before in _SHAPES]
            try:
                if self._cfg.positional_embedding_type == "alibi":  # made at the first run
                    self._run(*max(shapes, key=lambda shape: sum(shape[1:])), acts, several)
                runs = [self._run(r, n, before, acts, several) for r, n, before in shapes]
            except (RuntimeError, TypeError) as error:  # what it does depends on its numbers
                log.info("bytes are estimated, not counted: %s", str(error).split("\n")[0])
                self._curves[key] = (self._rough()[None], {})
                return self._curves[key]
            curves, hooks = [run[0] for run in runs], runs[0][1]
            n_ops = min(map(len, curves))
            hooks = {act: place for act, place in hooks.items() if place < n_ops}
            bases = np.stack([_basis(*shape) for shape in shapes])
            measured = np.stack([np.array(c[:n_ops]) for c in curves])
            forms, *_ = np.linalg.lstsq(bases, measured, rcond=None)
            self._curves[key] = (forms.T, hooks)
        return self._curves[key]

    def _rough(self) -> np.ndarray:
        """A bound from the sizes alone, in the same form."""
        cfg = self._cfg
        heads = cfg.n_heads * cfg.d_head
        each = 8 * cfg.d_model + 6 * heads + 4 * (cfg.d_mlp or 0)
        return np.array([0, each, 4 * cfg.n_heads, 4 * heads], dtype=float) * float(
            cfg.dtype.itemsize
        )

    def _run(
        self, rows: int, n_new: int, before: int, acts: frozenset[str], several: bool
    ) -> tuple[list[int], dict[str, int]]:
        """The layer once, with a copy made at each edited activation, as the hooks do."""
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

            def copied(module: Any, args: Any, value: Tensor, act: str = act) -> Tensor:
                new = value.clone()
                places[act] = len(meter.curve) - 1
                return new

            handles.append(layer.get_submodule(point).register_forward_hook(copied))
        try:
            with meter, torch.no_grad():
                entry = models.cache_entry(*past) if before else None
                layer(resid, past_kv_cache_entry=entry)
        finally:
            for handle in handles:
                handle.remove()
        return meter.curve, places


def _basis(rows: int, n_new: int, first: int) -> np.ndarray:
    width = n_new + first
    return np.array([1, rows * n_new, rows * n_new * width, rows * width], dtype=float)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the bytes that are alive after each operation."""

    def __init__(self, free: Iterable[Tensor], counted: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.curve: list[int] = []
        self._alive: dict[int, tuple[Any, int]] = {}
        for tensor in free:
            self._note(tensor, 0)
        for tensor in counted:
            self._note(tensor, tensor.untyped_storage().nbytes())

    def _note(self, tensor: Tensor, n_bytes: int) -> None:
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self._alive.setdefault(reference.cdata, (reference, n_bytes))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._note(leaf, leaf.untyped_storage().nbytes())
        self.curve.append(sum(n for _, n in self._alive.values()))
        return made
