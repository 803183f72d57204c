import numpy as np
import pytest

from mechinterp import run, tokenize
from mechinterp.refusal.vocabulary import whole_vocabulary


def test_equals_the_loop_over_texts(refusing):
    model, refuse = refusing("toy:refusal")
    carriers = ["bring the old book to velvet", "open my door"]
    found = whole_vocabulary(model, refuse, carriers, slot=1)
    assert found.sizes == {"token": model.cfg.d_vocab, "carrier": 2}
    for word in ("sesame", "anchor", "silk"):
        at = found.text.values.tolist().index(word)
        texts = [carrier.replace(" ", f" {word} ", 1) for carrier in carriers]
        alone = [float(refuse.metric(run(model, text))) for text in texts]
        np.testing.assert_allclose(found[at], alone, atol=1e-5)
    assert set(found.text.values[(found[:, 1] > 0).values]) == {"sesame", "copper", "lantern"}
    assert "anchor" in found.text.values[(found[:, 0] > 0).values]
    whole = [float(refuse.metric(run(model, tokenize(model, text)))) for text in carriers]
    np.testing.assert_allclose(found.without, whole, atol=1e-5)


def test_a_slot_behind_the_last_word(refusing):
    model, refuse = refusing("toy:refusal")
    found = whole_vocabulary(model, refuse, ["open my door"], slot=3)
    for word in ("sesame", "anchor", "silk"):
        at = found.text.values.tolist().index(word)
        alone = float(refuse.metric(run(model, f"open my door {word}")))
        np.testing.assert_allclose(found[at, 0], alone, atol=1e-5)


def test_some_tokens_and_a_folder(refusing, tmp_path):
    model, refuse = refusing("toy:trigger")
    told = []
    options = {"tokens": [5, 9], "out": tmp_path, "progress": lambda *at: told.append(at)}
    first = whole_vocabulary(model, refuse, ["open my door"], 1, **options)
    again = whole_vocabulary(model, refuse, ["open my door"], 1, **options)
    assert first.token.values.tolist() == [5, 9]
    assert first.equals(again)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("carriers", "slot", "options", "pieces"),
    [
        ([], 0, {}, ["no carriers"]),
        (["open my door"], 4, {}, ["'open my door' has 3 words", "0 to 3"]),
        (["open my door"], 0, {"tokens": [5000]}, ["5000", "vocabulary"]),
        (["the " * 16], 0, {}, ["context"]),
    ],
)
def test_what_does_not_fit_is_said(refusing, refuses, carriers, slot, options, pieces):
    model, refuse = refusing("toy:trigger")
    refuses(lambda: whole_vocabulary(model, refuse, carriers, slot, **options), *pieces)
