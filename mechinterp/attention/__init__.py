"""Attention that does not mislead: links with the heads that carry them, and what cutting does.

Patterns, the sink, links by several rules, head scores, QK and OV circuits.
"""

from mechinterp.attention.confirmed import Link, confirm, in_every_head, in_its_head
from mechinterp.attention.copying import copying_scores, logit_copying
from mechinterp.attention.flow import max_flow, rollout
from mechinterp.attention.links import (
    above_uniform,
    find_links,
    head_above,
    links_by_head,
    mean_above,
    random_links,
    top_k,
)
from mechinterp.attention.pattern import over_prompts, patterns
from mechinterp.attention.places import where_heads_look
from mechinterp.attention.repeats import head_scores, repeated, second_block_log_prob
from mechinterp.attention.sinks import received, sink_share, without_sink
from mechinterp.attention.values import value_weighted
from mechinterp.attention.weights import ov_circuit, qk_circuit

__all__ = [
    "Link",
    "above_uniform",
    "confirm",
    "copying_scores",
    "find_links",
    "head_above",
    "head_scores",
    "in_every_head",
    "in_its_head",
    "links_by_head",
    "logit_copying",
    "max_flow",
    "mean_above",
    "ov_circuit",
    "over_prompts",
    "patterns",
    "qk_circuit",
    "random_links",
    "received",
    "repeated",
    "rollout",
    "second_block_log_prob",
    "sink_share",
    "top_k",
    "value_weighted",
    "where_heads_look",
    "without_sink",
]
