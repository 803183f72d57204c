"""What mechinterp.report gives; read by its `__init__`, by editors and by type checkers."""

from .attention.html import attention_page as attention_page
from .attention.terminal import print_links as print_links
from .attribution.faithfulness_terminal import print_faithfulness as print_faithfulness
from .attribution.html import attribution_page as attribution_page
from .attribution.interactions_terminal import print_interactions as print_interactions
from .attribution.terminal import print_attribution as print_attribution
from .circuit.html import circuit_page as circuit_page
from .circuit.terminal import print_circuit as print_circuit
from .grid.html import grid_page as grid_page
from .grid.terminal import print_grid as print_grid
from .layers.html import layers_page as layers_page
from .layers.terminal import print_layers as print_layers
from .probing.html import probing_page as probing_page
from .probing.terminal import print_probes as print_probes
from .refusal.html import refusal_page as refusal_page
from .refusal.prompt_html import why_page as why_page
from .refusal.terminal import print_refusal as print_refusal
from .refusal.terminal import print_why as print_why
from .render.tokens import show as show
