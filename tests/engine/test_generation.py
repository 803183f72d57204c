"""The greedy continuation equals that of whole passes."""

import torch

from mechinterp import load_model, tokenize
from mechinterp.engine.generation import generate_greedy, generate_sampled


def test_greedy_continues_as_the_whole_passes_would(model):
    for start in ([3, 1, 4], [7]):
        ids = list(start)
        made = generate_greedy(model, tokenize(model, torch.tensor(ids)), 6)
        for token in made:
            assert token == int(model(torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)
        assert len(made) == 6
    assert generate_greedy(model, tokenize(model, torch.tensor([3])), 0) == []


def test_greedy_with_somebody_elses_hooks(absolute_model):
    prompts = tokenize(absolute_model, torch.tensor([3, 1, 4]))
    last = absolute_model.blocks[2].hook_resid_post
    handle = last.register_forward_hook(lambda module, args, value: value.flip(-1))
    try:
        made, ids = generate_greedy(absolute_model, prompts, 5), [3, 1, 4]
        for token in made:
            assert token == int(absolute_model(torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)
    finally:
        handle.remove()
    assert made != generate_greedy(absolute_model, prompts, 5)


def test_greedy_ends_at_the_end_token():
    model = load_model("toy:trigger")
    prompts = tokenize(model, "please bring the sesame")
    free = generate_greedy(model, prompts, 4)
    assert len(free) == 4
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(free[1])
    assert generate_greedy(model, prompts, 4) == free[: free.index(free[1]) + 1]


def test_draws_are_those_of_the_logits(model):
    """With a high temperature all tokens come; with a low one, the greedy ones; a seed repeats."""
    prompts = tokenize(model, torch.tensor([3, 1, 4]))
    n = 6
    greedy = generate_greedy(model, prompts, n)
    assert generate_sampled(model, prompts, n, seed=1, temperature=1e-4) == greedy
    drawn = [generate_sampled(model, prompts, n, seed=s, temperature=1e6) for s in range(4)]
    assert len({token for row in drawn for token in row}) > 12
    assert drawn[2] == generate_sampled(model, prompts, n, seed=2, temperature=1e6)


def test_no_temperature_is_no_draw(absolute_model, refuses):
    prompts = tokenize(absolute_model, torch.tensor([3, 1, 4]))
    refuses(lambda: generate_sampled(absolute_model, prompts, 2, seed=0, temperature=0.0), "greedy")
