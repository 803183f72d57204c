"""Circuits: which edges between the parts of a model carry a behaviour.

A `Graph` of writers and readers, `EdgeScores` on its edges, a `Circuit` of some: three values.
"""

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrasts import Contrast, contrast
from mechinterp.circuits.evaluation import evaluate, faithfulness
from mechinterp.circuits.gradient import eap, eap_ig
from mechinterp.circuits.graph import Graph
from mechinterp.circuits.replay import exact

__all__ = [
    "Circuit",
    "Contrast",
    "EdgeScores",
    "Graph",
    "contrast",
    "eap",
    "eap_ig",
    "evaluate",
    "exact",
    "faithfulness",
]
