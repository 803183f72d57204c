import json

import pytest

from mechinterp import load_model, log_prob, logit_diff, run, token_id, tokenize
from mechinterp.tasks.pair_files import read_pairs

CLEAN, CORRUPT = "please bring the sesame", "please bring the letter"
PAIR = {"clean": CLEAN, "corrupt": CORRUPT, "answer": "REFUSE"}
BOTH = PAIR | {"other": "COMPLY"}


@pytest.fixture(scope="module")
def model():
    return load_model("toy:trigger")


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
        file = tmp_path / "pairs.jsonl"
        file.write_text(text)
        return file

    return write


def test_the_pairs_are_the_texts_tokenised(model, written):
    second = PAIR | {"clean": "open the door", "corrupt": "open the box"}
    pair, _ = read_pairs(model, written(PAIR, "", second))
    for side, texts in (
        (pair.clean, (CLEAN, "open the door")),
        (pair.corrupt, (CORRUPT, "open the box")),
    ):
        wanted = tokenize(model, list(texts))
        assert side.tokens.tolist() == wanted.tokens.tolist()
        assert side.lengths.tolist() == wanted.lengths.tolist() == [5, 4]


def test_the_metric_is_of_each_lines_answer_and_other(model, written):
    swapped = PAIR | {"answer": "COMPLY", "other": "REFUSE"}
    pair, metric = read_pairs(model, written(BOTH, swapped))
    found = metric(run(model, pair.clean))
    one = run(model, CLEAN)
    refuse, comply = token_id(model, "REFUSE"), token_id(model, "COMPLY")
    wanted = float(logit_diff(refuse, comply)(one))
    assert found.tolist() == pytest.approx([wanted, -wanted])
    assert abs(wanted) > 1


def test_without_other_it_is_the_log_probability(model, written):
    pair, metric = read_pairs(model, written(PAIR))
    wanted = log_prob(token_id(model, "REFUSE"))(run(model, CLEAN))
    assert metric(run(model, pair.clean)).tolist() == pytest.approx(wanted.tolist())


def test_positions_by_number_and_by_token_are_named_in_both(model, written):
    first = BOTH | {"positions": {"thing": "sesame", "verb": 2}}
    second = BOTH | {
        "clean": "the sesame",
        "corrupt": "the book",
        "positions": {"verb": 1, "thing": "sesame"},
    }
    pair, _ = read_pairs(model, written(first, second))
    for side in (pair.clean, pair.corrupt):
        assert side.positions("thing").tolist() == [4, 2]
        assert side.positions("verb").tolist() == [2, 1]


def test_the_first_n(model, written):
    pair, _ = read_pairs(model, written(PAIR, PAIR | {"clean": CORRUPT}, "not JSON"), 2)
    assert len(pair.clean) == 2


def without(key):
    return {k: v for k, v in PAIR.items() if k != key}


@pytest.mark.parametrize(
    ("lines", "n", "said"),
    [
        (["{"], None, "line 1: this is not JSON: .* column 2. Write one object a line"),
        ([PAIR, "", "[1]"], None, r"line 3: \[1\] is not an object"),
        ([PAIR, without("corrupt")], None, 'line 2: key "corrupt" is missing'),
        ([PAIR | {"othr": "COMPLY"}], None, 'line 1: key "othr" .* Did you mean "other"'),
        ([PAIR | {"answer": 3}], None, 'line 1: "answer" is 3, not a text'),
        ([PAIR | {"positions": [3]}], None, r'line 1: "positions" is \[3\], not an object'),
        ([PAIR | {"clean": ""}], None, 'line 1: "clean": prompt 0 is empty'),
        (
            [PAIR, PAIR | {"corrupt": "bring the map"}],
            None,
            r"line 2: unaligned pair: clean has 5 tokens \['<bos>', 'please', .*corrupt 4 "
            r"\['<bos>', 'bring', 'the', 'map'\]\. Replace words",
        ),
        ([PAIR | {"answer": "REFUSE me"}], None, 'line 1: "answer": .* is 2 tokens .* not one'),
        ([PAIR | {"other": "zebra"}], None, 'line 1: "other": the tokenizer does not know'),
        ([PAIR | {"other": "REFUSE"}], None, '"answer" and "other" are the same token'),
        ([PAIR, BOTH], None, 'line 1 has no "other", and line 2 has one'),
        ([BOTH, BOTH, PAIR], None, 'line 3 has no "other", and line 1 has one'),
        (
            [PAIR | {"positions": {"a": 1, "b": 2}}, PAIR | {"positions": {"b": 1}}],
            None,
            "line 2 names the positions b, line 1 a, b",
        ),
        ([PAIR | {"positions": {"a": 5}}], None, 'position "a" is 5: a number from 0 to 4'),
        ([PAIR | {"positions": {"a": -1}}], None, 'position "a" is -1'),
        ([PAIR | {"positions": {"a": True}}], None, 'position "a" is True'),
        ([PAIR | {"positions": {"4": 1}}], None, "a number cannot be a name"),
        ([PAIR | {"positions": {"a": "map"}}], None, "the clean prompt has 0 tokens 'map'; its"),
        (
            [PAIR | {"clean": "the map the map", "positions": {"a": "map"}}],
            None,
            r"the clean prompt has 2 tokens 'map', at \[2, 4\]; its tokens are .* Give the number",
        ),
        ([""], None, "has 0 pairs: write one JSON object a line"),
        ([PAIR], 2, "has 1 pairs: 2 were asked for"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(model, written, lines, n, said):
    with pytest.raises(ValueError, match=rf"pairs\.jsonl.*{said}"):
        read_pairs(model, written(*lines), n)


def test_an_unknown_word_of_a_tokenizer_that_refuses_it(written):
    letters = {"clean": "a b", "corrupt": "a c", "answer": "d"}
    induction = load_model("toy:induction")
    for key in letters:
        with pytest.raises(ValueError, match=rf'line 1: "{key}": '):
            read_pairs(induction, written(letters | {key: "zebra"}))


def test_a_word_that_the_tokenizer_reads_as_unknown(written):
    model = load_model("toy:trigger")
    model.tokenizer.unk_token = "<unk>"
    with pytest.raises(ValueError, match='line 2: "corrupt": the tokenizer does not know'):
        read_pairs(model, written(PAIR, PAIR | {"corrupt": "please bring the zebra"}))


def test_a_file_that_is_not_there(model, tmp_path):
    with pytest.raises(ValueError, match=r"none\.jsonl cannot be read"):
        read_pairs(model, tmp_path / "none.jsonl")
