"""An arm whose pass sees a part of a sequence, as under a key-value cache: `PartialArm`."""

from torch import Tensor

from mechinterp.core.activations import Activations, Copies
from mechinterp.core.sites import HookError
from mechinterp.core.specs import HookSpec
from mechinterp.engine.arms import Arm, CallEdit


class PartialArm(Arm):
    """An arm whose pass sees the positions from `batch_first_pos` to the last one so far."""

    def sees(self, spec: HookSpec) -> bool:
        """True if the spec's position is one that the pass sees."""
        pos, length = spec.site.pos, (self.prompts.given or self.prompts).width
        if pos is None:
            needed = spec.needs
            if isinstance(needed, str):
                needed = int(self.prompts.positions(needed).max())
            return needed is None or needed < length
        if isinstance(pos, int) and pos >= length:
            return False
        at = self.prompts.positions(pos)
        # Keys are rotated together with the cached ones, so "rot_k" has every position so far.
        first_pos = 0 if spec.site.act == "rot_k" else self.batch_first_pos
        inside = (at >= first_pos) & (at < self.prompts.width)
        if bool(inside.any()) and not bool(inside.all()):
            raise HookError(
                f"{spec.name}: position {pos!r} is in this pass for some prompts, and not for "
                f"others. Run the prompts in one pass."
            )
        return bool(inside.all())

    def fire(self, number: int, rows: Tensor, call: CallEdit) -> Tensor | None:
        """As an arm, if the pass sees the spec's position; else another pass runs the spec."""
        return super().fire(number, rows, call) if self.sees(self.specs[number]) else None

    @property
    def activations(self) -> Activations:
        """What was read in this pass, and at single positions also before."""
        return Activations(self.reads, self.prompts, self.batch_first_pos)

    @property
    def shown(self) -> Activations:
        """The same for an edit, which may write into what it is given."""
        return Activations(Copies(self.reads), self.prompts, self.batch_first_pos)
