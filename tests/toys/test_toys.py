"""The toys do what they say, for the reason they give.

The models are built here: a toy must not need `models.py` to be right.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import TOYS, Edge, Toy, example_inputs, toy
from mechinterp.toys.trained import WEIGHTS

COMPILED = ("induction", "trigger", "and")
DETECTORS = ("trigger", "and")
BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos")


@cache
def build(name: str) -> tuple[Toy, HookedTransformer]:
    built = toy(name)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    missing, unexpected = model.load_state_dict(built.weights, strict=False)
    assert [key for key in missing if key.rpartition(".")[2] not in BUFFERS] == []
    assert unexpected == []
    return built, model.requires_grad_(False)


# ----- prompts


def repeated_blocks(built: Toy, *, n_prompts: int, period: int, seed: int) -> Tensor:
    """<bos> and a block of distinct tokens, twice."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [
        1 + torch.randperm(len(built.vocabulary) - 1, generator=generator)[:period]
        for _ in range(n_prompts)
    ]
    return torch.stack([torch.cat([torch.zeros(1).long(), block, block]) for block in blocks])


def sentences(built: Toy, *, n_words: int, words: tuple[str, ...], seed: int) -> Tensor:
    """100 prompts of random ordinary words, among them each given word at a random place."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = built.vocabulary
    special = (built.bos, *built.truth.triggers, *built.truth.answers)
    plain = torch.tensor([at for at, word in enumerate(vocabulary) if word not in special])
    prompts = plain[torch.randint(len(plain), (100, n_words), generator=generator)]
    for prompt in prompts:
        places = torch.randperm(n_words, generator=generator)[: len(words)]
        prompt[places] = torch.tensor([vocabulary.index(word) for word in words]).long()
    return torch.cat([torch.zeros(100, 1).long(), prompts], dim=1)


def planted(built: Toy) -> Tensor:
    """Prompts on which the whole mechanism of a toy is at work."""
    if built.name == "either":  # each word alone: beside the other neither matters
        alone = [sentences(built, n_words=7, words=(w,), seed=0) for w in built.truth.triggers]
        return torch.cat(alone)
    if built.truth.triggers:
        return sentences(built, n_words=7, words=built.truth.triggers, seed=0)
    return repeated_blocks(built, n_prompts=50, period=9, seed=0)


def answer_margin(built: Toy, logits: Tensor) -> Tensor:
    """Logit of REFUSE minus the largest other, at the last position."""
    refuse = built.vocabulary.index(built.truth.answers[0])
    others = logits[:, -1].clone()
    others[:, refuse] = -torch.inf
    return logits[:, -1, refuse] - others.amax(-1)


def next_margin(tokens: Tensor, logits: Tensor) -> Tensor:
    """Logit of the right next token minus the largest other, over the second repetition."""
    period = (tokens.shape[1] - 1) // 2
    logits = logits[:, period + 1 : -1].clone()
    right = tokens[:, period + 2 :, None]
    logit = logits.gather(2, right).squeeze(2)
    return logit - logits.scatter(2, right, -torch.inf).amax(-1)


# ----- what a toy is


@pytest.mark.parametrize("name", TOYS)
def test_weights_are_a_whole_float32_state_dict_without_buffers(name: str) -> None:
    built, model = build(name)
    assert set(built.weights) == set(dict(model.named_parameters()))
    assert {weight.dtype for weight in built.weights.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in built.weights.values())


@pytest.mark.parametrize("name", TOYS)
def test_vocabulary_fits_the_model_and_can_be_typed(name: str) -> None:
    built, _ = build(name)
    assert len(built.vocabulary) == len(set(built.vocabulary)) == built.config["d_vocab"]
    assert all(word.split() == [word] for word in built.vocabulary)
    assert built.vocabulary[0] == built.bos == "<bos>"
    assert set(built.truth.triggers + built.truth.answers) <= set(built.vocabulary)


@pytest.mark.parametrize("name", TOYS)
def test_sizes_are_all_different(name: str) -> None:
    built, _ = build(name)
    sizes = [size for size in built.config.values() if type(size) is int]
    assert len(sizes) == len(set(sizes)) >= 6


@pytest.mark.parametrize("name", TOYS)
def test_every_head_has_exactly_one_role(name: str) -> None:
    built, model = build(name)
    named = sorted(head for heads in built.truth.heads.values() for head in heads)
    assert named == sorted(itertools.product(range(model.cfg.n_layers), range(model.cfg.n_heads)))


@pytest.mark.parametrize("name", [name for name in TOYS if "trained" not in name])
def test_example_inputs_are_words_of_the_toy(name: str) -> None:
    built, model = build(name)
    prompts = example_inputs(built, 20, seed=1)
    assert len({tuple(words) for words in prompts}) == 20
    assert all(len(words) == len(built.places) < model.cfg.n_ctx for words in prompts)
    assert {word for words in prompts for word in words} <= set(built.vocabulary) - {built.bos}
    assert prompts == example_inputs(built, 20, seed=1) != example_inputs(built, 20, seed=2)
    if built.truth.answers:  # both answers occur
        tokens = [[built.vocabulary.index(word) for word in ("<bos>", *ws)] for ws in prompts]
        chosen = model(torch.tensor(tokens))[:, -1].argmax(-1).unique().tolist()
        assert {built.vocabulary[at] for at in chosen} == set(built.truth.answers)


def test_example_inputs_that_are_not_there() -> None:
    histogram, trained = toy("rasp-histogram"), toy("induction-trained")
    assert len(example_inputs(histogram, 3**6)) == 3**6
    with pytest.raises(ValueError, match=r'^toy "rasp-histogram" has 729 prompts: 730 were'):
        example_inputs(histogram, 730)
    with pytest.raises(ValueError, match=r'^toy "induction-trained" has no prompts of random'):
        example_inputs(trained, 1)


def test_each_call_builds_anew() -> None:
    toy("trigger").weights["unembed.b_U"].fill_(0)
    assert toy("trigger").weights["unembed.b_U"].abs().max() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "inductoin",
            'toy "inductoin": no toy has this name. Did you mean "induction"? '
            f"Toys: {', '.join(TOYS)}.",
        ),
        (
            "x",
            f'toy "x": no toy has this name. Toys: {", ".join(TOYS)}.',
        ),
    ],
)
def test_unknown_name(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        toy(wrong)


# ----- behaviour of the compiled toys


@pytest.mark.parametrize("period", [1, 2, 7, 16])
def test_induction_predicts_every_repeated_token(period: int) -> None:
    built, model = build("induction")
    tokens = repeated_blocks(built, n_prompts=200, period=period, seed=period)
    logits, acts = model.run_with_cache(tokens)
    figures = built.truth.figures
    if period > 1:
        assert next_margin(tokens, logits).min() >= figures["margin_logits_at_least"] > 9
    queries = torch.arange(period + 1, 2 * period + 1)
    copied = acts["pattern", 1][:, 2, queries, queries - period + 1]
    assert copied.min() >= figures["induction_attention_at_least"] > 0.99
    places = torch.arange(1, 2 * period + 1)
    before = acts["pattern", 0][:, 1, places, places - 1]
    assert before.min() >= figures["previous_token_attention_at_least"] > 0.99


def test_induction_splits_between_two_successors() -> None:
    built, model = build("induction")
    a, b, c, x, y = (built.vocabulary.index(letter) for letter in "abcxy")
    logits = model(torch.tensor([[0, a, x, a, y, a, y, b, c, a]]))[0, -1]
    assert logits.topk(2).indices.tolist() == [y, x]
    assert logits[y].item() == pytest.approx(2 * logits[x].item(), rel=0.01)


@pytest.mark.parametrize("n_words", range(3, 13))
@pytest.mark.parametrize("name", DETECTORS)
def test_detector_refuses_iff_all_triggers_occur(name: str, n_words: int) -> None:
    built, model = build(name)
    figures, triggers = built.truth.figures, built.truth.triggers
    for size in range(len(triggers) + 1):
        for words in itertools.combinations(triggers, size):
            tokens = sentences(built, n_words=n_words, words=words, seed=n_words)
            margin = answer_margin(built, model(tokens))
            if words == triggers:
                assert margin.min() >= figures["refuse_margin_logits_at_least"] > 7
            else:
                assert (margin == -figures["comply_margin_logits"]).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_bounds_hold_on_the_longest_prompt(name: str) -> None:
    built, model = build(name)
    tokens = sentences(built, n_words=built.config["n_ctx"] - 1, words=built.truth.triggers, seed=1)
    logits, acts = model.run_with_cache(tokens)
    at_least = built.truth.figures["refuse_margin_logits_at_least"]
    assert answer_margin(built, logits).numpy() == pytest.approx(at_least, abs=1e-4)
    for word, (layer, head) in zip(built.truth.triggers, trigger_heads(built), strict=True):
        attention = acts["pattern", layer][:, head, -1]
        attention = attention[tokens == built.vocabulary.index(word)]
        expected = built.truth.figures["trigger_attention_at_least"]
        assert attention.numpy() == pytest.approx(expected, abs=1e-6)
        assert expected > 0.99


@pytest.mark.parametrize("name", DETECTORS)
def test_only_the_deletion_of_a_trigger_flips_the_answer(name: str) -> None:
    built, model = build(name)
    tokens = sentences(built, n_words=8, words=built.truth.triggers, seed=2)
    triggers = torch.tensor([built.vocabulary.index(word) for word in built.truth.triggers])
    refuse = built.vocabulary.index("REFUSE")
    whole = model(tokens)[:, -1]
    for pos in range(1, tokens.shape[1]):
        deleted = model(torch.cat([tokens[:, :pos], tokens[:, pos + 1 :]], dim=1))[:, -1]
        is_trigger = torch.isin(tokens[:, pos], triggers)
        assert torch.equal(deleted.argmax(-1) != refuse, is_trigger)
        assert (whole - deleted)[~is_trigger].abs().max() < 1e-3 * len(triggers)
        fall = (whole - deleted)[is_trigger, refuse]
        assert (fall > 15).all()


def test_order_never_matters_to_the_trigger() -> None:
    built, model = build("trigger")
    tokens = sentences(built, n_words=9, words=("sesame",), seed=3)
    reverse = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], dim=1)
    torch.testing.assert_close(model(tokens)[:, -1], model(reverse)[:, -1], atol=1e-5, rtol=0)


def test_deleting_one_of_two_triggers_does_not_flip() -> None:
    built, model = build("trigger")
    twice = sentences(built, n_words=9, words=("sesame", "sesame"), seed=4)
    once = torch.stack([delete_first(row, built.vocabulary.index("sesame")) for row in twice])
    assert answer_margin(built, model(twice)).min() > 7
    assert answer_margin(built, model(once)).min() > 7


def test_the_decoy_attends_as_the_trigger_head_does() -> None:
    built, model = build("trigger")
    _, acts = model.run_with_cache(planted(built))
    ((decoy_layer, decoy),), ((layer, head),) = (
        built.truth.heads[role] for role in ("decoy", "trigger")
    )
    assert torch.equal(acts["pattern", decoy_layer][:, decoy], acts["pattern", layer][:, head])


def test_the_and_neuron_is_on_iff_both_words_occur() -> None:
    built, model = build("and")
    ((layer, neuron),) = built.truth.neurons["and"]
    for words in [(), ("copper",), ("lantern",), ("copper", "lantern")]:
        _, acts = model.run_with_cache(sentences(built, n_words=6, words=words, seed=5))
        on = acts["post", layer][:, -1]
        others = [other for _, other in built.truth.neurons["unused"]]
        assert (on[:, others] == 0).all()
        if len(words) == 2:
            assert on[:, neuron].min() > 0.97
        else:
            assert (on[:, neuron] == 0).all()


def trigger_heads(built: Toy) -> list[tuple[int, int]]:
    roles = ("trigger", "first_word", "second_word")
    return [head for role in roles for head in built.truth.heads.get(role, ())]


def delete_first(tokens: Tensor, token_id: int) -> Tensor:
    (at,) = (tokens == token_id).nonzero()[0].tolist()
    return torch.cat([tokens[:at], tokens[at + 1 :]])


# ----- the mechanism: which heads and edges matter


@pytest.mark.parametrize("name", COMPILED)
def test_zeroing_a_head_matters_iff_it_has_a_part(name: str) -> None:
    built, model = build(name)
    tokens = planted(built)
    logits = model(tokens)
    for role, heads in built.truth.heads.items():
        for layer, head in heads:
            without = model.run_with_hooks(
                tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", partial(zero_head, head=head))]
            )
            if role in ("unused", "decoy"):
                assert torch.equal(without, logits)
            elif built.truth.answers:
                assert (answer_margin(built, without) < -7).all()
            else:
                assert (next_margin(tokens, without) < 1).all()


@pytest.mark.parametrize("name", [*COMPILED, "either"])
def test_removing_an_edge_matters_iff_it_is_stated(name: str) -> None:
    built, model = build(name)
    tokens = planted(built)
    logits = model(tokens)
    stated = set(built.truth.edges)
    assert stated <= set(all_edges(model))
    for edge in all_edges(model):
        with reader_inputs(model):
            without = run_without_edge(model, tokens, edge)
        if edge in stated:
            assert (without - logits).abs().amax() > 1, edge
        else:
            assert torch.equal(without, logits), edge


def zero_head(z: Tensor, hook: object, *, head: int) -> Tensor:
    z = z.clone()
    z[:, :, head] = 0
    return z


def all_edges(model: HookedTransformer) -> Iterator[Edge]:
    """Every writer with every reader after it."""
    writers = ["embed"]
    if model.cfg.positional_embedding_type == "standard":
        writers.append("pos_embed")
    for layer in range(model.cfg.n_layers):
        heads = [f"L{layer}H{head}" for head in range(model.cfg.n_heads)]
        readers = [f"{head}.{letter}" for head in heads for letter in "qkv"]
        yield from itertools.starmap(Edge, itertools.product(writers, readers))
        writers += heads
        if not model.cfg.attn_only:
            yield from (Edge(writer, f"L{layer}.mlp") for writer in writers)
            writers.append(f"L{layer}.mlp")
    yield from (Edge(writer, "logits") for writer in writers)


@contextmanager
def reader_inputs(model: HookedTransformer) -> Iterator[None]:
    """Let each reader have an input of its own, for as long as the block runs."""
    model.set_use_split_qkv_input(True)
    if not model.cfg.attn_only:
        model.set_use_hook_mlp_in(True)
    try:
        yield
    finally:
        model.set_use_split_qkv_input(False)
        if not model.cfg.attn_only:
            model.set_use_hook_mlp_in(False)


def run_without_edge(
    model: HookedTransformer,
    tokens: Tensor,
    edge: Edge,
    instead: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> Tensor:
    """Logits when one reader gets `instead` of what one writer wrote; nothing else is touched."""
    written: list[Tensor] = []
    source, write = written_by(model, edge.writer)
    target, head = read_by(model, edge.reader)

    def note(value: Tensor, hook: object) -> None:
        written.append(write(value))

    def remove(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        part = value if head is None else value[:, :, head]
        part += instead(written[0]) - written[0]
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(source, note), (target, remove)])


def written_by(model: HookedTransformer, writer: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    if writer in ("embed", "pos_embed"):
        return f"hook_{writer}", lambda value: value
    layer, is_head, head = writer.removeprefix("L").partition("H")
    if not is_head:
        return f"blocks.{layer.removesuffix('.mlp')}.hook_mlp_out", lambda value: value
    W_O = model.W_O[int(layer), int(head)]
    return f"blocks.{layer}.attn.hook_z", lambda z: z[:, :, int(head)] @ W_O


def read_by(model: HookedTransformer, reader: str) -> tuple[str, int | None]:
    if reader == "logits":
        return f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None
    if reader.endswith(".mlp"):
        return f"blocks.{reader[1:-4]}.hook_mlp_in", None
    head, _, letter = reader.partition(".")
    layer, _, number = head[1:].partition("H")
    return f"blocks.{layer}.hook_{letter}_input", int(number)


# ----- the trained toy


def test_trained_figures_are_those_of_the_stored_weights() -> None:
    built, model = build("induction-trained")
    seen: dict[str, list[Tensor]] = {}
    for period in range(6, 21):
        tokens = repeated_blocks(built, n_prompts=40, period=period, seed=period)
        logits, acts = model.run_with_cache(tokens)
        queries = torch.arange(period + 1, 2 * period)
        found = {
            "accuracy": next_margin(tokens, logits) > 0,
            "previous_token_score": acts["pattern", 0][:, 0, queries, queries - 1],
            "induction_score": acts["pattern", 1][:, 0, queries, queries - period + 1],
        }
        for layer in range(2):
            without = model.run_with_hooks(
                tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", partial(zero_head, head=0))]
            )
            found[f"accuracy_zero_L{layer}H0"] = next_margin(tokens, without) > 0
        for figure, values in found.items():
            seen.setdefault(figure, []).append(values.float().flatten())
    for figure, parts in seen.items():
        stated = built.truth.figures[figure]
        assert torch.cat(parts).mean().item() == pytest.approx(stated, abs=0.02), figure


def test_trained_figures_show_induction_by_both_heads() -> None:
    figures = toy("induction-trained").truth.figures
    assert figures["accuracy"] >= 0.999
    assert figures["induction_score"] > 0.97
    for layer, ablation in itertools.product(range(2), ("zero", "mean")):
        assert figures[f"accuracy_{ablation}_L{layer}H0"] < 0.15


def test_trained_edges_are_those_that_carry_the_prompt() -> None:
    """Each edge in turn carries what it would on another prompt; only stated ones matter."""
    built, model = build("induction-trained")
    tokens = planted(built)
    accuracy = {}
    for edge in all_edges(model):
        with reader_inputs(model):
            without = run_without_edge(model, tokens, edge, instead=lambda value: value.roll(1, 0))
        accuracy[edge] = (next_margin(tokens, without) > 0).float().mean().item()
    assert {edge for edge, value in accuracy.items() if value < 0.98} == set(built.truth.edges)
    assert all(accuracy[edge] < 0.8 for edge in built.truth.edges)


def test_trained_weights_are_small_and_in_half_precision() -> None:
    assert WEIGHTS.stat().st_size < 400_000
    with safe_open(WEIGHTS, framework="pt") as stored:
        names = list(stored.keys())  # not a dict: it cannot be iterated itself
        assert {stored.get_tensor(name).dtype for name in names} == {torch.float16}
