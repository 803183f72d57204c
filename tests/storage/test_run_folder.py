import hashlib
import io
import json

import numpy as np
import pytest
import xarray as xr
from pyarrow import parquet

from mechinterp import attribute, load_model
from mechinterp.storage.manifests import write_manifest
from mechinterp.storage.parts_folder import PartsFolder
from mechinterp.storage.run_folder import read_manifest, scores_parquet, write_run


def test_a_run_is_written_and_read_back(tmp_path):
    folder = write_run(tmp_path / "run", {"kind": "test"}, {"a.txt": b"one", "b.bin": b"\0\1"})
    assert sorted(f.name for f in folder.iterdir()) == ["a.txt", "b.bin", "manifest.json"]
    manifest = read_manifest(folder)
    assert manifest["kind"] == "test"
    assert {"torch", "mechinterp"} <= set(manifest["versions"])


def test_a_run_may_be_written_again_in_its_place(tmp_path):
    write_run(tmp_path, {"kind": "first"}, {"a.txt": b"one"})
    write_run(tmp_path, {"kind": "second"}, {"a.txt": b"two"})
    assert read_manifest(tmp_path)["kind"] == "second"
    assert (tmp_path / "a.txt").read_bytes() == b"two"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="choose another folder"):
        write_run(tmp_path, {}, {"a.txt": b""})
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_or_missing_file_is_found(tmp_path):
    write_run(tmp_path, {}, {"a.txt": b"one", "b.txt": b"two"})
    (tmp_path / "a.txt").write_bytes(b"onE")
    with pytest.raises(ValueError, match=r"a\.txt is missing or damaged"):
        read_manifest(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(ValueError, match=r"b\.txt is missing or damaged"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="no readable manifest"):
        read_manifest(tmp_path / "nowhere")


def test_the_table_has_a_row_for_each_attributed_cell():
    scores = attribute(load_model("toy:trigger"), "please bring the sesame", 2)
    table = parquet.read_table(io.BytesIO(scores_parquet(scores))).to_pylist()
    assert len(table) == 2 * 4  # two outputs, four words; the start token is not attributed
    assert list(table[0]) == [
        "output",
        "input",
        "output_token",
        "input_token",
        "output_token_id",
        "input_token_id",
        "score",
    ]
    for row in table:
        cell = scores.sel(output=row["output"], input=row["input"])
        assert row["score"] == float(cell)
        assert row["input_token"] == str(cell.input_token.values)
        assert row["output_token_id"] == int(cell.output_token_id)


def test_attributes_are_json(tmp_path):
    scores = attribute(load_model("toy:trigger"), "bring the sesame", 1)
    assert json.loads(json.dumps(scores.attrs)) == scores.attrs
    assert isinstance(scores, xr.DataArray)
    assert np.isnan(scores.values[0, 0])


def test_the_manifest_names_every_file_below_the_folder_and_none_in_the_making(tmp_path):
    write_run(tmp_path, {}, {"a.txt": b"one"})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/manifest.json").write_text("{}")
    (tmp_path / "parts/part-0").write_bytes(b"two")
    (tmp_path / ".b.txt.another_host.1.x").write_bytes(b"half")
    write_run(tmp_path, {}, {"a.txt": b"three"})
    hashes = read_manifest(tmp_path)["files"]
    assert list(hashes) == ["a.txt", "parts/manifest.json", "parts/part-0"]
    assert hashes["a.txt"] == hashlib.sha256(b"three").hexdigest()


def test_names_outside_the_folder_are_refused(tmp_path, refuses):
    (tmp_path / "out.txt").write_bytes(b"one")
    folder = write_run(tmp_path / "run", {"kind": "test"}, {"a.txt": b"one"})
    manifest = read_manifest(folder)
    files = {"../out.txt": manifest["files"]["a.txt"]}
    del manifest["seal"]
    write_manifest(folder, manifest | {"files": files})
    refuses(lambda: read_manifest(folder), "'../out.txt', which is not inside the folder")


def test_a_manifest_that_was_changed_is_refused(tmp_path, refuses):
    folder = write_run(tmp_path, {"kind": "test", "seed": 3}, {"a.txt": b"one"})
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 3', '"seed": 4'))
    refuses(lambda: read_manifest(folder), "manifest.json is damaged, or was changed")


def test_a_damaged_part_below_is_not_sealed(tmp_path, refuses):
    """The manifest of a command names the hashes of parts: not those of damaged ones."""
    write_run(tmp_path, {"kind": "test"}, {})
    parts = PartsFolder(tmp_path / "parts", "example", {})
    parts.save(0, ".txt", b"part")
    parts.finish(1, {})
    write_run(tmp_path, {"kind": "test"}, {"a.txt": b"one"})
    part = next((tmp_path / "parts").glob("part-*"))
    part.write_bytes(b"pard")
    refuses(lambda: write_run(tmp_path, {"kind": "test"}, {"a.txt": b"one"}), "missing or damaged")


def test_the_same_run_twice_has_the_same_bytes(tmp_path):
    """F6: nothing in a folder tells a time."""
    for name in ("one", "two"):
        write_run(tmp_path / name, {"kind": "test"}, {"a.txt": b"one"})
    one, two = ((tmp_path / name / "manifest.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_run_of_before_seals_is_read(tmp_path):
    folder = write_run(tmp_path, {"kind": "test"}, {"a.txt": b"one"})
    manifest = read_manifest(folder)
    for name in ("seal", "layout"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(folder)["kind"] == "test"
