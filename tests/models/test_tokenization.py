import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import Prompts, load_model, token_id, tokenize
from mechinterp.models.tokenization import NO_CHARACTER, decoder
from mechinterp.toys import TOYS


@pytest.fixture(scope="module")
def trigger():
    return load_model("toy:trigger")


def words(prompts):
    return [list(row) for row in prompts.token_text]


@pytest.mark.parametrize("name", TOYS)
def test_the_start_token_comes_once(name):
    model = load_model(f"toy:{name}")
    first, second = [w for w in model.tokenizer.get_vocab() if not w.startswith("<")][:2]
    start = [] if model.tokenizer.bos_token is None else [model.tokenizer.bos_token]
    for text in (f"{first} {second}", " ".join([*start, first, second])):
        prompts = tokenize(model, text)
        assert words(prompts) == [[*start, first, second]]
        assert prompts.roles == (("bos",) * len(start) + ("text", "text"),)
    unmarked = load_model(f"toy:{name}")
    unmarked.cfg.default_prepend_bos = False
    assert words(tokenize(unmarked, f"{first} {second}")) == [[first, second]]


def test_every_form_of_a_prompt(trigger):
    text, other = "please bring the sesame", "please bring"
    one = tokenize(trigger, text)
    assert one.lengths.tolist() == [5]
    assert words(tokenize(trigger, [text, other])) == [
        ["<bos>", "please", "bring", "the", "sesame"],
        ["<bos>", "please", "bring"],
    ]
    assert words(tokenize(trigger, (other,))) == [["<bos>", "please", "bring"]]
    ids = one.tokens[0]
    for tensor in (ids, ids[None], ids.to(torch.int32)):
        assert words(tokenize(trigger, tensor)) == words(one)
        assert tokenize(trigger, tensor).roles == (("bos", *("text",) * 4),)
    assert tokenize(trigger, ids[1:]).roles == (("text",) * 4,)  # as it is, nothing added
    several = torch.stack([ids, ids.flip(0)])
    assert torch.equal(tokenize(trigger, several).tokens, several)
    assert tokenize(trigger, one) is one
    by_hand = Prompts.from_ids([[1, 2], [3]])
    assert tokenize(trigger, by_hand) is by_hand


def test_texts_of_different_lengths_are_padded_on_the_right(trigger):
    prompts = tokenize(trigger, ["please", "please bring the"])
    assert prompts.lengths.tolist() == [2, 4]
    assert prompts.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert prompts.tokens.device == trigger.W_E.device


def test_unknown_words():
    induction = load_model("toy:induction")
    assert "<unk>" not in induction.tokenizer.get_vocab()
    with pytest.raises(ValueError, match="prompt 1, 'a b zebra', does not tokenise"):
        tokenize(induction, ["a b", "a b zebra"])
    with pytest.warns(UserWarning, match="does not know 'zebra'"):
        prompts = tokenize(load_model("toy:trigger"), "please bring zebra")
    assert words(prompts)[0][-1] == "<unk>"


def test_what_is_no_prompt(trigger):
    for wrong in ([], [[]], [3.5]):
        with pytest.raises(Exception, match=r"is not a prompt|type|is empty"):
            tokenize(trigger, wrong)
    with pytest.raises(ValueError, match="no chat template: give the prompt as text"):
        tokenize(trigger, [{"role": "user", "content": "please"}])


def test_a_text_that_is_one_token(trigger):
    assert token_id(trigger, "sesame") == trigger.tokenizer.get_vocab()["sesame"]
    with pytest.raises(ValueError, match=r"'please bring' is 2 tokens \['please', 'bring'\]"):
        token_id(trigger, "please bring")
    with pytest.raises(ValueError, match="'' is 0 tokens"):
        token_id(trigger, "")


def test_a_model_without_a_tokenizer(absolute_model):
    prompts = tokenize(absolute_model, torch.tensor([[3, 1]]))
    assert prompts.token_text == (("3", "1"),)
    for asks in (lambda: tokenize(absolute_model, "a"), lambda: token_id(absolute_model, "a")):
        with pytest.raises(ValueError, match=r"no tokenizer: give token ids, or load_model\("):
            asks()


CHAT_MARKS = "{{'<bos>'}}{% for m in messages %} please {{CONTENT}} the {% endfor %}{{'bring'}}"


