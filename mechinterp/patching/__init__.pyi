"""What mechinterp.patching gives; read by its `__init__`, by editors and by type checkers."""

from .activation import OUTPUTS as OUTPUTS
from .activation import RESIDUALS as RESIDUALS
from .activation import patch_heads as patch_heads
from .activation import patch_heads_by_position as patch_heads_by_position
from .activation import patch_neurons as patch_neurons
from .activation import patch_outputs as patch_outputs
from .activation import patch_residual as patch_residual
from .attribution import atp_star as atp_star
from .attribution import attribution_patching as attribution_patching
from .attribution import integrated_patching as integrated_patching
from .attribution import qk_fixed_patching as qk_fixed_patching
from .attribution import top_k as top_k
from .effects import UnevenPromptsWarning as UnevenPromptsWarning
from .effects import effect as effect
from .effects import normalized as normalized
from .effects import normalized_each as normalized_each
from .effects import with_scores as with_scores
from .paths import path_patching as path_patching
