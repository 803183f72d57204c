"""Many prompts: each as alone, files that say what is wrong with them, results by span."""

import json
import random

import numpy as np
import pytest
import torch

from mechinterp import attribute, attribute_each, load_model, log_prob, refusal_log_odds, tokenize
from mechinterp.attribution.methods import batches
from mechinterp.attribution.methods.batches import Case, by_span, read_cases
from mechinterp.core.prompts import Prompts
from mechinterp.stats.intervals import interval

TRIGGER = load_model("toy:trigger")
TEXTS = ["please bring the sesame", "the sesame to me", "bring a map"]


def written(folder, *lines):
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return file


def test_ragged_prompts_padded_together_equal_each_alone(model):
    ids = [[7, 1, 30, 8, 2], [5, 3], [9, 9, 4, 11]]
    together = attribute_each(model, Prompts.from_ids(ids), outputs=2)
    for row, found in zip(ids, together, strict=True):
        alone = attribute(model, torch.tensor(row), 2)
        np.testing.assert_array_equal(found.values, alone.values)
        assert found.sizes["input"] == len(row)


def test_cases_of_a_file(tmp_path):
    file = written(
        tmp_path,
        {"prompt": TEXTS[0], "spans": {"trigger": "sesame", "rest": [[1, 2], "the"]}},
        {"prompt": TEXTS[2], "continuation": "COMPLY", "expect": ["map", [1, 2], 3]},
    )
    first, second = read_cases(file)
    assert first.spans == {"trigger": "sesame", "rest": [(1, 2), "the"]}
    assert second == Case(TEXTS[2], "COMPLY", {}, ("map", (1, 2), 3))
    scores, other = attribute_each(TRIGGER, (first, second), outputs=1)
    assert other.output_token.values.tolist() == ["COMPLY"]
    spans = by_span([scores], [first.spans])
    assert spans.sel(span="trigger").item() == pytest.approx(float(scores[0, 4]))
    assert spans.sel(span="rest").item() == pytest.approx(float(scores[0, 1:4].sum()))


def test_spans_removed_together(tmp_path):
    file = written(
        tmp_path,
        {"prompt": "the sesame and sesame", "spans": {"trigger": "sesame"}},
        {"prompt": TEXTS[0], "spans": {"verb": "bring", "trigger": [3, 4]}},
    )
    found = by_span(attribute_each(TRIGGER, read_cases(file), 1, units="span"))
    assert found.dims == ("prompt", "output", "span")
    assert found.sel(span="trigger").values.ravel().round().tolist() == [8, 8]
    assert np.isnan(found.sel(span="verb").values[0])
    assert found.attrs["unit"] == "nats"


def test_named_positions_and_their_mean_with_an_interval():
    ids = TRIGGER.tokenizer(["bring sesame now", "bring sesame me"])["input_ids"]
    prompts = Prompts.from_ids([[0, *row] for row in ids], roles=[["bos", *["text"] * 3]] * 2)
    prompts = prompts.named(thing=2)
    found = by_span(attribute_each(TRIGGER, prompts, 1), prompts)
    assert found.sizes["span"] == 1
    mean = interval(found.sel(span="thing"))
    assert float(mean["mean"].squeeze()) == pytest.approx(8.0, abs=0.01)


def test_goes_on_from_what_is_finished(tmp_path, monkeypatch):
    out = tmp_path / "results"
    whole = attribute_each(TRIGGER, TEXTS, 1, "resample", out=out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    next(out.glob("part-00001-*.json")).unlink()
    asked = []
    honest = batches.attribute

    def counted(model, prompt, *given, **options):
        asked.append(prompt.lengths.tolist())
        return honest(model, prompt, *given, **options)

    monkeypatch.setattr(batches, "attribute", counted)
    again = attribute_each(TRIGGER, TEXTS, 1, "resample", out=out)
    assert asked == [[5]]
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    assert all(
        one.drop_attrs().identical(other.drop_attrs())
        for one, other in zip(whole, again, strict=True)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": 2},
        {"removal": "mean"},
        {"metric": log_prob(3)},
        {"units": "part"},
        {"inputs": "prompt"},
        {"prompts": TEXTS[::-1]},
        {"model": load_model("toy:and")},
    ],
)
def test_another_calls_folder_is_refused(tmp_path, change):
    asked = {"model": TRIGGER, "prompts": TEXTS, "outputs": 1}
    attribute_each(**asked, out=tmp_path)
    with pytest.raises(ValueError, match="holds other attributions"):
        attribute_each(**(asked | change), out=tmp_path)


