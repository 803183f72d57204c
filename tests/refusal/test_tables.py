"""Studies as tables: every number of the values is in one."""

from refusal_studies import prompt_study, stages, study

from mechinterp.refusal import to_dataframe


def test_the_crossing_is_a_row_for_each_family_and_cell():
    frame = to_dataframe(study())
    assert list(frame) == ["harm", "trigger", "cue", "family", "score", "does"]
    assert len(frame) == 12 * 8 - 1  # one family lacks a request
    assert (frame["does"] == (frame["score"] > 0)).all()


def test_words_cues_flips_and_directions():
    words = to_dataframe(study().words)
    assert words["words"].tolist() == ["bomb", "kill + weapon", "bath"]
    assert words["flips_low"].tolist() == [w.flips.low for w in study().words]
    assert to_dataframe(study().cues)["on_harmful"].tolist() == [-1.5, 0.1]
    flips = to_dataframe(study().flips)
    assert flips[["words", "n_words"]].values.tolist() == [["bomb", 1], ["bath + home", 2]]
    assert to_dataframe(stages().directions)["works"].tolist() == [False, True]
    assert to_dataframe(()).empty


def test_a_prompt_is_its_words():
    frame = to_dataframe(prompt_study())
    assert frame.loc[frame["word"] == "bomb", "drop"].tolist() == [2.0]
