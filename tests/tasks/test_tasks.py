"""What holds of every task."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mechinterp import run
from mechinterp.tasks import TASKS, task

CHANGED = {
    "ioi": {"IO", "S1", "S2"},
    "docstring": {"A_def", "B_def", "C_def", "A_doc", "B_doc"},
    "sva": {"subject"},
    "capitals": {"subject"},
}
"""Where, and nowhere else, clean and corrupt prompts differ; the others have tests of their own."""

NAMES = {
    "ioi": {"IO", "S1", "S1+1", "S2", "end"},
    "greater-than": {"XX", "YY", "end"},
    "induction": {"first", "induction", "end"},
    "docstring": {"A_def", "B_def", ",_B", "C_def", "A_doc", "B_doc", "end"},
    "sva": {"subject", "attractor", "end"},
    "capitals": {"subject", "end"},
}

every_task = pytest.mark.parametrize("name", TASKS)


def ids(made):
    return [
        [made.pair.clean.tokens.tolist(), made.pair.corrupt.tokens.tolist()],
        {name: at.tolist() for name, at in made.pair.clean.names.items()},
        made.answers.tolist(),
        made.others.tolist(),
    ]


@every_task
def test_prompts_are_as_many_as_asked_for_distinct_and_of_one_length(name, model):
    made = task(name, model, n=13, seed=3)
    rows = [tuple(row) for row in made.pair.clean.tokens.tolist()]
    assert len(rows) == len(set(rows)) == len(made.answers) == len(made.others) == 13
    assert len(set(made.pair.clean.lengths.tolist())) == 1
    assert made.name == name
    assert made.source
    assert made.corruption


@every_task
def test_clean_and_corrupt_are_aligned_and_named_alike(name, model):
    pair = task(name, model, n=13).pair
    assert torch.equal(pair.clean.lengths, pair.corrupt.lengths)
    assert set(pair.clean.names) == set(pair.corrupt.names) == NAMES[name]
    for pos in pair.clean.names:
        assert torch.equal(pair.clean.positions(pos), pair.corrupt.positions(pos))
    assert torch.equal(pair.clean.positions("end"), pair.clean.lengths - 1)
    assert bool(pair.differ.any(1).all())
    if name in CHANGED:
        wanted = torch.zeros_like(pair.differ)
        for pos in CHANGED[name]:
            wanted[torch.arange(13), pair.clean.positions(pos)] = True
        assert torch.equal(pair.differ, wanted)


@every_task
def test_the_start_token_stands_first_and_only_there(name, model):
    pair = task(name, model, n=5).pair
    for prompts in (pair.clean, pair.corrupt):
        assert (prompts.tokens[:, 0] == model.tokenizer.bos_token_id).all()
        assert (prompts.tokens[:, 1:] != model.tokenizer.bos_token_id).all()
        assert prompts.roles == (("bos", *["text"] * (prompts.width - 1)),) * 5


@every_task
def test_without_a_start_token(name, digits, monkeypatch):
    with_it = task(name, digits, n=5).pair.clean
    monkeypatch.setattr(digits.cfg, "default_prepend_bos", False)
    without = task(name, digits, n=5).pair.clean
    assert torch.equal(without.tokens, with_it.tokens[:, 1:])
    for pos in with_it.names:
        assert torch.equal(without.positions(pos), with_it.positions(pos) - 1)


@every_task
def test_answers_are_right_and_wrong_on_a_run(name, model):
    made = task(name, model, n=5)
    clean, corrupt = (
        made.metric(run(model, side)) for side in (made.pair.clean, made.pair.corrupt)
    )
    assert clean.shape == corrupt.shape == (5,)
    assert bool((clean != corrupt).all())
    assert bool((made.answers != made.others).all())


@every_task
def test_a_seed_gives_the_same_and_another_seed_others(name, model):
    assert ids(task(name, model, n=9, seed=4)) == ids(task(name, model, n=9, seed=4))
    assert ids(task(name, model, n=9, seed=4)) != ids(task(name, model, n=9, seed=5))


SCRIPT = """
import json, sys, types, torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from mechinterp.tasks import TASKS, task
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1], bos_token="<bos>")
n = len(tokenizer)
cfg = types.SimpleNamespace(
    n_ctx=120, d_vocab=n, default_prepend_bos=True, attention_dir="causal"
)
model = types.SimpleNamespace(
    tokenizer=tokenizer, cfg=cfg, hook_dict={}, W_E=torch.zeros(n, 1)
)
made = {name: task(name, model, n=6, seed=2) for name in TASKS}
print(json.dumps({name: [t.pair.clean.tokens.tolist(), t.pair.corrupt.tokens.tolist(),
    t.answers.tolist(), t.others.tolist()] for name, t in made.items()}))
"""


@pytest.mark.slow
def test_no_prompt_depends_on_the_hash_seed(digits, tmp_path):
    file = tmp_path / "tokenizer.json"
    digits.tokenizer.backend_tokenizer.save(str(file))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)],
        env={
            **os.environ,
            "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, (clean, corrupt, answers, others) in json.loads(done.stdout).items():
        here = task(name, digits, n=6, seed=2)
        assert ids(here)[0] == [clean, corrupt], name
        assert [here.answers.tolist(), here.others.tolist()] == [answers, others], name


@every_task
@pytest.mark.parametrize("n", [0, -3])
def test_no_prompts(name, n, digits, refuses):
    refuses(lambda: task(name, digits, n=n), f"{name}: n={n}", "Ask for 1 to", kind=ValueError)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "induction"])
def test_text_needs_a_tokenizer(name, no_tokenizer, refuses):
    model = no_tokenizer(50)
    refuses(lambda: task(name, model), f"{name}:", "no tokenizer", "repeated_tokens")


def test_an_unknown_task_names_them_all(digits, refuses):
    refuses(lambda: task("greater_than", digits), 'Did you mean "greater-than"?', kind=ValueError)
    refuses(lambda: task("zebra", digits), *TASKS, kind=ValueError)


ON_SMOLLM2 = {
    # mean on clean above, on corrupt below, share of prompts above 0 at least
    "ioi": (3.5, 1.0, 0.9),
    "greater-than": (0.9, 0.0, 1.0),
    "induction": (-3.0, -10.0, 0.0),
    "docstring": (0.5, -3.0, 0.6),
    "sva": (2.0, -2.0, 0.9),
    "capitals": (8.0, -8.0, 1.0),
}


@pytest.mark.slow
@every_task
def test_smollm2_does_it(name, smollm2):
    made = task(name, smollm2, n=16)
    assert len(set(made.pair.clean.lengths.tolist())) == 1
    clean, corrupt = (made.metric(run(smollm2, s)) for s in (made.pair.clean, made.pair.corrupt))
    above, below, right = ON_SMOLLM2[name]
    assert clean.mean() > above
    assert corrupt.mean() < below
    assert (clean > corrupt).double().mean() > 0.95
    assert (clean > 0).double().mean() >= right
    if name == "ioi":
        assert clean.mean() < 5.5
