"""Does a link matter? Each link is cut before the softmax, and the metric is measured again.

>>> from mechinterp import load_model, log_prob, token_id
>>> from mechinterp.attention import above_uniform, confirm, find_links, patterns, without_sink
>>> model, prompt = load_model("toy:trigger"), "please bring the sesame to me"
>>> found = without_sink(patterns(model, prompt)).isel(prompt=0, layer=[1])
>>> links = find_links(found.sel(pos=[6]), above_uniform(2.0))
>>> links.key_token.values, links.largest.values.round(2)
(array(['sesame'], dtype=object), array([1.]))
>>> checked = confirm(model, prompt, links, log_prob(token_id(model, "REFUSE")))
>>> checked["effect"].values.round(1), checked["confirmed"].values
(array([[8.]]), array([ True]))

An unconfirmed link is still a link: the head attends there. But on these prompts this metric does
not need the link alone; another link may stand in for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import sign_of_support
from mechinterp.core.specs import Specs, knockout
from mechinterp.engine.runner import run
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.stats.intervals import interval
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import Progress


@dataclass(frozen=True)
class Link:
    """A link from a query's position to a key's position, in one head."""

    layer: int
    head: int
    query: int
    key: int


Cut = Callable[[Model, Link], Specs]
"""From a model and a link to the specs that cut the link."""


@checks_arguments
def in_its_head(model: Model, link: Link) -> Specs:
    """The specs that cut a link in its own head."""
    return knockout(link.layer, link.head, link.query, link.key)


@checks_arguments
def in_every_head(model: Model, link: Link) -> Specs:
    """The specs that cut a link in all heads of all layers."""
    require_model(model)
    layers = range(model.cfg.n_layers)
    return sum((knockout(layer, None, link.query, link.key) for layer in layers), ())


@checks_arguments
def confirm(
    model: Model,
    prompts: Text,
    links: xr.Dataset,
    metric: Metric,
    *,
    cut: Cut = in_its_head,
    threshold: float = 0.1,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The links, with the effect of cutting each; one sweep with a run for each link.

    `effect` (link, prompt): what the metric loses, in its unit; positive: the link supports what
    the metric measures. `mean_effect`: its mean over prompts, with the interval `low` to `high` if
    there are at least two. `confirmed`: |mean effect| is at least `threshold`, and the interval, if
    there is one, does not contain 0. `together` (prompt): the effect of cutting all links at once,
    except those from a query to itself, so that no query is left without keys. The links' positions
    are used in every prompt.

    Raises:
        HookError: as `sweep`.
        ValueError: if there are no links, a link goes to a later token, which a knockout cannot
            cut, or the threshold is negative.

    Source: Geva et al. 2023, section 3, arXiv 2304.14767.
    """
    if not links.sizes["link"]:
        raise ValueError("there is no link to confirm. Lower the threshold of the rule.")
    if bool((links["key"] > links["query"]).any()):
        raise ValueError(
            "a link goes from a token to a later one: knockouts need causal attention."
        )
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}: the size of an effect is at least 0.")
    given, each = tokenize(model, prompts), as_links(links)
    specs = [cut(model, link) for link in each]
    others = [spec for link, spec in zip(each, specs, strict=True) if link.query != link.key]
    arms = [*specs, sum(others, ())]
    sign = -1.0 if metric.distance else 1.0
    without = sweep(
        model,
        given,
        {"arm": range(len(arms))},
        lambda arm: arms[arm],
        metric,
        out=out,
        progress=progress,
    )
    base = metric(run(model, given, logits_at=metric.at)).double().cpu().numpy()
    effect = sign * (base - without.values)
    mean = effect[:-1].mean(1)
    low = high = np.full(len(each), np.nan)
    is_sure = np.ones(len(each), dtype=bool)
    if len(given) > 1:
        found = interval(xr.DataArray(effect[:-1], dims=("link", "prompt")))
        low, high = found["low"].values, found["high"].values
        is_sure = (low > 0) | (high < 0)
    how = "|mean effect| of at least " + f"{threshold:g} {metric.unit}"
    how += ", an interval without 0" if len(given) > 1 else ", on one prompt"
    return (
        links.assign_coords(prompt=range(len(given)))
        .assign(
            effect=(("link", "prompt"), effect[:-1]),
            mean_effect=("link", mean),
            low=("link", low),
            high=("link", high),
            confirmed=("link", (abs(mean) >= threshold) & is_sure),
            together=("prompt", effect[-1]),
        )
        .assign_attrs(
            links.attrs
            | without.attrs
            | {
                "metric": metric.name,
                "unit": metric.unit,
                **sign_of_support("cutting it loses some of the behaviour", part="link"),
                "confirmed": how,
                "cut": cut.__name__.replace("_", " "),
                "base": float(base.mean()),
            }
        )
    )


def as_links(links: xr.Dataset) -> list[Link]:
    """The rows of a table of links, as `Link` values."""
    columns = [links[name].values.tolist() for name in ("layer", "head", "query", "key")]
    return [Link(*row) for row in zip(*columns, strict=True)]
