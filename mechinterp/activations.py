"""What a run read: `Activations`, a mapping from `Site` to the value there, `[prompt, ...]`.

A site that was not read itself is cut out of a wider one that was: after `read(Site("z", 3))` the
activations answer for `Site("z", 3, head=1, pos="end")` too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from mechinterp.prompts import Prompts
from mechinterp.sites import HookError, Site, narrow_index


@dataclass(frozen=True, eq=False, repr=False)
class Activations(Mapping[Site, Tensor]):
    """The values read at sites, and the prompts as the model saw them.

    Raises:
        HookError: when asked for a site that no read covers, naming those that were read.
    """

    kept: Mapping[Site, Tensor]
    prompts: Prompts

    def __getitem__(self, site: Site) -> Shaped[Tensor, "prompt ..."]:
        if site in self.kept:
            return self.kept[site]
        for have, value in self.kept.items():
            if _covers(have, site):
                at = None if site.pos is None else self.prompts.positions(site.pos)
                return value[narrow_index(have, site, at)]
        read = ", ".join(map(str, list(self.kept)[:8])) or "nothing"
        more = " ..." if len(self.kept) > 8 else ""
        raise HookError(f"{site} was not read. Read: {read}{more}. Add read({site!r}) to that run.")

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site) and any(_covers(have, site) for have in self.kept)

    def __repr__(self) -> str:
        return f"Activations({', '.join(map(str, self.kept))}; {self.prompts!r})"

    def __iter__(self) -> Iterator[Site]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def _covers(have: Site, want: Site) -> bool:
    same = (have.act, have.layer) == (want.act, want.layer)
    narrowed = ((getattr(have, a), getattr(want, a)) for a in ("head", "pos", "neuron"))
    return same and all(h is None or h == w for h, w in narrowed)
