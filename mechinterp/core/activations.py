"""What a run read: `Activations`, a mapping from `Site` to the value there, `[prompt, ...]`.

A site that was not read itself is cut out of a wider one that was. After `read(Site("z", 3))` the
activations also hold `Site("z", 3, head=1, pos="end")`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Int, Shaped
from torch import Tensor

from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site, as_site, narrow_index


@dataclass(frozen=True, eq=False, repr=False)
class Activations(Mapping[Site, Tensor]):
    """The values read at sites, and the prompts as the model saw them.

    `first_pos`: the position of the first column of pos axes; not 0 where a pass continues a cache.

    Raises:
        HookError: when asked for a site that no read covers, naming those that were read.
    """

    kept: Mapping[Site, Tensor]
    prompts: Prompts
    first_pos: int = 0

    def __getitem__(self, where: Site | str) -> Shaped[Tensor, "prompt ..."]:
        site = as_site(where)
        if site in self.kept:
            return self.kept[site]
        for have in self.kept:
            if _covers(have, site):
                value = self.kept[have]
                try:
                    return value[narrow_index(have, site, self._positions(have, site))]
                except IndexError:
                    axes = " ".join(have.narrowed_axes or ())
                    raise HookError(
                        f"{site} is out of range: {have} was read, {axes} {list(value.shape)}."
                    ) from None
        read = ", ".join(map(str, list(self.kept)[:8])) or "nothing"
        more = " ..." if len(self.kept) > 8 else ""
        raise HookError(f"{site} was not read. Read: {read}{more}. Add read({site!r}) to that run.")

    def _positions(self, have: Site, want: Site) -> Int[Tensor, " prompt"] | None:
        if want.pos is None:
            return None
        given = self.prompts.given
        width = self.kept[have].shape[-1] if have.act == "tokens" else None
        if given is not None and width == given.width:
            # Tokens are read before any is deleted, so they keep their places.
            return self.prompts.given_positions(want.pos)
        at = self.prompts.positions(want.pos)
        if have.pos is not None or have.act == "rot_k":  # cached keys are rotated too
            return at
        if bool((at < self.first_pos).any()):
            raise HookError(
                f"{want} is not in what this pass read of {have}, from position {self.first_pos} "
                f"on: an earlier pass saw it. Add read({want!r}) to the specs."
            )
        return at - self.first_pos

    def __contains__(self, site: object) -> bool:
        try:
            return any(_covers(have, as_site(site)) for have in self.kept)
        except ValueError:  # nothing of this kind is a site
            return False

    def __repr__(self) -> str:
        return f"Activations({', '.join(map(str, self.kept))}; {self.prompts!r})"

    def __iter__(self) -> Iterator[Site]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


class Copies(Mapping[Site, Tensor]):
    """Values of which everybody who asks gets a copy, to write into."""

    def __init__(self, kept: Mapping[Site, Tensor]) -> None:
        self._kept = kept

    def __getitem__(self, site: Site) -> Tensor:
        return self._kept[site].clone()

    def __contains__(self, site: object) -> bool:
        return site in self._kept

    def __iter__(self) -> Iterator[Site]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def _covers(have: Site, want: Site) -> bool:
    """True if the value at `have` holds the one at `want`."""
    if want.axes is None:
        return have.hook == want.hook and have == have.whole()
    same = (have.act, have.layer) == (want.act, want.layer)
    narrowed = ((getattr(have, a), getattr(want, a)) for a in ("head", "pos", "neuron"))
    return same and all(h is None or h == w for h, w in narrowed)
