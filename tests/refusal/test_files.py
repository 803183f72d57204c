"""A study goes through JSON without loss; what is no such file, or damaged, is refused."""

import json
from dataclasses import replace

import pytest
import xarray as xr
from refusal_studies import NAN, abstaining, prompt_study, stages, study, verdict

from mechinterp.refusal import Estimate, from_json, read_study, to_json, write_study

HOSTILE = '"seal": "' + 64 * "0" + '" \x1b[31m\ud800\u2028 </script>'


@pytest.mark.parametrize(
    "given",
    [
        study(),
        abstaining(),
        prompt_study(),
        prompt_study(study=None),
        study(model=HOSTILE, verdict=verdict(probability=NAN, abstains=HOSTILE)),
        study(stages=stages(detected_at=None, cut="detection and routing")),
    ],
    ids=["whole", "abstains", "prompt", "prompt alone", "hostile", "cut"],
)
def test_what_was_written_is_read(given, tmp_path):
    file = write_study(given, tmp_path / "study.json")
    back = read_study(file)
    assert type(back) is type(given)
    assert to_json(back) == to_json(given)
    assert repr(back) == repr(given)
    again = write_study(back, tmp_path / "again.json")
    assert again.read_bytes() == file.read_bytes()


def test_types_come_back():
    back = from_json(to_json(study(attrs={"shape": (1, 2), "of": ["a"], "none": NAN})))
    assert back.attrs["shape"] == (1, 2)
    assert back.attrs["of"] == ["a"]
    assert back.attrs["none"] != back.attrs["none"]
    assert back.crossing.identical(study().crossing)
    assert back.verdict == verdict()
    assert back.words == study().words
    assert isinstance(back.stages.routing, xr.Dataset)
    assert back.stages.routing.identical(stages().routing)
    assert isinstance(back.findings.rates["harmful"], Estimate)


def test_a_missing_number_is_not_a_missing_value():
    given = study(findings=replace(study().findings, auroc=NAN, agreement=None))
    back = from_json(to_json(given)).findings
    assert back.auroc != back.auroc
    assert back.agreement is None


def test_what_is_no_study_is_refused(tmp_path, refuses):
    file = tmp_path / "study.json"
    refuses(lambda: read_study(file), "cannot be read as a study of refusals")
    file.write_text("{}")
    refuses(lambda: read_study(file), "holds no study of refusals")
    write_study(study(), file)
    content = file.read_text()
    file.write_text(content.replace("0.93", "0.99", 1))
    refuses(lambda: read_study(file), "is damaged, or was changed")
    refuses(lambda: write_study(study(attrs={"x": object()}), file), "which to_json cannot write")


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["verdict", "rule"], "astrology"),
        (["verdict", "probability"], "much"),
        (["verdict", "triggers"], "bomb"),
        (["findings", "n_seeds"], 5.0),
        (["crossing"], 3),
        (["held_out", "families"], None),
    ],
)
def test_a_damaged_value_is_named(path, wrong, refuses):
    document = json.loads(to_json(study()))
    at = document["study"]
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = wrong
    refuses(lambda: from_json(json.dumps(document)), "this JSON")