@pytest.mark.slow
def test_a_changed_digit_is_never_used(tmp_path):
    """F2: a digit in a finished prompt was changed, and 110 of 150 such changes were used."""
    whole = attribute_each(TRIGGER, TEXTS, 1, out=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    chance = random.Random(0)
    for _ in range(40):
        name = chance.choice([name for name in sorted(before) if name.startswith("part-")])
        text = bytearray(before[name])
        at = chance.choice([at for at, byte in enumerate(text) if 48 <= byte <= 57])
        text[at] = 48 + (text[at] - 48 + chance.randrange(1, 10)) % 10
        (tmp_path / name).write_bytes(text)
        again = attribute_each(TRIGGER, TEXTS, 1, out=tmp_path)
        for one, other in zip(whole, again, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
        assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_results_tell_no_time(tmp_path):
    """F6: with times in them, bytes differed after a kill."""
    attribute_each(TRIGGER, TEXTS, 1, out=tmp_path)
    assert not any(b"seconds" in file.read_bytes() for file in tmp_path.iterdir())


def test_an_error_names_the_prompt():
    with pytest.raises(ValueError, match="prompt 1: span 'trigger': 'sesame' is not among"):
        attribute_each(TRIGGER, [TEXTS[0], TEXTS[2]], 1, units={"trigger": "sesame"})


def test_progress_goes_from_nothing_to_all():
    seen = []
    attribute_each(TRIGGER, TEXTS, 1, progress=lambda *at: seen.append(at))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == 5**2 + 5**2 + 4**2
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"promt": "a"}', r'line 1: key "promt" .* Did you mean "prompt"'),
        ('{"expect": ["a"]}', 'line 1: "prompt" is missing'),
        ('{"prompt": 3}', 'line 1: "prompt" is 3, neither a text nor a list'),
        ('{"prompt": ["a", "b"]}', "line 1: message 0, 'a': each message needs"),
        ('{"prompt": [{"role": "user", "content": null}]}', 'line 1: message 0: its "content" is'),
        ('{"prompt": "a", "continuation": 4}', "line 1: the continuation is 4, not a text"),
        ('{"prompt": "a", "continuation": true}', "line 1: the continuation is True, not a text"),
        ('{"prompt": "a", "continuation": [198]}', "line 1: the continuation is .198., not a text"),
        ('{"prompt": "a", "continuation": {"text": "x"}}', "line 1: the continuation is {'text'"),
        ('{"prompt": "a", "expect": [true]}', "line 1: True is not a span"),
        ('{"prompt": "a", "spans": {"x": [0, true]}}', "line 1: True is not a span"),
        ('{"prompt": "a", "spans": {"x": [1, 2, 3]}}', r"line 1: \[1, 2, 3\] is not a span"),
        ('{"prompt": "a", "expect": "a"}', '"expect" must be a list'),
        ("{", "line 1: this is not JSON"),
        ('{"prompt": "a", "spans": {"x": "a", "x": "b"}}', 'line 1: "x" occurs twice'),
        ("", "has 0 prompts: write one JSON object a line"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    file = tmp_path / "wrong.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=said):
        read_cases(file)


def test_results_that_do_not_belong_together():
    one = attribute(TRIGGER, TEXTS[0], 1)
    odds = refusal_log_odds(TRIGGER, ["REFUSE"], ["COMPLY"])
    other = attribute(TRIGGER, TEXTS[0], 1, metric=odds)
    with pytest.raises(ValueError, match="different metrics"):
        by_span([one, other])
    with pytest.raises(ValueError, match="2 spans for 1 results"):
        by_span([one], [{}, {}])
    with pytest.raises(ValueError, match="prompt 0: span 'x', 'bread', is not attributed"):
        by_span([one], [{"x": "bread"}])
    with pytest.raises(ValueError, match="no results"):
        by_span([])


def test_a_folder_is_refused_where_somebody_has_hooks_on_the_model(tmp_path, absolute_model):
    ids = Prompts.from_ids([[7, 1, 30]])
    attribute_each(absolute_model, ids, 1, out=tmp_path)
    absolute_model.add_hook("blocks.1.hook_resid_post", lambda value, hook: value * 0.3)
    try:
        with pytest.raises(ValueError, match="hooks of other code"):
            attribute_each(absolute_model, ids, 1, out=tmp_path)
    finally:
        absolute_model.reset_hooks()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": ""}, 'line 2: "prompt" is empty'),
        ({"prompt": "the map", "expect": ["bread"]}, "line 2: expect: 'bread' is not among"),
        ({"prompt": "the map", "spans": {"x": [0, 9]}}, r"line 2: span 'x': \(0, 9\) is not"),
    ],
)
def test_a_line_that_cannot_be_is_named_before_any_is_attributed(tmp_path, line, said):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, [{"prompt": "the sesame"}, line])))
    with pytest.raises(ValueError, match=said):
        attribute_each(load_model("toy:trigger"), read_cases(file), 1, out=tmp_path / "out")
    assert not list(tmp_path.glob("out/prompt-*"))


def test_named_positions_need_not_be_attributed(smollm2):
    chat = tokenize(smollm2, [{"role": "user", "content": "Bring it."}])
    (found,) = attribute_each(smollm2, chat.named(turn=0), outputs=1)
    assert found.sizes["output"] == 1
