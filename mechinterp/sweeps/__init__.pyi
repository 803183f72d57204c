"""What mechinterp.sweeps gives; read by its `__init__`, by editors and by type checkers."""

from .experiment import plan as plan
from .experiment import sweep as sweep
from .experiment import sweep_each as sweep_each
from .options import Progress as Progress
from .options import SweepOptions as SweepOptions
from .pass_plan import Plan as Plan
from .pass_plan import Savings as Savings
from .progress import progress_bar as progress_bar
from .resumable import read_sweep as read_sweep
