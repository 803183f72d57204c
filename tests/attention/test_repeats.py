import numpy as np
import pytest
import torch

from mechinterp import Site, load_model, read, run
from mechinterp.attention import head_scores, repeated_blocks, second_block_log_prob
from mechinterp.stats.intervals import interval
from mechinterp.toys import toy


def test_they_are_those_of_a_loop_over_rows(model):
    scores = head_scores(model, length=6, n=3, seeds=(4, 7))
    assert scores.dims == ("score", "layer", "head", "prompt")
    assert scores["seed"].values.tolist() == [4, 4, 4, 7, 7, 7]
    column = 0
    for seed in (4, 7):
        prompts = repeated_blocks(model, 3, seed, length=6)
        for row in range(3):
            begin = 0  # these models have no start token
            for layer in range(3):
                site = Site("pattern", layer)
                pattern = run(model, prompts.tokens[row], read(site)).acts[site][0]
                for head in range(model.cfg.n_heads):
                    a = pattern[head].double()
                    slow = (
                        np.mean([float(a[p, p - 1]) for p in range(begin + 1, 12)]),
                        np.mean([float(a[p, p - 6]) for p in range(6, 12)]),
                        np.mean([float(a[p, p - 5]) for p in range(6, 12)]),
                    )
                    here = scores.values[:, layer, head, column]
                    np.testing.assert_allclose(here, slow, atol=1e-6)
            column += 1


def test_a_block_is_there_twice_and_has_no_special_token():
    planted = toy("trigger")
    model = load_model(planted)
    prompts = repeated_blocks(model, 20, length=8)
    special = {planted.vocabulary.index("<bos>"), planted.vocabulary.index("<unk>")}
    rows = prompts.tokens.tolist()
    for row in rows:
        assert row[0] == planted.vocabulary.index("<bos>")
        assert row[1:9] == row[9:]
        assert len(set(row[1:9])) == 8
        assert not special & set(row[1:])
    assert len({tuple(row) for row in rows}) == 20
    assert prompts.positions("first").tolist() == [1] * 20
    assert prompts.positions("second").tolist() == [9] * 20
    assert not torch.equal(prompts.tokens, repeated_blocks(model, 20, seed=1, length=8).tokens)


@pytest.mark.parametrize("length", [1, 9])
def test_a_block_that_does_not_fit_is_refused(absolute_model, refuses, length):
    refuses(lambda: repeated_blocks(absolute_model, length=length), "has 2 to 8")


def test_heads_that_were_written_by_hand():
    planted = toy("induction")
    scores = interval(head_scores(load_model(planted), length=12, n=4))
    (previous,) = planted.truth.heads["previous_token"]
    (induction,) = planted.truth.heads["induction"]
    for name, place in (("previous token", previous), ("induction", induction)):
        of = scores.sel(score=name)
        assert float(of["low"].sel(layer=place[0], head=place[1])) > 0.99
        rest = of["high"].values.copy()
        rest[place] = 0
        assert rest.max() < 0.2


def test_heads_that_were_trained():
    """Induction stands out; the previous token head has half of its attention there, as stated."""
    planted = toy("induction-trained")
    scores = interval(head_scores(load_model(planted), length=20, n=8))
    (previous,), (induction,) = (planted.truth.heads[r] for r in ("previous_token", "induction"))
    of = scores.sel(score="induction")
    assert float(of["low"].sel(layer=induction[0], head=induction[1])) > 0.9
    assert float(of["high"].sel(layer=previous[0], head=previous[1])) < 0.2
    half = scores.sel(score="previous token", layer=previous[0], head=previous[1])
    assert 0.4 < float(half["low"]) < float(half["high"]) < 0.6
    other = scores.sel(score="previous token", layer=induction[0], head=induction[1])
    assert float(other["high"]) < 0.2
    assert float(scores["high"].sel(score="duplicate token").max()) < 0.2


@pytest.mark.slow
def test_heads_of_a_real_model(smollm2):
    scores = head_scores(smollm2, n=4).mean("prompt")
    best = {
        str(name): np.unravel_index(scores.sel(score=name).values.argmax(), (30, 9))
        for name in scores["score"].values
    }
    assert best == {"previous token": (16, 0), "duplicate token": (14, 3), "induction": (18, 6)}
    for name, value in (("previous token", 0.9), ("duplicate token", 0.61), ("induction", 0.86)):
        assert float(scores.sel(score=name).max()) == pytest.approx(value, abs=0.04)


def test_the_log_probability_of_the_second_block(model):
    prompts = repeated_blocks(model, 3, length=5)
    made = second_block_log_prob(prompts)
    whole = run(model, prompts, logits_at=tuple(range(10))).logits.double().log_softmax(-1)
    tokens = prompts.tokens
    for row in range(3):
        slow = np.mean([float(whole[row, p - 1, tokens[row, p]]) for p in range(6, 10)])
        assert float(made(run(model, prompts, logits_at=made.at))[row]) == pytest.approx(slow)


def test_that_metric_is_of_its_own_prompts(absolute_model, refuses):
    prompts = repeated_blocks(absolute_model, 3, length=5)
    made = second_block_log_prob(prompts)
    fewer = prompts.rows(torch.tensor([0, 1]))
    refuses(lambda: made(run(absolute_model, fewer, logits_at=made.at)), "3 answers for 2 prompts")
