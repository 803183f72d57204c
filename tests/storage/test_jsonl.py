"""Lines of JSON: what ends one, what is refused by its line, and what is never read whole."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.storage import jsonl
from mechinterp.storage.jsonl import filled_lines, read_objects

KEYS, EXAMPLE = ("prompt", "spans"), '{"prompt": "..."}'


@pytest.fixture
def written(tmp_path):
    def write(content, name="prompts.jsonl"):
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_ends_with_a_line_feed_alone(written, end):
    texts = ["one\u2028two", "three\u2029four", "five\u0085six"]
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in texts]
    found = read_objects(written("\ufeff" + end.join([*lines, "", "  "])), KEYS, EXAMPLE)
    assert [record.values["prompt"] for record in found] == texts
    assert [record.number for record in found] == [1, 2, 3]


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6)


@given(texts=TEXTS, ascii_only=st.booleans())
def test_what_json_writes_is_read_back(tmp_path_factory, texts, ascii_only):
    lines = [json.dumps({"prompt": text}, ensure_ascii=ascii_only) for text in texts]
    file = tmp_path_factory.mktemp("texts") / "prompts.jsonl"
    file.write_bytes("\n".join(lines).encode())
    assert [r.values["prompt"] for r in read_objects(file, KEYS, EXAMPLE)] == texts


def test_plain_lines_too(written):
    file = written("one\u2028two\r\n\r\n \nthree\x0cfour\rfive")
    assert list(filled_lines(file)) == [(1, "one\u2028two"), (4, "three\x0cfour\rfive")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "this is not JSON: .* column 2. Write one object a line, such as"),
        ('{"prompt": "a"}\r{"prompt": "b"}', "this is not JSON: Extra data"),
        ('["a"]', r"\['a'\] is not an object with the keys prompt, spans"),
        ('{"promt": "a"}', 'key "promt" is none of prompt, spans. Did you mean "prompt"'),
        ('{"prompt": "a", "prompt": "b"}', '"prompt" occurs twice in one object'),
        ('{"prompt": "a", "spans": {"x": 1, "x": 2}}', '"x" occurs twice in one object'),
        ('{"prompt": NaN}', "NaN is not JSON"),
        ('{"prompt": ' + "1" * 5000 + "}", "a number of 5000 digits"),
        ('{"prompt": "\\ud83d"}', "half a character"),
        ('{"prompt": ' + "[" * 100_000, "too deeply nested"),
        ('{"prompt": ' + '{"a":' * 100_000, "too deeply nested"),
    ],
)
def test_what_is_refused_names_file_and_line(written, line, said):
    file = written('{"prompt": "first"}\n\n' + line)
    with pytest.raises(ValueError, match=rf"prompts\.jsonl, line 3: .*{said}"):
        read_objects(file, KEYS, EXAMPLE)


def test_a_character_of_two_halves_is_whole(written):
    (found,) = read_objects(written('{"prompt": "\\ud83d\\ude00"}'), KEYS, EXAMPLE)
    assert found.values == {"prompt": "😀"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "prompt,label\nx,y\n", r"a\.csv, line 1: a \.csv file is not one of JSON lines"),
        ("a.json", "{\n", r"a \.json file is not one of JSON lines"),
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), r"a\.jsonl is UTF-16. Save it"),
        ("a.jsonl", b"\x1f\x8b\x08rest", "is compressed with gzip"),
        ("a.parquet", b"PAR1rest", "is a Parquet file"),
        (
            "a.jsonl",
            b'{"prompt": "x"}\n{"prompt": "caf\xe9"}',
            r"line 2 is not UTF-8: byte 0xe9 at",
        ),
        ("a.jsonl", b"", "has 0 prompts: write one JSON object a line"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(written, name, content, said):
    with pytest.raises(ValueError, match=said):
        read_objects(written(content, name), KEYS, EXAMPLE)


def test_a_file_that_cannot_be_read(tmp_path):
    for file in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ValueError, match=r"cannot be read: (No such file|Is a directory)"):
            read_objects(file, KEYS, EXAMPLE)


def test_a_name_alone_does_not_refuse(written):
    assert len(read_objects(written('{"prompt": "a"}', "a.txt"), KEYS, EXAMPLE)) == 1


def test_only_the_first_n_are_read(written):
    file = written('{"prompt": "a"}\n{"prompt": "b"}\nnot JSON')
    assert len(read_objects(file, KEYS, EXAMPLE, n=2)) == 2
    with pytest.raises(ValueError, match="has 1 pairs: 2 were asked for"):
        read_objects(written('{"prompt": "a"}'), KEYS, EXAMPLE, n=2, noun="pairs")


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "long.jsonl"
    with file.open("wb") as long:
        long.write(b'{"prompt": "a"}\n["')
        long.truncate(1 << 30)  # a gigabyte that takes no place on disk
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="line 2 is longer than 4,194,304 bytes"):
            read_objects(file, KEYS, EXAMPLE)
        assert tracemalloc.get_traced_memory()[1] < 8 * jsonl.MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
