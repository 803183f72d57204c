"""Prompts of published tasks, made from a seed for any tokenizer, with the published findings.

A task is a `Pair` of clean and corrupt prompts whose positions are named as in the paper, the
paper's metric, and the published findings as data:

>>> from mechinterp import load_model
>>> from mechinterp.tasks import TASKS, task
>>> list(TASKS)
['ioi', 'greater-than', 'induction', 'docstring', 'sva', 'capitals']
>>> induction = task("induction", load_model("toy:induction-trained"), n=4)
>>> len(induction.pair.clean), sorted(induction.pair.clean.names), induction.metric.name
(4, ['end', 'first', 'induction'], 'log_prob')

Nothing is downloaded. If a model's tokenizer splits too many of the words, an error says so.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
