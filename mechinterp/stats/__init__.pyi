"""What mechinterp.stats gives; read by its `__init__`, by editors and by type checkers."""

from .additivity import additivity_residual as additivity_residual
from .additivity import notable_effect as notable_effect
from .additivity import shows_redundancy as shows_redundancy
from .intervals import interval as interval
from .intervals import ratio_interval as ratio_interval
from .multiple_comparisons import correct_p_values as correct_p_values
from .paired_differences import difference as difference
from .shares import share_interval as share_interval
