"""Nothing silent, of the input, the question and the context: each call raises, and says why."""

import numpy as np
import torch

from mechinterp import (
    HookError,
    Metric,
    Pair,
    Prompts,
    Site,
    delete_token,
    edit,
    hooked,
    load_model,
    log_prob,
    logit_diff,
    mean,
    patch,
    put,
    read,
    replace_token,
    run,
    sweep,
    sweep_each,
    tokenize,
    zero,
)
from mechinterp.engine import runner
from mechinterp.patching.activation import patch_heads

Z = Site("z", 1)
METRIC = log_prob(1)


# The input


def test_prompts_that_cannot_run(absolute_model, refuses):
    model = absolute_model
    long = torch.zeros(2, 18, dtype=torch.long)
    refuses(lambda: run(model, long), "prompt 0 has 18 tokens", "context of 17", "Shorten it")
    refuses(lambda: run(model, Prompts.from_ids([[1] * 18])), "context of 17")
    refuses(lambda: run(model, torch.tensor([[1, 37]])), "token id 37", "vocabulary of 37")
    refuses(lambda: run(model, torch.tensor([[1, -1]])), "token id -1")
    refuses(lambda: run(model, Prompts.from_ids([[1], [40]])), "token id 40")
    refuses(lambda: Prompts.from_ids([]), "no prompts", "Give at least one")
    refuses(lambda: Prompts.from_ids([[1], []]), "prompt 1 is empty", "at least one token")
    refuses(lambda: run(model, torch.zeros(1, 0, dtype=torch.long)), "prompt 0 is empty")
    refuses(lambda: run(model, "a text"), "no tokenizer", "give token ids", "tokenizer=")
    for wrong in ([], (), [[]], [1, 2.5], [[1], 2]):
        refuses(lambda w=wrong: run(model, w), kind=Exception)


def test_texts_that_cannot_run(refuses):
    model = load_model("toy:trigger")
    refuses(lambda: tokenize(model, ""), "prompt 0 is empty")
    refuses(lambda: tokenize(model, ["please", "  "]), "prompt 1 is empty")
    refuses(lambda: tokenize(model, " ".join(["please"] * 17)), "18 tokens", "context of 17")
    refuses(lambda: tokenize(model, [{"role": "user", "content": "hi"}]), "no chat template")


def test_unaligned_pairs(refuses):
    clean = Prompts.from_ids([[1, 2, 3], [4, 5]], decode=lambda i: f"<{i}>")
    one = Prompts.from_ids([[1, 2, 3]])
    refuses(lambda: Pair(clean, one), "2 clean prompts and 1 corrupt", "one corrupt prompt for")
    short = Prompts.from_ids([[1, 2, 3], [4, 5, 6]])
    says = ["prompt 1 has 2 clean tokens ['<4>', '<5>'] and 3 corrupt", "words of as many tokens"]
    refuses(lambda: Pair(clean, short), *says)
    says = "the corrupt prompts do not name position 'S2'"
    refuses(lambda: Pair(clean.named(S2=0), clean), says, "Name it in both")
    refuses(lambda: Pair(clean, clean.named(S2=0)), "the clean prompts do not name position 'S2'")


# The question


def test_a_sweep_over_what_cannot_be_swept(absolute_model, ragged, refuses):
    def swept(over, arm=lambda **point: zero(Z), metric=METRIC):
        return lambda: sweep(absolute_model, ragged, over, arm, metric)

    refuses(swept({"prompt": [0]}), "'prompt' is a dimension of the result already", "Rename it")
    refuses(swept({"metric": [0]}), "'metric' is a dimension")
    refuses(swept({"layer": []}), "'layer' has no values")
    refuses(swept({"layer": [0], "head": range(0)}), "'head' has no values")
    refuses(lambda: sweep_each(absolute_model, ragged, {}, lambda: (), []), "no metrics")


