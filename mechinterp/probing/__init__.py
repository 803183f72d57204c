"""Probing: what can be read off activations, beside controls, and whether the model uses it.

    labelled = Labelled.of(prompts, labels, groups)
    acts = gather(model, tokenize(model, labelled.prompts))     # every layer, at the last token
    found = probe_layers(acts, labelled)                        # out of fold, beside controls
    best_layers(found).attrs["as_good"]                         # which layers may be the best?
    along = class_direction(acts, labelled, layer=9)
    direction_effects(model, prompts, along, metric)            # is it used? beside random ones

A probe shows that something is present; only an intervention shows that the model uses it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
