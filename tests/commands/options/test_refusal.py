"""The options of `mechinterp refusal`: what does not fit together is refused in a sentence."""

import pytest

from mechinterp.commands.options.refusal import RefusalOptions


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a", "families": 8}, "--families is for a study of the model"),
        ({"prompt": "a", "quick": True}, "--quick is for a study of the model"),
        ({"prompt": "a", "find": True}, "--find is for a study of the model"),
        ({"families": 1}, "give at least 4"),
        ({"families": 10**9}, "ask for at most"),
        ({"seed": -1}, "--seed -1"),
        ({"refusals": " ,"}, "--refusals is empty"),
        ({"compliances": ""}, "--compliances is empty"),
    ],
)
def test_what_is_refused(given, said, refuses):
    refuses(lambda: RefusalOptions(**given), said)


def test_files_have_to_be_there(tmp_path, refuses):
    refuses(lambda: RefusalOptions(requests=tmp_path), "--requests", "is no file")
    refuses(lambda: RefusalOptions(prompt="a", study=tmp_path / "x"), "--study", "is no file")
    file = tmp_path / "study.json"
    file.write_text("{}")
    refuses(lambda: RefusalOptions(study=file), "--study goes with a prompt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    refuses(lambda: RefusalOptions(out=tmp_path / "other"), "holds no run")


def test_openers_are_texts_with_commas_between():
    assert RefusalOptions(refusals="I'm sorry, No").openers == (("I'm sorry", "No"), None)
    assert RefusalOptions().kind != RefusalOptions(prompt="a").kind
