import pytest

from mechinterp.refusal import why


@pytest.mark.parametrize(
    ("toy", "text", "flips", "triggers"),
    [
        ("toy:trigger", "bring the sesame to me", [("sesame",)], [("sesame",)]),
        ("toy:and", "copper for my lantern", [("copper",), ("lantern",)], [("copper", "lantern")]),
        ("toy:trigger", "bring the coat to me", [], []),
    ],
)
def test_sentences_say_what_the_numbers_say(refusing, toy, text, flips, triggers):
    model, _ = refusing(toy)
    found = why(model, text)
    assert [flip.words for flip in found.flips.sets] == flips
    assert [effect.words for effect in found.triggers] == triggers
    assert found.attribution.word.values.tolist() == text.split()
    assert found.model == toy
    refused = found.score > 0
    assert found.sentences[0].startswith(f"The model {'would' if refused else 'would not'} refuse")
    said = " ".join(found.sentences)
    for words in (*flips, *triggers):
        assert all(f'"{word}"' in said for word in words)
    assert ("changes that" in said) == (not flips)
    assert ("None of its words" in said) == (not triggers)


def test_words_that_stand_in_for_each_other(refusing):
    model, refuse = refusing("toy:refusal")
    found = why(model, "bring the sesame and the copper to the lantern", behaviour=refuse)
    assert found.stand_ins == (("sesame", "copper", "lantern"),)
    assert {effect.words for effect in found.triggers} == {("copper",), ("lantern",), ("sesame",)}
    assert float(abs(found.attribution).max()) < 6  # no word matters alone


def test_without_a_carrier_that_is_answered_it_says_so(refusing):
    model, refuse = refusing("toy:trigger")
    found = why(model, "bring the sesame", behaviour=refuse, carriers=["a dragon", "the sesame"])
    assert found.triggers == ()
    assert "were not tried" in found.sentences[-1]
