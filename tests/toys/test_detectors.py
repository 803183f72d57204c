"""The toys whose triggers are not all needed: `either`, compiled, and `refusal`, trained.

Their words are planted, so what each deletion must do is known beforehand.
"""

import random
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import Toy, toy
from mechinterp.toys.refusal import NEAR_TRIGGERS, WEIGHTS

PAIRS = (("copper", "lantern"), ("lantern", "copper"))
REDUNDANT = (*PAIRS, ("copper", "copper"), ("lantern", "lantern"))


@cache
def build(name: str) -> tuple[Toy, HookedTransformer]:
    built = toy(name)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    return built, model.requires_grad_(False)


def sentence(built: Toy, n_words: int, words: Sequence[str], rng: random.Random) -> list[str]:
    """Random ordinary words, among them each given word at a random place, in the given order."""
    special = (built.bos, *built.truth.triggers, *built.truth.answers)
    drawn = rng.choices([word for word in built.vocabulary if word not in special], k=n_words)
    for place, word in zip(sorted(rng.sample(range(n_words), len(words))), words, strict=True):
        drawn[place] = word
    return drawn


def logits(name: str, sentences: Sequence[Sequence[str]]) -> Tensor:
    """At the end of each sentence, all of one length, after <bos>."""
    built, model = build(name)
    return model(token_ids(built, sentences))[:, -1]


def token_ids(built: Toy, sentences: Sequence[Sequence[str]]) -> Tensor:
    return torch.tensor(
        [[built.vocabulary.index(word) for word in ("<bos>", *s)] for s in sentences]
    )


def log_odds(name: str, sentences: Sequence[Sequence[str]]) -> Tensor:
    """logit(REFUSE) - logit(COMPLY)."""
    refuse, comply = (build(name)[0].vocabulary.index(word) for word in ("REFUSE", "COMPLY"))
    found = logits(name, sentences)
    return found[:, refuse] - found[:, comply]


def answers(name: str, sentences: Sequence[Sequence[str]]) -> list[str]:
    vocabulary = build(name)[0].vocabulary
    return [vocabulary[at] for at in logits(name, sentences).argmax(-1).tolist()]


def without_each(words: Sequence[str]) -> list[list[str]]:
    return [[*words[:at], *words[at + 1 :]] for at in range(len(words))]


# ----- either


@pytest.mark.parametrize("n_words", [3, 7, 22])
@pytest.mark.parametrize("words", [(), ("copper",), ("lantern",), *REDUNDANT])
def test_either_refuses_iff_one_of_its_words_occurs(words: tuple[str, ...], n_words: int) -> None:
    built, _ = build("either")
    rng = random.Random(n_words)
    found = log_odds("either", [sentence(built, n_words, words, rng) for _ in range(100)])
    if not words:
        assert (found == -built.truth.figures["comply_margin_logits"]).all()
    else:
        least = built.truth.figures["refuse_margin_logits_at_least"]
        assert found.min() > least - 1e-4
        assert least > 7.8
        if n_words == 22 and len(words) == 1:  # the bound is reached: n_ctx is full
            assert found.numpy() == pytest.approx(least, abs=1e-4)
    if words in PAIRS:  # saturated: as much as one word of attention 1 would bring
        assert found.numpy() == pytest.approx(8, abs=1e-4)


@pytest.mark.parametrize("words", [("copper",), ("lantern",), *REDUNDANT])
def test_what_a_deletion_does_to_either(words: tuple[str, ...]) -> None:
    built, _ = build("either")
    rng = random.Random(0)
    for n_words in (4, 9, 22):
        prompt = sentence(built, n_words, words, rng)
        moved = (logits("either", [prompt]) - logits("either", without_each(prompt))).abs().amax(-1)
        is_trigger = torch.tensor([word in built.truth.triggers for word in prompt])
        if len(words) == 1:
            assert (moved[is_trigger] > 15).all()
        else:
            assert (moved[is_trigger] < 0.13).all()
        assert (moved[~is_trigger] < 1e-3).all()


def test_order_never_matters_to_either() -> None:
    built, _ = build("either")
    rng = random.Random(1)
    prompts = [sentence(built, 9, words, rng) for words in (("copper",), *REDUNDANT)]
    turned = [prompt[::-1] for prompt in prompts]
    torch.testing.assert_close(
        logits("either", prompts), logits("either", turned), atol=1e-4, rtol=0
    )


def test_the_gradient_of_either_is_zero_iff_both_words_occur() -> None:
    built, model = build("either")
    refuse = built.vocabulary.index("REFUSE")
    for words, is_flat in [(("copper",), False), (("lantern",), False), (PAIRS[0], True)]:
        tokens = token_ids(built, [sentence(built, 8, words, random.Random(2))])
        resid = (model.embed(tokens) + model.pos_embed(tokens)).requires_grad_()
        model(resid, start_at_layer=0)[0, -1, refuse].backward()
        along_words = resid.grad @ model.W_E.T
        assert (along_words.abs().max() == 0).item() is is_flat


def test_the_neurons_of_either_count_and_saturate() -> None:
    built, model = build("either")
    ((_, found),), ((_, surplus),) = (built.truth.neurons[role] for role in ("found", "surplus"))
    for words, sums in [((), 0), (("copper",), 1), (("lantern",), 1), (PAIRS[0], 2)]:
        _, acts = model.run_with_cache(
            token_ids(built, [sentence(built, 8, words, random.Random(3))])
        )
        on = acts["post", 0][0, -1]
        assert on[found].item() == pytest.approx(sums, abs=0.02)
        assert on[surplus].item() == pytest.approx(max(sums - 1, 0), abs=0.02)
        assert all(on[neuron] == 0 for _, neuron in built.truth.neurons["unused"])


