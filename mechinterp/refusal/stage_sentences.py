"""What the stages of refusals say, in sentences that follow from their numbers.

sentences_of(find_stages(model, behaviour, requests), {"content": 0.9}, verb="refuse")
"""

from collections.abc import Mapping

import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.refusal.findings import DirectionTest, Stages

_PLACE = {"end": "the last token", "content": "the mean over the request's tokens"}


@checks_arguments
def sentences_of(stages: Stages, effects: Mapping[str, float], *, verb: str) -> tuple[str, ...]:
    """A sentence on detection, those on each driver, and one on where it is cut.

    `effects`: by how much more often the model does it with each driver than without. `verb`: what
    it does, such as "refuse".
    """
    found = [_on_detection(stages)]
    for name, effect in effects.items():
        found += _on_driver(stages, name, effect, verb)
    if stages.cut:
        shown = effects.get("content", 0.0)
        found.append(
            f"Cut between {stages.cut}: harm is read off layer {stages.detected_at}, and harmful "
            f"requests do not make the model {verb} more often than harmless ones by more than "
            f"{shown:+.0%}, all else alike."
        )
    return tuple(found)


def _on_detection(stages: Stages) -> str:
    at, found = stages.detected_at, stages.detection
    layer = int(found["layer"].values[found["auroc"].values.argmax()]) if at is None else at
    row = found.sel(layer=layer)
    auroc, low, high = (float(row[name]) for name in ("auroc", "low", "high"))
    controls = (
        f"a bag of words reaches {float(row['bag_of_words']):.2f}, random weights "
        f"{float(row['random_weights']):.2f}"
    )
    where = f"layer {layer}, {_PLACE[str(row['read_at'].item())]}"
    families = f"on {found.attrs['n_families']} families, each left out of the fit"
    reached = f"AUROC {auroc:.2f} [{low:.2f}, {high:.2f}] {families}"
    if at is None:
        return (
            f"No layer tells harm better than the words and chance do: at best {where}, {reached}; "
            f"{controls}."
        )
    return f"Harm is detected from layer {at} on, at {where.split(', ')[1]}: {reached}; {controls}."


def _on_driver(stages: Stages, name: str, effect: float, verb: str) -> list[str]:
    rate = f"{effect:+.0%} of prompts {verb}d with it against without" if verb.endswith("e") else ""
    if name not in stages.routing["driver"].values:
        return [f"{_titled(name)}: too few pairs of prompts in which it decides ({rate})."]
    row = stages.routing.sel(driver=name)
    found = [_on_route(row, name)]
    if (attention := _on_attention(row, name)) is not None:
        found.append(attention)
    tests = [test for test in stages.directions if test.driver == name]
    return [*found, *map(_on_direction, tests)]


def _on_route(row: xr.Dataset, name: str) -> str:
    setting = str(row["setting"].item())
    of = f"{_titled(name)}{f', with {setting}' if setting else ''}, {int(row['n_pairs'])} pairs"
    parts = row["part"].values[row["is_on_route"].values].tolist()
    if not parts:
        best = row[["necessity", "sufficiency"]].to_array().min("variable")
        part = str(best["part"].values[int(best.values.argmax())])
        one = row.sel(part=part)
        return (
            f"{of}: no part alone carries it both ways; the most does {part}, necessity "
            f"{float(one['necessity']):.0%} and sufficiency {float(one['sufficiency']):.0%} "
            f"(p {float(one['p']):.3f})."
        )
    shown = [
        f"{part} (necessity {float(one['necessity']):.0%}, sufficiency "
        f"{float(one['sufficiency']):.0%}, {float(one['direct']):.1%} direct, "
        f"p {float(one['p']):.3f})"
        for part in parts
        for one in [row.sel(part=part)]
    ]
    return f"{of}: carried to the last token by {', '.join(shown)}."


def _on_attention(row: xr.Dataset, name: str) -> str | None:
    if "attention" not in row or bool(row["attention"].isnull().all()):
        return None
    cut, other = (float(row[key].sel(layer=-1)) for key in ("attention", "attention_elsewhere"))
    return (
        f"{_titled(name)}: without the last token's attention to where the pairs differ "
        f"{cut:.0%} of the difference goes, without that to as many other tokens {other:.0%}."
    )


def _on_direction(test: DirectionTest) -> str:
    does = "works" if test.works else "does not work"
    return (
        f"{_titled(test.driver)}, {test.contrast} contrast: the direction at layer {test.layer} "
        f"{does}: taken out it flips {test.flips_out:.0%} of the refused prompts, added "
        f"{test.flips_in:.0%} of the answered ones (p {test.p_norm:.3f} against random "
        f"directions, {test.p_covariance:.3f} against random ones of the same covariance; KL "
        f"{test.kl:.2g} nats)."
    )


def _titled(name: str) -> str:
    return name[:1].upper() + name[1:]
