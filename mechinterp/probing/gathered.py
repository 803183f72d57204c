"""Activations of many prompts at one position, layer by layer, in memory or on disk.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.probing import gather
>>> model = load_model("toy:trigger")
>>> acts = gather(model, tokenize(model, ["bring the sesame", "bring me the letter"]))
>>> acts.dims, acts["layer"].values.tolist(), acts["site"].values.tolist()
(('layer', 'prompt', 'feature'), [0, 1, 2], ['L0.resid_pre', 'L1.resid_pre', 'L1.resid_post'])

A layer of the residual stream is the number of blocks that have run: 0 is the embedding, n_layers
what the final norm reads. Any other activation has the number of its block.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import axis_size, read_bytes
from mechinterp.models.model import Model, require_model
from mechinterp.storage.run_folder import write_whole

MEAN = "mean"
"""Instead of a position: the mean over the user's text, without start token and template."""
TEXT_END = "text_end"
"""The last token of the user's text; "end" is the last token of the prompt, template included."""

CONTENT = "content"
"""The coordinate that says of each prompt which is the first with the same tokens."""

Values = Float[np.ndarray, "layer prompt feature"]

_BATCH_POSITIONS = 768
_BATCH_BYTES = 1 << 26


@checks_arguments
def residual_sites(model: Model, layers: Iterable[int] | None = None) -> list[Site]:
    """The sites of the residual stream at layers 0 (the embedding) to n_layers; by default all.

    Raises:
        ValueError: if there is no such layer.
    """
    require_model(model)
    n_layers = model.cfg.n_layers
    sites = []
    for layer in range(n_layers + 1) if layers is None else layers:
        if not 0 <= layer <= n_layers:
            raise ValueError(
                f"layer {layer}: the residual stream has layers 0 (the embedding) to {n_layers} "
                f"(after the last block)."
            )
        last = layer == n_layers
        sites.append(Site("resid_post", layer - 1) if last else Site("resid_pre", layer))
    return sites


@checks_arguments
def gather(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site] | None = None,
    *,
    position: Pos = "end",
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.DataArray:
    """The activation of each prompt at a position: dims (layer, prompt, feature), in float32.

    `sites`: one per layer, without positions, all of the same width; by default `residual_sites`.
    Heads are concatenated, head 0 first. `position`: "end", "text_end", a name, a number, or
    "mean". Prompts run in batches. `out`: a folder for the activations, so that they need not fit
    into memory; an interrupted run continues after its last batch, with the same numbers.

    Raises:
        ValueError: if the sites or the position are invalid, or `out` holds another run.
        HookError: if the model does not have a site.
    """
    sites = residual_sites(model) if sites is None else list(sites)
    prompts = _with_text_end(prompts) if position == TEXT_END else prompts
    layers, width = _check_sites(model, prompts, sites, position)
    shape = (len(sites), len(prompts), width)
    batches = list(_batches(model, prompts, sites))
    done = 0
    if out is None:
        values: Values = np.empty(shape, np.float32)
    else:
        folder = _ActivationsFolder(Path(out), shape, _run_facts(model, prompts, sites, position))
        values, done = folder.open()
    for number, rows in enumerate(batches):
        if number >= done:
            values[:, rows] = _read(model, _trim(prompts, rows), sites, position)
            if out is not None:
                folder.note(number + 1)
        if progress is not None:
            progress(int(rows[-1]) + 1, len(prompts))
    if out is not None:
        values = np.load(folder.file, mmap_mode="r")
    return xr.DataArray(
        values,
        dims=("layer", "prompt", "feature"),
        coords={
            "layer": layers,
            "site": ("layer", [str(site) for site in sites]),
            CONTENT: ("prompt", contents(prompts)),
        },
        attrs={"position": str(position), "model": models.name(model)}
        | {"size": models.size(model), "weights": models.processing(model)},
    )


def contents(prompts: Prompts) -> list[int]:
    """The number of the first prompt that has the same tokens, for each prompt."""
    rows = zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(tuple(row[:n]), at) for at, (row, n) in enumerate(rows)]


def _read(
    model: Model, prompts: Prompts, sites: Sequence[Site], position: Pos
) -> Float[np.ndarray, "layer prompt feature"]:
    whole = position == MEAN
    asked = [site if whole else replace(site, pos=position) for site in sites]
    acts = run(model, prompts, read(*asked), logits_at=()).acts
    found = []
    for site in asked:
        value = acts[site].flatten(2 if whole else 1)
        found.append((_mean_over_text(value, prompts) if whole else value).float().cpu())
    return torch.stack(found).numpy()


def _mean_over_text(
    value: Float[Tensor, "prompt pos feature"], prompts: Prompts
) -> Float[Tensor, "prompt feature"]:
    there = torch.zeros(prompts.mask.shape, dtype=torch.double)
    for row, roles in enumerate(prompts.roles):
        there[row, _text(roles)] = 1
    there = there.to(value.device)
    return torch.einsum("rpf,rp->rf", value.double(), there) / there.sum(1, keepdim=True)