@pytest.fixture
def chatting():
    """A toy with a template whose own words are also words of the messages."""

    def with_template(content):
        model = load_model("toy:trigger")
        model.tokenizer.chat_template = CHAT_MARKS.replace("CONTENT", content)
        return model

    return with_template


@pytest.mark.parametrize("content", ["m['content']", "m['content'] | trim"])
def test_the_roles_of_a_chat(chatting, content):
    model = chatting(content)
    chat = [
        {"role": "user", "content": "sesame the"},
        {"role": "user", "content": "  please  "},
        {"role": "user", "content": "bring"},
    ]
    prompts = tokenize(model, chat)
    wanted = "<bos> please sesame the the please please the please bring the bring"
    assert words(prompts) == [wanted.split()]
    assert prompts.positions_of("text") == [2, 3, 6, 9]
    assert set(prompts.roles[0]) == {"text", "template"}
    two = tokenize(model, [chat, chat[2:]])
    assert two.lengths.tolist() == [12, 5]
    assert two.roles[1] == ("template", "template", "text", "template", "template")


@pytest.mark.parametrize(
    "content",
    [
        "m['content'] | upper",
        "m['content'] | replace('the', 'bring')",
        "m['content'] ~ ' ' ~ m['content']",
        "'bring'",
        "(m['content'] if loop.first else '')",
    ],
)
def test_a_template_that_alters_what_was_written(chatting, content):
    chat = [{"role": "user", "content": c} for c in ("please the", "book")]
    with pytest.raises(ValueError, match=r"the chat template does not show '.*' as written"):
        tokenize(chatting(content), chat)


def test_a_template_that_shows_a_content_twice(chatting):
    model = chatting("m['content'] ~ ' ' ~ m['content']")
    with pytest.raises(ValueError, match="the chat template does not show 'book' as written"):
        tokenize(model, [{"role": "user", "content": "book"}])


def test_chats_that_cannot_be(chatting):
    model = chatting("m['content']")
    with pytest.raises(ValueError, match='each message needs "role" and "content"'):
        tokenize(model, [{"role": "user"}])
    with pytest.raises(ValueError, match=r'message 1: its "content" is None.* write ""'):
        tokenize(model, [{"role": "user", "content": "a"}, {"role": "user", "content": None}])
    model.tokenizer.chat_template = "{{ raise_exception('only users speak here') }}"
    with pytest.raises(ValueError, match="does not take these messages: only users speak here"):
        tokenize(model, [{"role": "system", "content": "please"}])


def test_half_a_character_is_none(chatting):
    model = chatting("m['content']")
    for prompt in ("the \udce9", [{"role": "user", "content": "the \ud83d"}]):
        with pytest.raises(
            ValueError, match=r"prompt 0.*is half a character, or a byte that is no"
        ):
            tokenize(model, prompt)


def test_a_content_in_parts_is_their_text(chatting):
    model = chatting("m['content']")
    parts = [{"type": "text", "text": "please "}, {"type": "text", "text": "the"}]
    found = tokenize(model, [{"role": "user", "content": parts}])
    wanted = tokenize(model, [{"role": "user", "content": "please the"}])
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert found.roles == wanted.roles


