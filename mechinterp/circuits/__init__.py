"""Circuits: which edges between the parts of a model carry a behaviour.

A `Graph` of writers and readers, `EdgeScores` on its edges, a `Circuit` of some: three values.
"""

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast, contrast
from mechinterp.circuits.evaluation.criteria import completeness, minimality, redundancy
from mechinterp.circuits.evaluation.curves import MIB_SIZES, curve, rank_auc
from mechinterp.circuits.evaluation.faithfulness import evaluate, faithfulness
from mechinterp.circuits.formats.dot import write_dot
from mechinterp.circuits.formats.mib import read_mib, write_mib
from mechinterp.circuits.formats.neuronpedia import read_neuronpedia, write_neuronpedia
from mechinterp.circuits.formats.own import read_circuit, read_scores, write_circuit, write_scores
from mechinterp.circuits.graph import Graph
from mechinterp.circuits.known import known_circuit
from mechinterp.circuits.published import PUBLISHED, circuit_of_roles, published_circuit
from mechinterp.circuits.scores.activations_ig import eap_ig_activations
from mechinterp.circuits.scores.atp_star import atp_star_edges, qk_fixed_edges
from mechinterp.circuits.scores.backward_rules import gim, relp
from mechinterp.circuits.scores.eap import eap, eap_ig
from mechinterp.circuits.scores.exact_edges import exact
from mechinterp.circuits.scores.neurons import eap_ig_neurons, eap_neurons, exact_neurons
from mechinterp.circuits.scores.nodes import eap_ig_nodes, eap_nodes, exact_nodes
from mechinterp.circuits.search.acdc import acdc, acdc_scores
from mechinterp.circuits.search.integer_programme import NotOptimalWarning, optimal
from mechinterp.circuits.search.local_search import improve
from mechinterp.circuits.search.masks import learned_mask
from mechinterp.circuits.search.refinement import refine
from mechinterp.circuits.search.selection import above, best_first, top_n

__all__ = [
    "MIB_SIZES",
    "PUBLISHED",
    "Circuit",
    "Contrast",
    "EdgeScores",
    "Graph",
    "NotOptimalWarning",
    "above",
    "acdc",
    "acdc_scores",
    "atp_star_edges",
    "best_first",
    "circuit_of_roles",
    "completeness",
    "contrast",
    "curve",
    "eap",
    "eap_ig",
    "eap_ig_activations",
    "eap_ig_neurons",
    "eap_ig_nodes",
    "eap_neurons",
    "eap_nodes",
    "evaluate",
    "exact",
    "exact_neurons",
    "exact_nodes",
    "faithfulness",
    "gim",
    "improve",
    "known_circuit",
    "learned_mask",
    "minimality",
    "optimal",
    "published_circuit",
    "qk_fixed_edges",
    "rank_auc",
    "read_circuit",
    "read_mib",
    "read_neuronpedia",
    "read_scores",
    "redundancy",
    "refine",
    "relp",
    "top_n",
    "write_circuit",
    "write_dot",
    "write_mib",
    "write_neuronpedia",
    "write_scores",
]
