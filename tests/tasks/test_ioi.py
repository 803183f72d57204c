import pytest
import torch

from mechinterp.tasks.ioi import NAMES, OBJECTS, PLACES, TEMPLATES, indirect_objects

KINDS = ["pairs", "digits", "words"]


@pytest.fixture(params=KINDS)
def speaker(request):
    return request.getfixturevalue(request.param)


def test_positions_are_the_paper_s(speaker, at, said):
    made = indirect_objects(speaker, n=40)
    clean = made.pair.clean
    assert at(clean, "IO") == said(speaker, made.answers)
    assert at(clean, "S1") == at(clean, "S2") == said(speaker, made.others)
    assert torch.equal(clean.positions("S1+1"), clean.positions("S1") + 1)
    assert bool((clean.positions("S1+1") < clean.positions("S2")).all())
    assert bool((clean.positions("IO") < clean.positions("S2")).all())
    assert set(at(clean, "end")) == {"to"}
    assert set(at(clean, "IO") + at(clean, "S1")) <= set(NAMES)


def test_both_orders_and_several_templates(speaker):
    clean = indirect_objects(speaker, n=40).pair.clean
    io_first = clean.positions("IO") < clean.positions("S1")
    assert 8 < int(io_first.sum()) < 32
    assert len({row[1].strip() for row in clean.token_text}) > 1
    assert len(set(clean.lengths.tolist())) == 1


def test_the_corrupt_prompts_have_three_other_names(speaker, at):
    pair = indirect_objects(speaker, n=40).pair
    corrupt = zip(*(at(pair.corrupt, pos) for pos in ("IO", "S1", "S2")), strict=True)
    clean = zip(*(at(pair.clean, pos) for pos in ("IO", "S1")), strict=True)
    for new, old in zip(corrupt, clean, strict=True):
        assert len({*new, *old}) == 5
        assert {*new} <= set(NAMES)


def test_names_of_several_tokens_never_occur(digits, words):
    def names(model):
        ids = indirect_objects(model, n=400).pair.clean.token_text
        return {word.strip() for row in ids for word in row}

    assert "Mary" not in names(digits)
    assert "Mary" in names(words)


def test_the_metric_is_the_logit_difference(speaker, measured):
    made = indirect_objects(speaker, n=6)
    value, logits = measured(made, speaker)
    by_hand = [
        logits[i, a] - logits[i, b]
        for i, (a, b) in enumerate(zip(made.answers, made.others, strict=True))
    ]
    assert torch.equal(value, torch.stack(by_hand))
    assert made.metric.unit == "logits"


def test_too_few_names_or_places(without, refuses):
    few = without(*NAMES[4:])
    refuses(lambda: indirect_objects(few), "ioi", "names", "only 4", "5 are needed")
    nowhere = without(*PLACES)
    refuses(lambda: indirect_objects(nowhere), "ioi", "places", "only 0")


def test_as_many_as_there_are(without, refuses):
    small = without(*NAMES[5:], *PLACES[1:], *OBJECTS[1:])
    lengths = {t: len(t.replace(",", " ,").replace(".", " .").split()) for t in TEMPLATES}
    most = max(lengths.values(), key=list(lengths.values()).count)
    possible = sum(length == most for length in lengths.values()) * 2 * 5 * 4
    rows = indirect_objects(small, n=possible).pair.clean.tokens.tolist()
    assert len({tuple(row) for row in rows}) == possible
    refuses(
        lambda: indirect_objects(small, n=possible + 1), f"ioi: n={possible + 1}", f"{possible}"
    )