@pytest.mark.parametrize("content", ["m['content']", "m['content'] | trim"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_message_without_text_has_no_token_of_the_user(chatting, content, blank):
    chat = [{"role": "system", "content": blank}, {"role": "user", "content": "sesame the"}]
    prompts = tokenize(chatting(content), chat)
    assert " ".join(words(prompts)[0]) == "<bos> please the please sesame the the bring"
    assert prompts.positions_of("text") == [4, 5]


def test_a_template_may_leave_out_a_message_without_text(chatting):
    content = "'' }}{% if m['content'] %}{{ 'book ' ~ m['content'] }}{% endif %}{{ ''"
    chat = [{"role": "system", "content": ""}, {"role": "user", "content": "sesame"}]
    prompts = tokenize(chatting(content), chat)
    assert " ".join(words(prompts)[0]) == "<bos> please the please book sesame the bring"
    assert prompts.positions_of("text") == [5]


@pytest.mark.slow
def test_smollm2_text(smollm2):
    texts = ["Hello world, 123 + 4", " The cat", "<|endoftext|>The cat", "naïve", "a\n\nb  c"]
    prompts = tokenize(smollm2, texts)
    for row, text in enumerate(texts):
        tokens, roles = prompts.token_text[row], prompts.roles[row]
        assert tokens[0] == "<|endoftext|>"
        assert "<|endoftext|>" not in tokens[1:]
        assert roles == ("bos",) + ("text",) * (len(tokens) - 1)
        assert "".join(tokens[1:]) == text.removeprefix("<|endoftext|>")
    digits = tokenize(smollm2, "x 2024").token_text[0]
    assert digits == ("<|endoftext|>", "x", " ", "2", "0", "2", "4")
    assert decoder(smollm2)(token_id(smollm2, " Paris")) == " Paris"
    with pytest.raises(ValueError, match=r"is \d tokens .*, not one"):
        token_id(smollm2, " Parisienne")


@pytest.mark.slow
def test_smollm2_chat(smollm2):
    # "a", "user" and "You are" are words of the template too.
    for content in ("What is the capital of France?", "a", "user", "You are", "system"):
        prompts = tokenize(smollm2, [{"role": "user", "content": content}])
        tokens, roles = prompts.token_text[0], prompts.roles[0]
        at = prompts.positions_of("text")
        assert "".join(tokens[i] for i in at) == content
        assert at == list(range(at[0], at[0] + len(at)))
        assert set(roles) == {"text", "template"}
        assert "".join(tokens[: at[0]]).endswith("<|im_start|>user\n")
        assert "".join(tokens[at[-1] + 1 :]) == "<|im_end|>\n<|im_start|>assistant\n"
    several = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "brief?"},
        {"role": "assistant", "content": "Be brief."},
        {"role": "user", "content": "user"},
    ]
    prompts = tokenize(smollm2, several)
    text = "".join(prompts.token_text[0][i] for i in prompts.positions_of("text"))
    assert text == "Be brief.brief?Be brief.user"
    wanted = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in several)
    assert "".join(prompts.token_text[0]) == wanted + "<|im_start|>assistant\n"


MIXED = "Привет, 你好世界 🎉👩‍👩‍👧 ñandú "


@pytest.mark.filterwarnings("ignore:prompt 0. the tokenizer has no token")
@settings(max_examples=4 * settings.default.max_examples)
@given(st.one_of(st.text(min_size=1), st.text(st.sampled_from(MIXED), min_size=1)))
def test_the_texts_of_tokens_joined_are_that_of_the_row(smollm2, text):
    prompts = tokenize(smollm2, text)
    row = smollm2.tokenizer.decode(prompts.tokens[0].tolist())
    assert "".join(prompts.token_text[0]) == row


def test_a_character_of_several_tokens_is_that_of_the_first(smollm2):
    prompts = tokenize(smollm2, "say 世")
    assert prompts.token_text[0][1:] == ("say", " ", "世", "")
    ids = prompts.tokens[0].tolist()
    assert prompts.texts(ids[:-1])[-1] == NO_CHARACTER  # without its last byte it is none
    assert prompts.texts(ids[:-1])[1] == "say"


def test_what_the_tokenizer_leaves_out_is_said(smollm2):
    with pytest.warns(UserWarning, match=r"prompt 1: the tokenizer has no token for '\\x06'"):
        assert tokenize(smollm2, ["a b", "a\x06b"]).lengths.tolist() == [3, 3]
    with pytest.warns(UserWarning, match=r"prompt 0: the tokenizer has no token for '\\x06'"):
        tokenize(smollm2, [{"role": "user", "content": "a\x06b"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(smollm2, [{"role": "user", "content": "你好世界"}])
        tokenize(smollm2, "Привет, 你好世界 🎉 ñandú\n\tand so on")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("please bring the sesame cheese", "'cheese'"),
        ("Bring the cheese and the wine and the cheese", "'Bring', 'cheese', 'wine'"),
    ],
)
def test_a_word_that_the_model_does_not_know_is_named(text, named):
    model = load_model("toy:trigger")
    with pytest.warns(UserWarning, match=f"prompt 0: the model does not know {named}: .*<unk>"):
        prompts = tokenize(model, text)
    assert prompts.tokens.shape == (1, 1 + len(text.split()))


def test_a_token_that_is_written_out_is_no_unknown_word():
    tokenize(load_model("toy:trigger"), "please bring the <unk>")  # no warning