def _text(roles: Sequence[str]) -> list[int]:
    return [pos for pos, role in enumerate(roles) if role == "text"]


def _with_text_end(prompts: Prompts) -> Prompts:
    if TEXT_END in prompts.names:
        return prompts
    for row, roles in enumerate(prompts.roles):
        if not _text(roles):
            raise ValueError(f'prompt {row} has no user text: use position "end".')
    return prompts.named(**{TEXT_END: [_text(roles)[-1] for roles in prompts.roles]})


def _check_sites(
    model: Model, prompts: Prompts, sites: Sequence[Site], position: Pos
) -> tuple[list[int], int]:
    """The number of each layer, and the number of features."""
    layers, widths = [], set()
    for site in sites:
        axes = site.axes or ()
        if site.pos is not None or axes[:2] != ("prompt", "pos"):
            raise ValueError(
                f"{site}: give sites that have positions, but name none, such as "
                f'Site("resid_post", 3); give the position once, position="end".'
            )
        layers.append((site.layer or 0) + (site.act == "resid_post"))
        sizes = [axis_size(model, site.act, a) for a in (site.narrowed_axes or ())[2:]]
        widths.add(int(np.prod(sizes)))
    if len(set(layers)) < len(layers) or not sites:
        raise ValueError(
            f"sites {', '.join(map(str, sites))}: give at least one, and one per layer. For "
            f"several heads, gather each by itself, or all of z."
        )
    if len(widths) > 1:
        raise ValueError(f"the sites have {sorted(widths)} features: gather those of one size.")
    if position == MEAN:
        for row, roles in enumerate(prompts.roles):
            if not _text(roles):
                raise ValueError(f'prompt {row} has no user text: use position "end".')
    else:
        prompts.given_positions(position)
    return layers, widths.pop()


def _batches(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Iterator[np.ndarray]:
    """The rows of each batch, in order: few enough for a quick pass and small reads."""
    each = max(1, read_bytes(model, prompts.rows(torch.tensor([0])), sites))
    size = max(1, min(_BATCH_POSITIONS // prompts.width, _BATCH_BYTES // each))
    for begin in range(0, len(prompts), size):
        yield np.arange(begin, min(begin + size, len(prompts)))


def _trim(prompts: Prompts, rows: np.ndarray) -> Prompts:
    chosen = prompts.rows(torch.from_numpy(rows))
    return replace(chosen, tokens=chosen.tokens[:, : int(chosen.lengths.max())])


def _run_facts(
    model: Model, prompts: Prompts, sites: Sequence[Site], position: Pos
) -> dict[str, object]:
    where = [] if position == MEAN else prompts.given_positions(position).tolist()
    given = [prompts.tokens.tolist(), prompts.lengths.tolist(), list(map(list, prompts.roles))]
    return {
        "model": models.fingerprint(model),
        "prompts": hashlib.sha256(json.dumps([given, where]).encode()).hexdigest(),
        "sites": [str(site) for site in sites],
        "position": str(position),
        "dtype": str(model.cfg.dtype),
    }


class _ActivationsFolder:
    """activations.npy, and activations.json with the number of batches that it holds."""

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], facts: Mapping[str, object]
    ) -> None:
        self.file, self._notes = folder / "activations.npy", folder / "activations.json"
        self._shape, self._facts = shape, dict(facts)
        self._opened: np.memmap | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def open(self) -> tuple[np.memmap, int]:
        """The array to write to, and the number of finished batches.

        Raises:
            ValueError: if the folder holds activations of another run.
        """
        values, done = self._find()
        self._opened = values
        return values, done

    def _find(self) -> tuple[np.memmap, int]:
        if not self._notes.exists():
            if self.file.exists():
                raise ValueError(
                    f"{self.file} exists and is not of this run: choose another folder."
                )
            return self._new(), 0
        found = json.loads(self._notes.read_text())
        for name, value in self._facts.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{self.file.parent} holds activations of another run: its {name} differs. "
                    f"Choose another folder, or remove that one."
                )
        values = np.load(self.file, mmap_mode="r+") if self.file.exists() else None
        if values is None or values.shape != self._shape:
            return self._new(), 0
        return values, int(found["batches"])

    def _new(self) -> np.memmap:
        self._note(0)
        return np.lib.format.open_memmap(self.file, "w+", np.float32, self._shape)

    def note(self, n_batches: int) -> None:
        """Flush the array to disk, then count its batches."""
        assert self._opened is not None
        self._opened.flush()
        self._note(n_batches)

    def _note(self, n_batches: int) -> None:
        text = json.dumps(self._facts | {"batches": n_batches}, indent=1)
        write_whole(self._notes, text.encode())
