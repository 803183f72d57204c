"""Views of a result: one self-contained HTML page, or a table in the terminal.

A view shows what it is given and computes no attribution; it needs neither torch nor a model.
"""

from mechinterp.report.circuit import circuit_page
from mechinterp.report.circuit_terminal import print_circuit
from mechinterp.report.faithfulness_terminal import print_faithfulness
from mechinterp.report.grid import grid_page
from mechinterp.report.grid_terminal import print_grid
from mechinterp.report.head_grid import attention_page
from mechinterp.report.interactions_terminal import print_interactions
from mechinterp.report.layers import layers_page
from mechinterp.report.layers_terminal import print_layers
from mechinterp.report.links_terminal import print_links
from mechinterp.report.page import attribution_page
from mechinterp.report.probing import probing_page
from mechinterp.report.probing_terminal import print_probes
from mechinterp.report.terminal import print_attribution
from mechinterp.report.tokens import show

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