def test_specs_that_are_none(absolute_model, ragged, as_users_call_it, refuses):
    def swept(arm):
        return lambda: sweep(absolute_model, ragged, {"i": [7]}, arm, METRIC)

    says = ["arm(i=7) gave", "not a tuple of HookSpec", "join them with +"]
    refuses(swept(lambda i: None), *says)
    refuses(swept(lambda i: zero(Z)[0]), *says)
    refuses(swept(lambda i: [*zero(Z)]), *says)
    refuses(swept(lambda i: (zero(Z),)), *says)
    for wrong in (zero(Z)[0], [*zero(Z)], "zero L1.z", (zero,)):
        refuses(lambda w=wrong: run(absolute_model, ragged, w), "specs:", "not a tuple of HookSpec")
        refuses(lambda w=wrong: hooked(absolute_model, w), "specs:", "not a tuple of HookSpec")
    refuses(lambda: edit(Z, "zero"), "edit L1.z", "not a function")


def test_a_metric_that_is_not_finite_says_where_that_began(absolute_model, ragged, refuses):
    def swept(specs, metric=METRIC):
        return lambda: sweep(absolute_model, ragged, {"i": [0, 5]}, lambda i: specs[i], metric)

    inf, nan = float("inf"), float("nan")
    for site, hook in (
        (Site("resid_pre", 1), "blocks.1.hook_resid_pre"),
        (Site("mlp_post", 2, neuron=3), "blocks.2.mlp.hook_post"),
        (Site("embed", pos=1), "hook_embed"),
        (Site("ln_final_normalized"), "ln_final.hook_normalized"),
        (Site("attn_scores", 1, 0, "end"), "blocks.1.attn.hook_attn_scores"),
    ):
        specs = {0: zero(Site("z", 0)), 5: put(site, nan) + read(Site("resid_post", 2))}
        says = ["log_prob is not finite for {'i': 5}", f"put {site}", f"It began at {hook}."]
        if site.act == "attn_scores":  # the library itself puts 0 for a pattern that is nan
            swept(specs)()
            continue
        refuses(swept(specs), *says, kind=HookError)
    specs = {0: zero(Z), 5: put(Site("resid_mid", 1), inf) + delete_token(1) + read(Site("tokens"))}
    refuses(swept(specs), "It began at blocks.1.hook_resid_mid", kind=HookError)
    own = Metric("mine", "x", ("end",), lambda logits: logits[:, 0].sum(-1) / 0)
    refuses(swept({0: (), 5: ()}, own), "mine is not finite", "Every activation is finite")


def test_metrics_that_do_not_fit(absolute_model, ragged, refuses):
    def swept(metric):
        return lambda: sweep(absolute_model, ragged, {"layer": [0]}, lambda layer: zero(Z), metric)

    def own(score):
        return Metric("mine", "x", ("end",), score)

    says = "not one number for each of 3 prompts"
    refuses(swept(own(lambda logits: logits.mean())), "metric mine gave []", says)
    refuses(swept(own(lambda logits: logits[:, 0])), "metric mine gave [3, 37]", says)
    refuses(swept(own(lambda logits: 1.0)), "metric mine gave float", says)
    refuses(swept(log_prob()), "log_prob() has no answer token", "log_prob(token_id)")
    refuses(swept(log_prob([1, 2])), "log_prob: 2 answers for 3 prompts")
    refuses(swept(log_prob(37)), "log_prob: token id 37 is outside the vocabulary of 37")
    refuses(swept(logit_diff(1, -1)), "logit_diff: token id -1")
    refuses(swept(log_prob(1, at="S4")), "'S4'", "end, S2")
    refuses(swept(log_prob(1, at=4)), "position 4 lies outside prompt 1")
    refuses(lambda: logit_diff(1), "logit_diff", "needs the wrong answer")


def test_logits_that_were_not_kept(absolute_model, ragged, refuses):
    done = run(absolute_model, ragged, logits_at=("end", 1))
    says = ["kept logits at ['end', 1], not at [2]", "run(..., logits_at=[2])"]
    refuses(lambda: log_prob(1, at=2)(done), *says, kind=ValueError)
    nothing = lambda: run(absolute_model, ragged, logits_at=())  # noqa: E731
    refuses(nothing, "names no position", "nothing is read")
    refuses(lambda: run(absolute_model, ragged, logits_at=4), "position 4 lies outside prompt 1")


