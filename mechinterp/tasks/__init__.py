"""Prompts of the published tasks, made from a seed for any tokenizer, and what was found on them.

A task is a `Pair` of clean and corrupt prompts with the positions named as in the paper, the metric
that the paper uses, and the published findings as data:

>>> from mechinterp import load_model
>>> from mechinterp.tasks import TASKS, task
>>> list(TASKS)
['ioi', 'greater-than', 'induction', 'docstring', 'sva', 'capitals']
>>> induction = task("induction", load_model("toy:induction-trained"), n=4)
>>> len(induction.pair.clean), sorted(induction.pair.clean.names), induction.metric.name
(4, ['end', 'first', 'induction'], 'log_prob')

Not a data set: nothing is downloaded, and a model whose tokenizer splits the words is told so.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
