"""Words of planted models: all different, harm by order, and cues that go on and off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.toys.refuser_words import CUE_WORDS, PlantedCue, draw_words


@pytest.mark.parametrize("n_families", [1, 8, 30])
def test_all_words_are_different(n_families: int):
    words = draw_words(0, n_families=n_families)
    assert len(set(words.vocabulary)) == len(words.vocabulary)
    assert words.n_families == n_families
    assert (len(words.harmful_objects), len(words.verbs)) == (3 * n_families, 4 * n_families)
    assert {cue.place for cue in words.cues} == set(CUE_WORDS)


def test_harm_is_a_harmful_verb_before_a_harmful_object():
    words = draw_words(0, n_families=2)
    verb, noun = words.harmful_verbs[3], words.harmful_objects[0]
    assert words.harmful(f"please {verb} the old {noun} now")
    assert not any(map(words.harmful, (f"{noun} {verb}", verb, noun, "", f"{verb} the lamp")))


@given(
    st.sampled_from([PlantedCue(place, words[0]) for place, words in CUE_WORDS.items()]),
    st.lists(st.sampled_from([*"abc", *(words[0] for words in CUE_WORDS.values())]), min_size=1),
)
def test_a_cue_goes_on_and_off(cue: PlantedCue, words: list[str]):
    text = " ".join(words)
    on, off = cue.on(text), cue.off(text)
    assert (cue.present(on), cue.present(off)) == (True, False)
    assert (cue.on(on), cue.off(off)) == (on, off)
    assert len(on.split()) - len(words) == (0 if cue.present(text) else 1)
    if not cue.present(text):
        assert off == text == cue.off(on) or cue.place != "anywhere"


def test_wrong_numbers_are_told():
    with pytest.raises(ValueError, match=r"^n_candidates=2: 3 to 8 words may be triggers"):
        draw_words(0, n_candidates=2)
