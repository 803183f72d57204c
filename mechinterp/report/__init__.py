"""Views of a result: one self-contained HTML page, or a table in the terminal.

A view shows what it is given and computes no attribution; it needs neither torch nor a model.
"""

from mechinterp.report.attention.html import attention_page
from mechinterp.report.attention.terminal import print_links
from mechinterp.report.attribution.faithfulness_terminal import print_faithfulness
from mechinterp.report.attribution.html import attribution_page
from mechinterp.report.attribution.interactions_terminal import print_interactions
from mechinterp.report.attribution.terminal import print_attribution
from mechinterp.report.circuit.html import circuit_page
from mechinterp.report.circuit.terminal import print_circuit
from mechinterp.report.grid.html import grid_page
from mechinterp.report.grid.terminal import print_grid
from mechinterp.report.layers.html import layers_page
from mechinterp.report.layers.terminal import print_layers
from mechinterp.report.probing.html import probing_page
from mechinterp.report.probing.terminal import print_probes
from mechinterp.report.render.tokens import show

__all__ = [
    "attention_page",
    "attribution_page",
    "circuit_page",
    "grid_page",
    "layers_page",
    "print_attribution",
    "print_circuit",
    "print_faithfulness",
    "print_grid",
    "print_interactions",
    "print_layers",
    "print_links",
    "print_probes",
    "probing_page",
    "show",
]
