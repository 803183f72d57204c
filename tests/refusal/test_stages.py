"""`find_stages` on models written by hand, whose stages are known."""

from pathlib import Path

import numpy as np
import pytest
from refusal.stage_toys import TRIGGER, Mechanism, stage_requests, stage_toy

from mechinterp import load_model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.findings import Stages
from mechinterp.refusal.stages import CUT, find_stages


def find(mechanism: Mechanism, **options: object) -> Stages:
    model = load_model(stage_toy(mechanism))
    behaviour, requests = refusal_behaviour(model), stage_requests(14)
    return find_stages(
        model, behaviour, requests, triggers=[(TRIGGER,)], n_random=19, n_pairs=5, **options
    )


@pytest.fixture(scope="module")
def content() -> tuple[Stages, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    found = find("content", progress=lambda done, total: steps.append((done, total)))
    return found, steps


def test_harm_is_detected_and_its_route_is_cut() -> None:
    found = find("cut")
    assert (found.detected_at, found.cut, found.routed_by) == (1, CUT, ("L1H1",))
    assert found.expressed_at == 2
    assert found.expressed_by == ("L1H1",)
    assert found.routing["driver"].values.tolist() == ["trigger"]
    assert found.sentences[-1].startswith("Cut between detection and routing: harm is read off")


def test_content_goes_through_and_a_part_without_direct_attribution_is_found(
    content: tuple[Stages, list[tuple[int, int]]],
) -> None:
    found, steps = content
    assert (found.detected_at, found.cut, found.expressed_by) == (1, "", ("L1.mlp",))
    row = found.routing.sel(driver="content")
    gate = row.sel(part="L0.mlp")
    assert bool(gate["is_on_route"])
    assert abs(float(gate["direct"])) < 0.01
    assert float(gate["necessity"]) == pytest.approx(1, abs=0.02)
    assert float(row["direct"].sel(part="L1.mlp")) == pytest.approx(1, abs=0.02)
    unused = row["part"].values[(row["necessity"] < 0.01).values].tolist()
    assert {"L0H1", "L1H0", "L1H2", "L2H0", "L2.mlp"} <= set(unused)
    assert not row["is_on_route"].sel(part=unused).any()
    assert steps[0] == (0, steps[-1][0])
    assert [done for done, _ in steps] == list(range(len(steps)))


def test_a_model_that_only_knows_a_trigger_detects_no_harm(tmp_path: Path) -> None:
    found = find("trigger", out=tmp_path)
    assert (found.detected_at, found.cut, found.routed_by) == (None, "", ("L1H1",))
    assert float(found.detection["auroc"].max()) <= float(found.detection["bag_of_words"][0]) + 0.01
    assert all(test.driver == "trigger" for test in found.directions)
    assert {test.contrast for test in found.directions} == {"matched", "unmatched"}
    again = find("trigger", out=tmp_path)  # from the folder
    assert np.array_equal(found.routing["necessity"], again.routing["necessity"])
    assert found.directions == again.directions


def test_sentences_follow_from_the_numbers(
    content: tuple[Stages, list[tuple[int, int]]],
) -> None:
    found, _ = content
    row = found.routing.sel(driver="content", part="L1.mlp")
    said = next(each for each in found.sentences if each.startswith("Content, 5 pairs"))
    assert f"L1.mlp (necessity {float(row['necessity']):.0%}" in said
    auroc = float(found.detection["auroc"].sel(layer=found.detected_at))
    assert f"AUROC {auroc:.2f}" in found.sentences[0]
    works = [each for each in found.sentences if "contrast: the direction at layer" in each]
    for said, test in zip(works, found.directions, strict=True):
        assert ("does not work" not in said) == test.works


def test_too_few_families_are_named() -> None:
    model = load_model(stage_toy("content"))
    requests = [request for request in stage_requests(3) if not request.harmful]
    with pytest.raises(ValueError, match="0 families of harmful"):
        find_stages(model, refusal_behaviour(model), requests)
