"""`mechinterp refusal`: what is found is shown, kept and named; bad input is a sentence.

What is found is made by hand here: the studies themselves are tested in `tests/refusal`.
"""

import json
from dataclasses import replace

import pandas as pd
import pytest
from refusal_studies import abstaining, prompt_study, study

from mechinterp.refusal import QUICK, read_study, to_json, write_study
from mechinterp.storage.run_folder import read_manifest

TOY = ("--model", "toy:trigger")


@pytest.fixture
def asked(monkeypatch):
    """Gives the command this study, or this study of a prompt; keeps what it was asked for."""
    calls = []

    def give(found):
        def explain_refusals(model, requests, **options):
            options["progress"](1, 1)
            calls.append((requests, options))
            return found

        for name in ("explain_refusals", "why"):
            monkeypatch.setattr(f"mechinterp.commands.refusal.{name}", explain_refusals)
        return calls

    return give


def requests_file(tmp_path, *lines):
    file = tmp_path / "requests.jsonl"
    rows = lines or [
        (f"{verb} the {thing}", verb == "open", thing)
        for thing in ("door", "box")
        for verb in ("open", "paint")
    ]
    file.write_text(
        "\n".join(json.dumps({"prompt": p, "harmful": h, "family": f}) for p, h, f in rows)
    )
    return file


def test_a_study_is_shown_and_kept(mechinterp, tmp_path, asked):
    given = study(model="toy:trigger")
    calls, out = asked(given), tmp_path / "run"
    done = mechinterp("refusal", *TOY, "--requests", requests_file(tmp_path), "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Why does toy:trigger refuse?" in done.stdout
    assert "Probability that this is the rule: 93%" in done.stdout
    assert "12 families in the crossing and 2 set aside" in done.stdout
    requests, options = calls[0]
    assert len(requests) == 4
    assert options["behaviour"].openers == (("REFUSE",), ("COMPLY",))
    assert (options["stages"], options["seed"]) == (True, 0)
    manifest = read_manifest(out)
    assert (manifest["kind"], manifest["rule"]) == ("refusals", "content or trigger")
    assert to_json(read_study(out / "study.json")) == to_json(given)
    assert len(pd.read_parquet(out / "crossing.parquet")) == 95
    assert pd.read_parquet(out / "words.parquet")["words"].tolist()[0] == "bomb"
    assert "requests.jsonl" in (out / "report.html").read_text()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    again = mechinterp("refusal", *TOY, "--requests", requests_file(tmp_path), "--out", out)
    assert again.returncode == 0, again.stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_an_abstention_and_other_options(mechinterp, tmp_path, asked):
    calls = asked(abstaining())
    file = requests_file(tmp_path)
    more = ("--no-stages", "--families", 4, "--seed", 3, "--refusals", "REFUSE")
    done = mechinterp("refusal", *TOY, "--requests", file, *more, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "No verdict" in done.stdout
    options = calls[0][1]
    assert (options["stages"], options["n_families"]) == (False, 4)
    assert options["seed"] == 3
    assert "n_words" not in options
    assert read_manifest(tmp_path / "run")["rule"] is None
    assert not (tmp_path / "run" / "words.parquet").exists()


def test_a_first_look_takes_its_options_and_those_given(mechinterp, tmp_path, asked):
    calls = asked(study())
    file = requests_file(tmp_path)
    for given, n in (((), QUICK["n_families"]), (("--families", 5), 5)):
        done = mechinterp("refusal", *TOY, "--requests", file, "--quick", *given)
        assert done.returncode == 0, done.stderr
        options = calls[-1][1]
        assert options["n_families"] == n
        assert {name: options[name] for name in QUICK if name != "n_families"} == {
            name: value for name, value in QUICK.items() if name != "n_families"
        }


def test_one_prompt_beside_the_verdict_of_the_model(mechinterp, tmp_path, asked):
    calls, out = asked(prompt_study(model="toy:trigger")), tmp_path / "run"
    kept = write_study(study(model="toy:trigger"), tmp_path / "study.json")
    done = mechinterp("refusal", "bring the sesame", *TOY, "--study", kept, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Why does toy:trigger refuse this?" in done.stdout
    assert calls[0][0] == "bring the sesame"
    assert to_json(calls[0][1]["study"]) == to_json(study(model="toy:trigger"))
    manifest = read_manifest(out)
    assert manifest["kind"] == "refusal of a prompt"
    assert manifest["flipped by"] == [["bomb"], ["bath", "home"]]
    assert read_study(out / "study.json").score == 1.25
    assert calls[0][1]["carriers"] is None
    file = requests_file(tmp_path)
    done = mechinterp("refusal", "-", *TOY, "--requests", file, stdin="bring the map\n")
    assert done.returncode == 0, done.stderr
    assert calls[1][0] == "bring the map"
    assert calls[1][1]["carriers"] == ["paint the door", "paint the box"]


def test_another_study_is_refused(mechinterp, tmp_path, asked):
    asked(prompt_study())
    for found, said in (
        (prompt_study(model="toy:trigger"), "is about one prompt"),
        (study(model="gpt2"), "is of 'gpt2', not of 'toy:trigger'"),
    ):
        kept = write_study(found, tmp_path / "study.json")
        done = mechinterp("refusal", "bring the map", *TOY, "--study", kept)
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("open a", True, "a"), ("open b", True, "a"), ("c", True, "b"), ("d", True, "b")],
         "no benign requests"),
        ([("open a", False, "a"), ("open b", False, "a"), ("c", False, "b"), ("d", False, "b")],
         "no harmful requests"),
        ([("open a", True, "a"), ("open b", False, "a"), ("c", True, "b")], "families of one"),
        ([("open a", True, "a"), ("open b", False, "a")], "at least two families"),
    ],
)  # fmt: skip
def test_requests_of_which_no_study_can_be_made(mechinterp, tmp_path, lines, said):
    """Before a model loads: there is none of this name."""
    file = requests_file(tmp_path, *lines)
    done = mechinterp("refusal", "--model", "toy:nothing", "--requests", file)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_bad_openers_are_a_sentence(mechinterp, tmp_path):
    done = mechinterp("refusal", "bring the map", *TOY, "--refusals", "zebra")
    assert done.returncode == 2
    assert "zebra" in done.stderr


def test_hostile_values_do_not_act(mechinterp, asked):
    bad = replace(study().verdict, rule=None, abstains="\x1b[31m\u202e")
    asked(study(verdict=bad))
    done = mechinterp("refusal", *TOY)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
