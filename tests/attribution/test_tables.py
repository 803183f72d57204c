"""`to_dataframe` has the numbers of the result, `to_json` and `from_json` lose nothing."""

import contextlib
import io
import json
import math
import random

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import parquet

from mechinterp import Site, attribute, load_model, log_prob, sweep, zero
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.question.definition import ask
from mechinterp.attribution.tables import from_json, to_dataframe, to_json
from mechinterp.stats.intervals import interval
from mechinterp.storage.run_folder import scores_parquet

NAN = math.nan


@pytest.fixture(scope="module")
def trigger():
    return load_model("toy:trigger")


@pytest.fixture(scope="module")
def scores(trigger):
    return attribute(trigger, "please bring the sesame", 2, "resample")


@pytest.fixture(scope="module")
def pairs(trigger):
    return pair_removals(ask(trigger, "please bring the sesame", 2), candidates=3)


def same(a, b):
    """Equal in value and type, through all containers; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        if a.dtype.kind == "O":
            return all(map(same, a.ravel().tolist(), b.ravel().tolist()))
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM")
    if isinstance(a, np.generic):
        return same(np.asarray(a), np.asarray(b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, complex):
        return same((a.real, a.imag), (b.real, b.imag))
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) if a == b else a != a and b != b
    return a == b


def same_result(a, b):
    return type(a) is type(b) and same(facts(a), facts(b))


def facts(result):
    """All that a result holds, in order."""
    is_set = isinstance(result, xr.Dataset)
    variables = {**result.coords, **(result.data_vars if is_set else {"": result})}
    held = {name: (v.dims, np.asarray(v.values), v.attrs) for name, v in variables.items()}
    return dict(result.sizes), held, result.attrs, None if is_set else result.name


# Tables


def test_a_row_for_each_output_and_attributed_input(scores):
    table = to_dataframe(scores)
    assert len(table) == 2 * 4  # the start token is not attributed
    assert list(table.columns[:5]) == [
        *("output", "input", "output_token", "input_token", "input_name"),
    ]
    for row in table.to_dict("records"):
        cell = scores.sel(output=row["output"], input=row["input"])
        assert row["score"] == float(cell)
        for column in ("error", "flip", "output_token", "input_token", "output_score", "residual"):
            assert row[column] == cell[column].item()
        for column in ("role", "first", "last"):
            assert row[column] == cell[f"input_{column}"].item()


def test_the_stored_table_is_the_same_with_fewer_columns(scores):
    stored = parquet.read_table(io.BytesIO(scores_parquet(scores))).to_pydict()
    table = to_dataframe(scores)
    assert stored == {column: table[column].tolist() for column in stored}


def test_of_a_dataset_the_score_says_what_a_row_is(pairs):
    table = to_dataframe(pairs)
    assert len(table) == 2 * 4
    assert "interaction" not in table
    np.testing.assert_array_equal(table["single"], pairs["single"].values[:, 1:].ravel())
    square = to_dataframe(pairs["interaction"])
    assert len(square) == 2 * 3 * 2  # the diagonal has no value
    for row in square.to_dict("records"):
        labels = {name: row[name] for name in ("output", "first", "second")}
        cell = pairs["interaction"].sel(labels)
        assert row["interaction"] == float(cell)
        assert row["first_token"] == str(cell.first_token.values)


def test_values_for_fewer_dims_are_repeated_and_the_order_of_dims_does_not_matter():
    data = xr.Dataset(
        {
            "drop": (("method", "fraction"), [[1.0, NAN], [3.0, 4.0]]),
            "area": ("method", [7.0, 8.0]),
            "other": ("fold", [0.0]),
        },
        coords={"method": ["a", "b"], "seed": 5},
    )
    table = to_dataframe(data)
    assert list(table.columns) == ["method", "fraction", "seed", "drop", "area"]
    assert table.values.tolist() == [
        ["a", 0, 5, 1.0, 7.0], ["b", 0, 5, 3.0, 8.0], ["b", 1, 5, 4.0, 8.0],
    ]  # fmt: skip
    turned = to_dataframe(data["drop"].T)
    assert turned["drop"].tolist() == [1.0, 3.0, 4.0]
    assert to_dataframe(xr.DataArray([1.0]))["value"].tolist() == [1.0]


def test_what_makes_no_table_is_refused(scores):
    with pytest.raises(ValueError, match="no variables"):
        to_dataframe(xr.Dataset())
    with pytest.raises(ValueError, match="two columns would be called 'role'"):
        to_dataframe(scores.assign_coords(role=("input", range(scores.sizes["input"]))))


# JSON


def test_results_of_the_package_come_back(trigger, scores, pairs):
    swept = sweep(
        trigger,
        ["please bring the sesame", "please bring the letter"],
        {"layer": [0, 1], "head": [2, 0]},
        lambda layer, head: zero(Site("z", layer, head)),
        log_prob(1),
    )
    for result in (scores, pairs, swept, interval(swept), scores.sel(output=1, input=2)):
        text = to_json(result)
        assert same_result(from_json(text), result)
        assert from_json(text).identical(result)
        json.loads(text, parse_constant=pytest.fail)


def test_the_json_can_be_read_by_others(scores):
    found = json.loads(to_json(scores))
    (variable,) = found["variables"]
    assert variable["name"] == "score"
    assert variable["dims"] == ["output", "input"]
    assert variable["attrs"]["unit"] == "nats"
    assert variable["values"][0][0] is None  # the start token
    assert variable["values"][1][2] == float(scores[1, 2])
    names = [coord["name"] for coord in found["coords"]]
    assert found["coords"][names.index("input_token")]["values"][1:] == [
        *("please", "bring", "the", "sesame"),
    ]


TEXT = st.text(st.characters(), max_size=4) | st.just("\ud83d\ude00")  # halves of one character
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=3)
    | st.complex_numbers()
    | st.builds(np.float32, st.floats(width=32)) | st.builds(np.int16, st.integers(-9, 9))
    | st.builds(np.bool_, st.booleans()) | st.builds(np.str_, st.text(max_size=3))
    | hnp.arrays(st.sampled_from(["f4", "i8", "?", "<U3"]), hnp.array_shapes(min_dims=0)),
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(TEXT | st.sampled_from(["$tuple", "$"]) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ATTRS = st.dictionaries(TEXT, PLAIN, max_size=2)
DTYPES = st.sampled_from(
    ["f2", "<f4", ">f8", "i1", "u8", "?", "<U3", "S2", "c8", "c16", "M8[ns]", "m8[s]"]
)


def arrays(shape):
    texts = st.text(max_size=4)  # xarray makes no array of objects with halves of characters
    objects = st.none() | st.integers() | texts | st.floats() | st.tuples(TEXT, st.integers())
    return hnp.arrays(DTYPES, shape) | hnp.arrays("O", shape, elements=objects)


@st.composite
def results(draw):
    sizes = {"output": draw(st.integers(0, 3)), "input": draw(st.integers(1, 3))}

    def variable():
        dims = draw(st.sampled_from([(), ("output",), ("input", "output")]))
        return dims, draw(arrays(tuple(sizes[dim] for dim in dims))), draw(ATTRS)

    coords = {name: variable() for name in draw(st.sets(TEXT, max_size=2)) - {*sizes}}
    coords["input"] = ("input", [f"w{i}" for i in range(sizes["input"])])
    if draw(st.booleans()):
        names = draw(st.sets(TEXT, max_size=2)) - {*sizes, *coords}
        data = {name: variable() for name in names}
        return xr.Dataset(data, coords=coords, attrs=draw(ATTRS))
    dims, data, attrs = ("output", "input"), draw(arrays(tuple(sizes.values()))), draw(ATTRS)
    name = draw(st.none() | TEXT.filter(lambda name: name not in coords and name not in sizes))
    return xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=attrs)


@settings(max_examples=4 * settings.default.max_examples)
@given(results())
def test_nothing_is_lost(result):
    text = to_json(result)
    assert text.isascii()
    assert same_result(from_json(text), result)

    def refused(literal):
        raise AssertionError(f"{literal} is not JSON")

    json.loads(text, parse_constant=refused)


def test_what_json_cannot_hold_is_refused(scores):
    with pytest.raises(ValueError, match=r"attributes of 'score', at 'site',.*of type Site"):
        to_json(scores.assign_attrs(site=Site("z", 0)))
    with pytest.raises(ValueError, match="reset_index"):
        to_json(scores.stack(cell=("output", "input")))
    with pytest.raises(ValueError, match="dtype"):
        to_json(xr.DataArray(np.zeros(2, dtype="f8,i4")))


def test_other_json_is_refused(scores):
    text = to_json(scores)
    with pytest.raises(ValueError, match="holds no result"):
        from_json("[1, 2]")
    with pytest.raises(ValueError, match="version 2"):
        from_json(text.replace('"version":1', '"version":2'))
    with pytest.raises(ValueError, match="NaN is not JSON"):
        from_json(text.replace("null", "NaN"))
    with pytest.raises(ValueError, match="damaged"):
        from_json(text.replace('"coords"', '"cords"'))
    with pytest.raises(ValueError):  # noqa: PT011 - the JSON module's own words
        from_json(text[:-1])


def test_pandas_reads_the_types(scores):
    table = to_dataframe(scores)
    assert pd.api.types.is_bool_dtype(table["flip"])
    assert pd.api.types.is_integer_dtype(table["input_token_id"])
    assert pd.api.types.is_float_dtype(table["score"])


def test_damaged_json_is_an_error_of_one_kind():
    """F2: some changes of a digit raised `SyntaxError` or `KeyError`."""
    text = to_json(attribute(load_model("toy:trigger"), "bring the sesame", 1))
    chance = random.Random(0)
    for _ in range(300):
        at, other = chance.randrange(len(text)), chance.choice('0123456789[]{}",:$<-')
        changed = text[:at] + other + text[at + 1 :]
        with contextlib.suppress(ValueError):
            from_json(changed)
    for was, now in (('"<f8"', '"<f9"'), ('"<f8"', '"V9999"'), ('"<f8"', '"f8,f8"')):
        with pytest.raises(ValueError, match=r"dtype|data type"):
            from_json(text.replace(was, now, 1))
    with pytest.raises(ValueError, match="nested too deeply"):
        from_json("[" * 100000)
