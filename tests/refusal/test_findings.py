"""Studies print as their verdict and what it stands on."""

from refusal_studies import abstaining, prompt_study, study, verdict


def test_a_study_is_its_verdict_first():
    lines = repr(study()).splitlines()
    assert "refuse by content or trigger, probability 0.93" in lines[0]
    assert "  triggers: bomb, kill + weapon" in lines
    assert "  flips that were foretold: 9 of 10 happened; of random edits 1 of 10" in lines
    assert "of 95 cells" in repr(study())


def test_an_abstention_says_why():
    said = repr(abstaining())
    assert "no rule that can be told, probability 0.41" in said
    assert "abstains: the intervals" in said


def test_nothing_acts():
    said = repr(study(model="\x1b[31m\n", verdict=verdict(cue="\u202e")))
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_a_prompt():
    said = repr(prompt_study())
    assert "smollm2 does refuse: +1.25 nats" in said
    assert "without bath + home: -0.50" in said
    assert "does not refuse" in repr(prompt_study(score=-1.0, study=None))
