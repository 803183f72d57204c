"""mechinterp: causal experiments on a transformer's internals, exact and fast.

The public names, loaded when first used: importing this pulls in neither torch nor transformers.
"""

import importlib
from typing import Any

_HOME = {
    "Activations": "activations",
    "At": "specs",
    "Comparison": "attribution.expect",
    "HookError": "sites",
    "HookSpec": "specs",
    "Metric": "metrics",
    "Pair": "prompts",
    "Prompts": "prompts",
    "Run": "runner",
    "Site": "sites",
    "Specs": "specs",
    "add": "specs",
    "ask": "attribution.question",
    "atp_star": "screening",
    "attribute": "attribution.perturb",
    "attribute_by_level": "attribution.levels",
    "attribute_each": "attribution.batches",
    "attribute_pairs": "attribution.redundancy",
    "attribution_patching": "screening",
    "centred_logit": "metrics",
    "compare": "attribution.expect",
    "delete_token": "specs",
    "describe": "hook_points",
    "edit": "specs",
    "hooked": "context",
    "integrated_patching": "screening",
    "kl": "metrics",
    "knockout": "specs",
    "last": "attribution.outputs",
    "load_model": "loading",
    "log_prob": "metrics",
    "logit": "metrics",
    "logit_diff": "metrics",
    "mean": "specs",
    "patch": "specs",
    "plan": "sweeps",
    "prob": "metrics",
    "progress_bar": "progress",
    "put": "specs",
    "qk_fixed_patching": "screening",
    "read": "specs",
    "read_sweep": "parts",
    "refusal_log_odds": "refusals",
    "replace_token": "specs",
    "resample": "specs",
    "run": "runner",
    "scale": "specs",
    "sequence_log_odds": "metrics",
    "sequence_log_prob": "metrics",
    "sweep": "sweeps",
    "sweep_each": "sweeps",
    "task": "tasks",
    "token_id": "tokenization",
    "tokenize": "tokenization",
    "top_k": "screening",
    "zero": "specs",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"mechinterp has no {name!r}")
    return getattr(importlib.import_module(f"mechinterp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
