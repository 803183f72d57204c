"""What mechinterp.engine gives; read by its `__init__`, by editors and by type checkers."""

from .context import hooked as hooked
from .gradients import site_gradients as site_gradients
from .replacements import Replacement as Replacement
from .replacements import mean_of as mean_of
from .replacements import resample_from as resample_from
from .runner import Run as Run
from .runner import run as run
