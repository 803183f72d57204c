"""Which sign of a value means that a part supports the behaviour.

Results keep the sign that their field expects: ablation and patching report a change, attribution
and circuits a drop. So that all of them can be read and coloured alike, a result says in `attrs`
what its sign means: `sign` is a sentence, and `supports` is "positive", "negative" or "none".
The behaviour is what the metric measures; a distance, such as KL, measures how far a run departs
from it, and so counts the other way.

| result | value | supports, of a score | of a distance |
|---|---|---|---|
| ablation, `effect` | ablated − unchanged | negative | positive |
| patching clean prompts ("noise"), `effect` | patched − clean | negative | positive |
| patching corrupt prompts ("denoise"), `effect` | patched − corrupt | positive | negative |
| `normalized` (0 corrupt, 1 clean), "noise" | what it is below 1 | negative | negative |
| `normalized` (0 corrupt, 1 clean), "denoise" | what it is above 0 | positive | positive |
| attribution patching | patched − base, estimated | negative | positive |
| attribution, `drops` | how far the score falls, the distance rises | positive | positive |
| circuits, scores of edges and nodes | what is lost without it | positive | positive |
| AtP*, attention | a size, never negative | none | none |
| interactions | the sum of two beside both together | none | none |
| directions | changed − unchanged, by ablating and by steering up and down | none | none |

>>> from mechinterp.core.metrics import kl, log_prob
>>> from mechinterp.core.signs import sign_of_change
>>> sign_of_change(log_prob(7), "ablation")["sign"]
'Negative change: the ablation lowers the metric, so the part supports the behaviour.'
>>> [sign_of_change(metric, "ablation")["supports"] for metric in (log_prob(7), kl())]
['negative', 'positive']
"""

from mechinterp.core.metrics import Metric

SUPPORTS = ("positive", "negative", "none")
"""Values of `attrs["supports"]`: the sign that means support, or "none" where neither does."""


def sign_of_change(
    metric: Metric, edit: str, *, part: str = "part", direction: str = "noise"
) -> dict[str, str]:
    """The `sign` and `supports` of a result that is the changed run minus the unchanged one.

    `edit`: what was done, as a noun: "ablation", "patch". `part`: what it was done to. `direction`:
    "noise" if the edit takes the part away, "denoise" if it puts the part into a run without it.
    """
    removes = direction == "noise"
    raises = removes == metric.distance
    word, verb = ("Positive", "raises") if raises else ("Negative", "lowers")
    what = "distance" if metric.distance else "metric"
    reason = f"the {edit} {verb} the {what}"
    return {
        "sign": f"{word} change: {reason}, so the {part} supports the behaviour.",
        "supports": word.lower(),
    }


def sign_of_support(reason: str, *, part: str) -> dict[str, str]:
    """The `sign` and `supports` of a result whose positive values mean support.

    `reason`: what a positive value says, as "removing it lowers the score of the output".
    """
    return {
        "sign": f"Positive: {reason}, so the {part} supports the behaviour.",
        "supports": "positive",
    }


def no_support(sentence: str) -> dict[str, str]:
    """The `sign` and `supports` of a size or an interaction: neither sign means support."""
    return {"sign": sentence, "supports": "none"}
