"""Tokenizers of four kinds, made here, on a model that is just large enough to run.

"pairs" and "digits" are byte-level with a space before a word, and read 1732 as 17 and 32, or as
four digits; "words" has no spaces in its tokens and knows whole words only; and none at all.
"""

import warnings

import pytest
import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import PreTrainedTokenizerFast

from mechinterp.tasks.capitals import CAPITALS
from mechinterp.tasks.capitals import TEMPLATE as CAPITAL
from mechinterp.tasks.docstring import ARGUMENTS, DESCRIPTIONS, text
from mechinterp.tasks.greater_than import NOUNS as EVENTS
from mechinterp.tasks.greater_than import START
from mechinterp.tasks.ioi import NAMES, OBJECTS, PLACES, TEMPLATES
from mechinterp.tasks.sva import NOUNS, PREPOSITIONS, VERBS

SPLIT_WORDS = {"Mary", "garden", "war", "France", "London", "children", "near", "data", "price"}
"""Words of the tasks that "pairs" and "digits" do not have as one token."""


def sentences(left_out=()):
    """Text with every word of every task but these, a space before it."""
    words = [*NAMES, *PLACES, *OBJECTS, *EVENTS, *CAPITALS, *CAPITALS.values(), *PREPOSITIONS]
    words += [*ARGUMENTS, *DESCRIPTIONS, *VERBS, *NOUNS, *NOUNS.values()]
    yield from (f"the {word}" for word in words if word not in left_out)
    frames = [*TEMPLATES, START, CAPITAL, "The x the"]
    yield from (
        f.format(A="", B="", S="", place="", object="", noun="", country="") for f in frames
    )
    yield text("x", ["x"] * 6, ["cost"], ["x", "x"], [["x"], ["x"]])
    yield from (f'    """{word}' for word in DESCRIPTIONS if word not in left_out)
    yield from (f"the year {century}{year:02}" for century in range(11, 18) for year in range(100))


def byte_level(before):
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(
        sentences(SPLIT_WORDS),
        BpeTrainer(
            vocab_size=6000,
            special_tokens=["<bos>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def word_level(*left_out):
    splitter = pre_tokenizers.Whitespace()
    pieces = [word for line in sentences() for word, _ in splitter.pre_tokenize_str(line)]
    known = dict.fromkeys(["<bos>", "<unk>", *pieces])
    words = [word for word in known if word not in left_out]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    return tokenizer


def on_a_model(tokenizer, d_vocab=None):
    """A model with random weights and this tokenizer."""
    if tokenizer is not None:
        unk = "<unk>" if tokenizer.token_to_id("<unk>") is not None else None
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<bos>", unk_token=unk
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            n_layers=1,
            d_model=12,
            n_ctx=120,
            d_head=5,
            n_heads=2,
            d_vocab=d_vocab or len(tokenizer),
            attn_only=True,
            seed=0,
            device="cpu",
        )
        model = HookedTransformer(cfg)
    model.tokenizer = tokenizer
    model.cfg.default_prepend_bos = tokenizer is not None
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def pairs():
    return on_a_model(byte_level(pre_tokenizers.Split(Regex(r" ?\d\d"), "isolated")))


@pytest.fixture(scope="session")
def digits():
    return on_a_model(byte_level(pre_tokenizers.Digits(individual_digits=True)))


@pytest.fixture(scope="session")
def words():
    return on_a_model(word_level())


@pytest.fixture(scope="session")
def without():
    """A model whose tokenizer knows whole words, and not these."""
    return lambda *left_out: on_a_model(word_level(*left_out))


@pytest.fixture(scope="session")
def no_tokenizer():
    return lambda d_vocab: on_a_model(None, d_vocab)


@pytest.fixture(scope="session", params=["pairs", "digits"])
def model(request):
    """Each of the two that can do every task."""
    return request.getfixturevalue(request.param)


def words_at(prompts, pos):
    """The word at a position of each prompt, without the space before it."""
    at = prompts.positions(pos).tolist()
    return [row[i].strip() for row, i in zip(prompts.token_text, at, strict=True)]


@pytest.fixture(scope="session")
def at():
    return words_at


@pytest.fixture(scope="session")
def said():
    """The words of token ids, without the space before."""
    return lambda model, ids: [model.tokenizer.decode([i]).strip() for i in ids.tolist()]


class Said:
    """A run of which only the last logits are known."""

    def __init__(self, logits):
        self.logits = logits

    def logits_of(self, at):
        assert at == ("end",)
        return self.logits[:, None]


@pytest.fixture(scope="session")
def measured():
    """The metric of a task on given logits, or on random ones; with these."""

    def measure(task, model, logits=None):
        if logits is None:
            generator = torch.Generator().manual_seed(5)
            logits = torch.randn(len(task.answers), model.cfg.d_vocab, generator=generator)
        return task.metric(Said(logits)), logits

    return measure
