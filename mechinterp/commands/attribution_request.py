"""What `mechinterp attribute` was asked: outputs, metric, units, and how inputs are removed.

>>> from mechinterp import load_model
>>> from mechinterp.commands.attribution_request import AttributionRequest
>>> from mechinterp.commands.options.attribution import AttributeOptions
>>> options = AttributeOptions("bring the sesame", outputs=1)
>>> AttributionRequest.of(load_model("toy:trigger"), options).metric.name
'log_prob'
"""

from dataclasses import dataclass, replace

from mechinterp.attribution.methods.by_name import MethodOptions
from mechinterp.attribution.question.outputs import Last, last
from mechinterp.attribution.question.units import Spans
from mechinterp.commands.options.attribution import AttributeOptions
from mechinterp.core import metrics
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.models.tokenization import token_id
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.refusals import refusal_log_odds

N_OUTPUTS = 5


@dataclass(frozen=True, eq=False)
class AttributionRequest:
    """The options of `attribute`, resolved for a model: the same for one prompt and for many."""

    outputs: int | str | Last
    how: MethodOptions
    metric: Metric
    units: str | Spans

    @classmethod
    def of(cls, model: Model, options: AttributeOptions) -> "AttributionRequest":
        """The request that the options make.

        Raises:
            ValueError: if a token of a contrast, or of a refusal, is not one token of the model.
        """
        outputs: int | str | Last = options.continuation or options.outputs or N_OUTPUTS
        if options.last is not None:
            outputs = last(options.last)
        units = options.units if options.spans is None else options.named_spans()
        return cls(outputs, _how(options), _metric(model, options), units)

    def told(self, tick: Progress) -> MethodOptions:
        """What methods are told, with a function that is called as work gets done."""
        return replace(self.how, options={"progress": tick})


def _how(options: AttributeOptions) -> MethodOptions:
    """What methods are told; what was not given stays at its default."""
    how = MethodOptions()
    return MethodOptions(
        how.removal if options.removal is None else options.removal,
        how.n_subsets if options.subsets is None else options.subsets,
        how.seed if options.seed is None else options.seed,
    )


def _metric(model: Model, options: AttributeOptions) -> Metric:
    if options.contrast is not None:
        first, second = (token_id(model, text) for text in options.contrast)
        return metrics.logit_diff(first, second)
    if options.metric == "refusal":
        return refusal_log_odds(model)
    made: Metric = getattr(metrics, options.metric or "log_prob")()
    return made