def test_reads_that_do_not_fit_into_memory(absolute_model, ragged, monkeypatch, refuses):
    sites = [Site("pattern", layer) for layer in range(3)]
    needed = 3 * (3 * 4 * 7 * 7 * 4)
    monkeypatch.setattr(runner, "available_bytes", lambda device: needed)
    run(absolute_model, ragged, read(*sites))
    monkeypatch.setattr(runner, "available_bytes", lambda device: needed - 1)
    says = ["the reads need 6.9 KiB", "Read fewer sites", 'pos="end"']
    refuses(lambda: run(absolute_model, ragged, read(*sites)), *says, kind=HookError)
    run(absolute_model, ragged, read(*(Site("pattern", i, pos="end") for i in range(3))))


# The context


def test_a_context_that_cannot_be(absolute_model, ragged, refuses):
    model = absolute_model
    refuses(lambda: hooked(model, delete_token(1)), "delete tokens@1", "Use run(...)")
    refuses(lambda: hooked(model, replace_token(1, 2)), "cannot edit the input")
    says = ["zero L1.z@end", "hooked(model, specs, prompts)"]
    refuses(lambda: hooked(model, zero(Site("z", 1, pos="end"))), *says)
    refuses(lambda: hooked(model, zero(Site("z", 1, pos="S3")), ragged), "'S3'")
    refuses(lambda: hooked(model, zero(Site("z", 1, 4))), "head 4 is out of range")
    refuses(lambda: hooked(model, zero(Site("q_input", 1))), "split_qkv=True")


def test_a_context_whose_specs_do_not_run(absolute_model, attention_only_model, refuses):
    def nothing():
        with hooked(absolute_model, zero(Z)):
            pass

    refuses(nothing, "zero L1.z never ran", kind=HookError)

    def never_passed():
        with hooked(attention_only_model, zero(Site("mlp_out", 0))) as model:
            model(torch.tensor([[1, 2]]))

    refuses(never_passed, "zero L0.mlp_out never ran", "describe(model)", kind=HookError)


def test_a_context_and_other_tokens_than_its_prompts(absolute_model, ragged, refuses):
    def other_tokens():
        with hooked(absolute_model, zero(Site("z", 1, pos="S2")), ragged) as model:
            model(torch.tensor([[1, 2]]))

    refuses(other_tokens, "run on other tokens, [1, 2], than these prompts, [3, 7]")

    def too_short():
        with hooked(absolute_model, zero(Site("z", 1, pos=5))) as model:
            model(torch.tensor([[1, 2, 3, 4, 5, 6]]))
            model(torch.tensor([[1, 2]]))

    refuses(too_short, "zero L1.z@5 never ran", "a sequence ended at position 1")


def test_a_model_that_is_loaded_already(absolute_model, refuses):
    refuses(lambda: load_model(absolute_model), "HookedTransformer already", "use it as it is")
    refuses(lambda: load_model("toy:triger"), '"triger"', 'Did you mean "trigger"?')
    refuses(lambda: load_model(3), "neither a name, a path nor a model")
    refuses(lambda: load_model(torch.nn.Linear(2, 3)), "Linear is not a Hugging Face model")


def test_what_is_fine_is_not_refused(absolute_model, ragged):
    swept = sweep(absolute_model, ragged, {}, lambda: (), log_prob(1))
    alone = log_prob(1)(run(absolute_model, ragged))
    np.testing.assert_allclose(swept.values, alone, atol=1e-5)
    assert swept.dims == ("prompt",)


def test_natural_wrong_guesses(absolute_model, ragged, as_users_call_it, refuses):
    def swept(over=None, metric=METRIC, **options):
        arms = {"layer": [0]} if over is None else over
        return lambda: sweep(absolute_model, ragged, arms, lambda layer: zero(Z), metric, **options)

    for make in (mean, patch):
        refuses(
            lambda m=make: m(Z, ragged),
            "L1.z",
            "give the activations that a run read",
            "not Prompts",
        )
    refuses(lambda: log_prob(" Mary"), "' Mary' is text", "token_id")
    refuses(lambda: Site("z", 0, head=[0, 1]), "one head")
    refuses(swept(over={"layer": 2}), "'layer' is 2", "Give [2]")
    refuses(swept(metric="logit_diff"), "'logit_diff' is no metric")
    refuses(swept(only=[(0, 1)]), "only: a mask", "top_k")
    pair = Pair(ragged, ragged)
    refuses(lambda: patch_heads(absolute_model, (pair,), METRIC), "a Pair", "task(...).pair")