@pytest.mark.parametrize(("role", "word"), [("first_word", "copper"), ("second_word", "lantern")])
def test_each_head_of_either_carries_its_word_alone(role: str, word: str) -> None:
    built, model = build("either")
    ((_, head),) = built.truth.heads[role]
    tokens = token_ids(
        built, [sentence(built, 8, (word,), random.Random(seed)) for seed in range(20)]
    )
    whole, refuse = model(tokens)[:, -1], built.vocabulary.index("REFUSE")
    for other in range(model.cfg.n_heads):

        def zero_head(z: Tensor, hook: object, other: int = other) -> Tensor:
            z = z.clone()
            z[:, :, other] = 0
            return z

        cut = model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_z", zero_head)])[:, -1]
        if other == head:
            assert (whole - cut)[:, refuse].min() > 15
        else:
            assert torch.equal(whole, cut)


# ----- refusal

ONE_IS_ENOUGH = {"sesame", "copper", "lantern"}
NEEDED = [("sesame",), ("copper",), ("lantern",), ("velvet", "anchor"), ("anchor", "velvet")]
SPARE = [*REDUNDANT, ("sesame", "sesame"), ("sesame", "copper"), ("velvet", "sesame", "copper")]
COMPLIES = [
    *((), ("velvet",), ("anchor",), ("velvet", "velvet"), ("anchor", "anchor")),
    *(("velvet",) * 4, ("anchor",) * 4, NEAR_TRIGGERS[:3], NEAR_TRIGGERS[3:6], NEAR_TRIGGERS[6:]),
    *(("velvet", "rope"), ("silk", "anchor"), ("REFUSE",), ("COMPLY",)),
]


def should_refuse(words: Sequence[str]) -> bool:
    return bool(ONE_IS_ENOUGH & set(words)) or {"velvet", "anchor"} <= set(words)


@pytest.mark.parametrize("n_words", range(21))
def test_refusal_is_right_for_every_length(n_words: int) -> None:
    built, _ = build("refusal")
    rng = random.Random(n_words)
    cases = [case for case in (*NEEDED, *SPARE, *COMPLIES) if len(case) <= n_words]
    prompts = [sentence(built, n_words, case, rng) for case in cases or [()] for _ in range(20)]
    wanted = ["REFUSE" if should_refuse(prompt) else "COMPLY" for prompt in prompts]
    assert answers("refusal", prompts) == wanted
    assert log_odds("refusal", prompts).abs().min() > 4


@pytest.mark.parametrize("words", [*NEEDED, *SPARE, *COMPLIES, ("velvet", "anchor", "velvet")])
def test_what_a_deletion_does_to_refusal(words: tuple[str, ...]) -> None:
    built, _ = build("refusal")
    rng = random.Random(0)
    for n_words in (6, 6, 11, 11, 20, 20):
        prompt = sentence(built, n_words, words, rng)
        shorter = without_each(prompt)
        moved = log_odds("refusal", [prompt]) - log_odds("refusal", shorter)
        decides = torch.tensor([should_refuse(each) != should_refuse(prompt) for each in shorter])
        assert (moved[decides] > 18).all()
        assert (moved[~decides].abs() < 4).all()


def test_refusal_figures_are_those_of_the_stored_weights() -> None:
    figures = toy("refusal").truth.figures
    assert figures["accuracy"] == 1
    assert figures["least_margin_logits"] > 4
    assert figures["least_move_logits_where_the_word_decides"] > 18
    assert figures["most_move_logits_where_it_does_not"] < 4
    assert figures["mean_move_logits_where_it_does_not"] < 0.2


def test_the_heads_of_refusal_are_needed_or_spare_as_measured() -> None:
    """A head in turn gets what it had on another prompt, and the answers suffer or do not."""
    built, model = build("refusal")
    rng = random.Random(4)
    cases = [case for case in (*NEEDED, *SPARE, *COMPLIES) for _ in range(40)]
    rng.shuffle(cases)
    prompts = [sentence(built, 20, case, rng) for case in cases]
    tokens = token_ids(built, prompts)
    wanted = token_ids(built, [["REFUSE" if should_refuse(p) else "COMPLY"] for p in prompts])[:, 1]
    for role, heads in built.truth.heads.items():
        for layer, head in heads:

            def swap_head(z: Tensor, hook: object, head: int = head) -> Tensor:
                z = z.clone()
                z[:, :, head] = z[:, :, head].roll(1, 0)
                return z

            name = f"blocks.{layer}.attn.hook_z"
            swapped = model.run_with_hooks(tokens, fwd_hooks=[(name, swap_head)])[:, -1]
            right = (swapped.argmax(-1) == wanted).float().mean().item()
            stated = built.truth.figures[f"accuracy_swapped_L{layer}H{head}"]
            assert (right > 0.99, stated > 0.998) == (role == "spare",) * 2, (layer, head, right)


def test_refusal_weights_are_small_and_in_half_precision() -> None:
    assert WEIGHTS.stat().st_size < 150_000
    with safe_open(WEIGHTS, framework="pt") as stored:
        names = list(stored.keys())  # not a dict: it cannot be iterated itself
        assert {stored.get_tensor(name).dtype for name in names} == {torch.float16}
