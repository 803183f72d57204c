"""Causal experiments on a transformer's internals: exact, fast, nothing silent.

    import mechinterp as mi

What to look for where:

    load a model, tokenize          mi.load_model, mi.tokenize, mi.describe, mi.models
    say where and what              mi.Site, mi.edit, mi.zero, mi.patch, mi.read, ...; mi.core
    measure                         mi.logit_diff, mi.log_prob, mi.kl, ...
    run one, or many                mi.run, mi.sweep, mi.plan, mi.hooked; mi.engine, mi.sweeps
    patch activations               mi.patching
    ablate heads, neurons, layers   mi.ablation
    find what a token contributes   mi.attribute, mi.attribute_pairs, ...; mi.attribution
    find circuits                   mi.circuits
    look at attention               mi.attention
    look layer by layer             mi.layers
    probe                           mi.probing
    why does it refuse              mi.explain_refusals, mi.why; mi.refusal
    prompts of the literature       mi.task, mi.tasks
    models with known mechanisms    mi.toys
    intervals and tests             mi.stats
    pages and tables                mi.report
    files on disk                   mi.storage

Every name is loaded when it is first used: importing this pulls in neither torch nor transformers.
"""

import sys

import lazy_loader

__getattr__, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.2.0"


def __dir__() -> list[str]:
    """All public names; for `help`, which would import each of them, those loaded so far."""
    if sys._getframe(1).f_globals.get("__name__") == "inspect":
        return list(globals())
    return [*_names(), "__version__"]
