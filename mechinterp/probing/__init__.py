"""Probes: what can be read off activations, what they have to beat, and whether the model uses it.

    labelled = Labelled.of(prompts, labels, groups)
    acts = gather(model, tokenize(model, labelled.prompts))     # every layer, at the last token
    found = probe_layers(acts, labelled)                        # out of fold, beside controls
    best_layers(found).attrs["as_good"]                         # is any layer the best?
    along = class_direction(acts, labelled, layer=9)
    direction_effects(model, prompts, along, metric)            # is it used? beside random ones

What is present need not be used: a probe says the first, only an intervention the second.
"""

from mechinterp.probing.by_layer import balanced_by_group, out_of_fold, probe_layers
from mechinterp.probing.causal import (
    Direction,
    ablate_direction,
    class_direction,
    direction_effects,
    steer_direction,
    used,
)
from mechinterp.probing.comparison import best_layers, compare_layers
from mechinterp.probing.controls import (
    bag_of_tokens,
    control_labels,
    majority,
    random_weights,
    shuffled_labels,
    word_types,
)
from mechinterp.probing.folds import grouped_folds
from mechinterp.probing.gathered import MEAN, TEXT_END, gather, residual_sites
from mechinterp.probing.labelled import Labelled, read_labelled
from mechinterp.probing.measures import MEASURES, Answers, figures
from mechinterp.probing.online_code import description_length
from mechinterp.probing.probes import Linear, Probe, ProbeError, logistic, mass_mean
from mechinterp.probing.study import ProbeStudy, held_out, probe_model

__all__ = [
    "MEAN",
    "MEASURES",
    "TEXT_END",
    "Answers",
    "Direction",
    "Labelled",
    "Linear",
    "Probe",
    "ProbeError",
    "ProbeStudy",
    "ablate_direction",
    "bag_of_tokens",
    "balanced_by_group",
    "best_layers",
    "class_direction",
    "compare_layers",
    "control_labels",
    "description_length",
    "direction_effects",
    "figures",
    "gather",
    "grouped_folds",
    "held_out",
    "logistic",
    "majority",
    "mass_mean",
    "out_of_fold",
    "probe_layers",
    "probe_model",
    "random_weights",
    "read_labelled",
    "residual_sites",
    "shuffled_labels",
    "steer_direction",
    "used",
    "word_types",
]
