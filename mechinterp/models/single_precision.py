"""A Hugging Face model in single precision for a while, without a copy of it.

A model in half precision is compared with its conversion as it would be without rounding. A copy of
a large one would take twice its memory; here only one layer at a time is precise.

>>> import torch
>>> from transformers import GPT2Config, GPT2LMHeadModel
>>> from mechinterp.models.single_precision import in_single_precision
>>> sizes = GPT2Config(vocab_size=19, n_embd=8, n_layer=1, n_head=2, n_positions=11)
>>> half = GPT2LMHeadModel(sizes).bfloat16()
>>> with in_single_precision(half):
...     half(torch.tensor([[1, 2, 3]])).logits.dtype
torch.float32
>>> half.dtype
torch.bfloat16
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def in_single_precision(original: PreTrainedModel) -> Iterator[None]:
    """The original in evaluation mode and single precision; afterwards as it was.

    Not by a copy: a layer is made precise when it runs, and is itself again when it has run. What
    stands outside the layers (embeddings, the last norm) is precise in the meantime.
    """
    training = [module for module in original.modules() if module.training]
    layers = _layers(original)
    inside = {id(x) for layer in layers for x in _tensors(layer)}
    outside = [x for x in _tensors(original) if id(x) not in inside]
    with ExitStack() as undo:
        for module in training:
            undo.callback(_set_training, module)
            module.training = False
        for layer in layers:
            if any(_is_rounded(x) for x in _tensors(layer)):
                undo.enter_context(_precise_while_it_runs(layer))
        for module in original.modules():
            if tables := _rounded_tables(module):
                undo.enter_context(_afresh(original, module, tables))
        undo.enter_context(_precise(outside))
        yield


def _set_training(module: nn.Module) -> None:
    module.training = True


def _layers(original: nn.Module) -> list[nn.Module]:
    """The layers: the longest list of modules that holds the most weights."""
    lists = [module for module in original.modules() if isinstance(module, nn.ModuleList)]
    size = [sum(x.numel() for x in _tensors(module)) for module in lists]
    return list(lists[size.index(max(size))]) if lists else []


def _tensors(module: nn.Module) -> list[Tensor]:
    held = {id(x): x for x in (*module.parameters(), *module.buffers())}
    return list(held.values())


def _is_rounded(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < 4


@contextmanager
def _precise(tensors: Sequence[Tensor]) -> Iterator[None]:
    """These tensors in single precision; afterwards they hold the very data that they held."""
    before = [(x, x.data) for x in tensors if _is_rounded(x)]
    try:
        for x, data in before:
            x.data = data.float()
        yield
    finally:
        for x, data in before:
            x.data = data


@contextmanager
def _precise_while_it_runs(layer: nn.Module) -> Iterator[None]:
    undo = ExitStack()
    begin = layer.register_forward_pre_hook(
        lambda *_: (undo.enter_context(_precise(_tensors(layer))), None)[1]
    )
    end = layer.register_forward_hook(lambda *_: undo.close(), always_call=True)
    try:
        yield
    finally:
        begin.remove()
        end.remove()
        undo.close()


def _rounded_tables(module: nn.Module) -> dict[str, Tensor]:
    """What a module computes from its configuration, such as frequencies, where it was rounded."""
    if module._parameters:
        return {}
    own = {name: x for name, x in module._buffers.items() if x is not None and _is_rounded(x)}
    return {name: x for name, x in own.items() if name in module._non_persistent_buffers_set}


@contextmanager
def _afresh(
    original: PreTrainedModel, module: nn.Module, tables: Mapping[str, Tensor]
) -> Iterator[None]:
    """The module with these tables computed again in single precision, as when it was made."""
    try:
        for name, x in tables.items():
            setattr(module, name, x.float())
        original._init_weights(module)
        yield
    finally:
        for name, x in tables.items():
            setattr(module, name, x)
