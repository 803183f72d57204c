"""What mechinterp.ablation gives; read by its `__init__`, by editors and by type checkers."""

from .joint import ablate_cumulatively as ablate_cumulatively
from .joint import ablate_pairs as ablate_pairs
from .joint import interaction as interaction
from .single import PARTS as PARTS
from .single import ablate_directions as ablate_directions
from .single import ablate_heads as ablate_heads
from .single import ablate_layers as ablate_layers
from .single import ablate_neurons as ablate_neurons
from .single import ablate_positions as ablate_positions
from .single import ablate_sites as ablate_sites
from .single import base_score as base_score
from .single import effect as effect
from .single import replace_along as replace_along
