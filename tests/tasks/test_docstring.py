import ast
import re

import pytest
import torch

from mechinterp.tasks.docstring import ARGUMENTS, DESCRIPTIONS, docstring_arguments


def texts(prompts):
    return [
        "".join(row).removeprefix("<bos>").removeprefix("<|endoftext|>")
        for row in prompts.token_text
    ]


def parsed(text):
    """Arguments of the definition, and of the docstring: by Python's own parser."""
    (function,) = ast.parse(f'{text} """').body
    return [a.arg for a in function.args.args], re.findall(
        r":param (\w+):", ast.get_docstring(function)
    )


def check(made, model, at, said):
    for side in (made.pair.clean, made.pair.corrupt):
        arguments, documented = zip(*map(parsed, texts(side)), strict=True)
        assert all(a[0] == "self" and len(set(a)) == 7 for a in arguments)
        for index, name in ((3, "A_def"), (4, "B_def"), (5, "C_def")):
            assert at(side, name) == [a[index] for a in arguments]
        assert at(side, "A_doc") == [d[0] for d in documented]
        assert at(side, "B_doc") == [d[1] for d in documented]
        assert set(at(side, ",_B")) == {","}
        assert torch.equal(side.positions(",_B"), side.positions("B_def") + 1)
        assert set(at(side, "end")) == {"param"}
    clean, corrupt = made.pair.clean, made.pair.corrupt
    assert at(clean, "A_def") == at(clean, "A_doc")
    assert at(clean, "B_def") == at(clean, "B_doc")
    assert at(clean, "C_def") == said(model, made.answers)
    assert at(corrupt, "C_def") == said(model, made.others)


def test_positions_are_the_post_s(model, at, said):
    check(docstring_arguments(model, n=30), model, at, said)


@pytest.mark.slow
def test_on_smollm2(smollm2, at, said):
    check(docstring_arguments(smollm2, n=20), smollm2, at, said)


def test_the_corrupt_names_are_all_new(model):
    pair = docstring_arguments(model, n=30).pair
    for clean, corrupt in zip(*map(texts, (pair.clean, pair.corrupt)), strict=True):
        (given, _), (other, documented) = parsed(clean), parsed(corrupt)
        assert other[:3] + other[6:] == given[:3] + given[6:]
        new = other[3:6] + documented
        assert len(set(new)) == 5
        assert not {*new} & {*given}


def test_the_metric_is_the_difference_to_the_best_wrong_argument(model, measured):
    made = docstring_arguments(model, n=30)
    value, logits = measured(made, model)
    pairs = zip(*map(texts, (made.pair.clean, made.pair.corrupt)), strict=True)
    for row, (clean, corrupt) in enumerate(pairs):
        (given, _), (other, documented) = parsed(clean), parsed(corrupt)
        wrong = {*given[1:], *other[1:], *documented} - {given[5]}
        assert len(wrong) == 10
        best = max(float(logits[row, model.tokenizer(f" {w}")["input_ids"][-1]]) for w in wrong)
        right = float(logits[row, made.answers[row]])
        assert float(value[row]) == pytest.approx(right - best, abs=1e-6)


def test_words_of_several_tokens_never_occur(digits):
    found = " ".join(texts(docstring_arguments(digits, n=200).pair.clean))
    assert not re.search(r"\b(data|price)\b", found)
    assert re.search(r"\bname\b", found)


def test_names_and_descriptions_share_no_word():
    assert not {*ARGUMENTS} & {*DESCRIPTIONS}


def test_too_few_names(without, refuses):
    refuses(
        lambda: docstring_arguments(without(*ARGUMENTS[11:])),
        "docstring",
        "names",
        "only 11",
        "12 are",
    )


def test_a_tokenizer_without_the_layout(words, refuses):
    """Its tokens hold no white space, but the names stand where they should."""
    assert docstring_arguments(words, n=3).pair.clean.lengths.tolist()[0] > 30
    refuses(lambda: docstring_arguments(words, n=0), "docstring: n=0")
