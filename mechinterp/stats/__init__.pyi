"""What mechinterp.stats gives; read by its `__init__`, by editors and by type checkers."""

from .additivity import notable as notable
from .additivity import residual as residual
from .additivity import stands_in as stands_in
from .intervals import interval as interval
from .intervals import ratio_interval as ratio_interval
from .multiple_comparisons import correct_p_values as correct_p_values
from .paired_differences import difference as difference
