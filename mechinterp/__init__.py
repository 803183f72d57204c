"""mechinterp: causal experiments on a transformer's internals, exact and fast.

The public names, loaded when first used: importing this pulls in neither torch nor transformers.
"""

import importlib
from typing import Any

_HOME = {
    "Activations": "core.activations",
    "At": "core.specs",
    "Comparison": "attribution.question.expectations",
    "HookError": "core.sites",
    "HookSpec": "core.specs",
    "Metric": "core.metrics",
    "Pair": "core.prompts",
    "Prompts": "core.prompts",
    "Run": "engine.runner",
    "Site": "core.sites",
    "Specs": "core.specs",
    "add": "core.specs",
    "ask": "attribution.question.definition",
    "atp_star": "patching.attribution",
    "attribute": "attribution.methods.single_removal",
    "attribute_by_level": "attribution.methods.levels",
    "attribute_each": "attribution.methods.batches",
    "attribute_pairs": "attribution.methods.redundancy",
    "attribution_patching": "patching.attribution",
    "centred_logit": "core.metrics",
    "compare": "attribution.question.expectations",
    "delete_token": "core.specs",
    "describe": "models.hook_points",
    "edit": "core.specs",
    "hooked": "engine.context",
    "integrated_patching": "patching.attribution",
    "kl": "core.metrics",
    "knockout": "core.specs",
    "last": "attribution.question.outputs",
    "load_model": "models.loading",
    "log_prob": "core.metrics",
    "logit": "core.metrics",
    "logit_diff": "core.metrics",
    "mean": "core.specs",
    "patch": "core.specs",
    "plan": "sweeps.experiment",
    "prob": "core.metrics",
    "progress_bar": "sweeps.progress",
    "put": "core.specs",
    "qk_fixed_patching": "patching.attribution",
    "read": "core.specs",
    "read_sweep": "sweeps.resumable",
    "refusal_log_odds": "tasks.refusals",
    "replace_token": "core.specs",
    "resample": "core.specs",
    "run": "engine.runner",
    "scale": "core.specs",
    "sequence_log_odds": "core.metrics",
    "sequence_log_prob": "core.metrics",
    "sweep": "sweeps.experiment",
    "sweep_each": "sweeps.experiment",
    "task": "tasks",
    "token_id": "models.tokenization",
    "tokenize": "models.tokenization",
    "top_k": "patching.attribution",
    "zero": "core.specs",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"mechinterp has no {name!r}")
    return getattr(importlib.import_module(f"mechinterp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
