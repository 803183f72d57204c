"""What the scripts that train the toys do alike: train from a seed, round, measure, write."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig


def make(
    description: str,
    weights_file: Path,
    config: Mapping[str, Any],
    train: Callable[..., HookedTransformer],
    measure: Callable[..., dict[str, float]],
) -> None:
    """Read the command line, make the toy, print its figures and write them with the weights."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of weights and prompts (default: 0)")
    parser.add_argument("--out", type=Path, default=weights_file, help="default: %(default)s")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(arguments.seed)

    model = train(HookedTransformer(HookedTransformerConfig(**config)), seed=arguments.seed)
    weights = {name: value.detach().half() for name, value in model.named_parameters()}
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    figures = measure(model, seed=arguments.seed + 1)

    # One key of metadata: safetensors writes several in an order that changes from run to run.
    save_file(weights, arguments.out, metadata={"figures": json.dumps(figures)})
    for name, value in figures.items():
        print(f"{name:44} {value:.4f}")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
