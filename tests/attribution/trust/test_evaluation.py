"""Faithfulness over prompts: against means and intervals taken by hand."""

import numpy as np
import pytest
import xarray as xr

from mechinterp import ask, load_model, stats
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.trust.evaluation import (
    SharedSeedWarning,
    compare_scorers,
    measures,
    summarise,
    table,
)
from mechinterp.attribution.trust.faithfulness import faithfulness

SCORERS, REMOVALS = ["mine", "yours", "random", "shuffled"], ["delete", "resample"]


def made(seed, n_outputs=2, **change):
    """A result as `faithfulness` returns it, of any numbers."""
    rng = np.random.default_rng(seed)

    def numbers(*size):
        dims = ("scorer", "removal", "output")
        return (
            (*dims, *(dim for dim, _ in size)),
            rng.normal(size=(4, 2, n_outputs, *(n for _, n in size))),
        )

    return xr.Dataset(
        {
            "most_first": numbers(("fraction", 3)),
            "least_first": numbers(("fraction", 3)),
            "drop_at_k": numbers(("k", 2)),
            "sufficiency_at_k": numbers(("k", 2)),
            "lds": numbers(("keep", 2)),
            "comprehensiveness": numbers(),
            "sufficiency": numbers(),
        },
        coords={
            "scorer": SCORERS,
            "removal": REMOVALS,
            "fraction": [0.1, 0.5, 0.9],
            "k": [1, 3],
            "keep": [0.5, 0.9],
        }
        | change,
        attrs={"metric": "log_prob", "unit": "nats", "seed": seed},
    )


NAMES = [
    *("lds@0.5", "lds@0.9", "comprehensiveness", "sufficiency"),
    *("drop@1", "drop@3", "sufficiency@1", "sufficiency@3"),
]


def test_measures_are_means_over_the_outputs():
    results = [made(0), made(1, n_outputs=5), made(2, n_outputs=1)]
    found = measures(results)
    assert found.dims == ("measure", "removal", "scorer", "prompt")
    assert found["measure"].values.tolist() == NAMES
    for p, result in enumerate(results):
        for s in range(4):
            for r in range(2):
                cell = found.isel(prompt=p, scorer=s, removal=r)
                by_hand = {
                    "lds@0.9": result["lds"].values[s, r, :, 1].mean(),
                    "drop@3": result["drop_at_k"].values[s, r, :, 1].mean(),
                    "sufficiency@1": result["sufficiency_at_k"].values[s, r, :, 0].mean(),
                    "comprehensiveness": result["comprehensiveness"].values[s, r].mean(),
                }
                for name, value in by_hand.items():
                    assert cell.sel(measure=name).item() == pytest.approx(value)
    low = found["measure"].values[found["low_is_good"].values].tolist()
    assert low == ["sufficiency", "sufficiency@1", "sufficiency@3"]
    assert found["unit"].values.tolist() == ["", "", *["nats"] * 6]


def test_outputs_without_a_measure_do_not_count():
    result = made(0)
    result["drop_at_k"][0, 0, 1, 1] = np.nan
    cell = measures([result]).sel(measure="drop@3", removal="delete", scorer="mine")
    assert cell.item() == pytest.approx(result["drop_at_k"].values[0, 0, 0, 1])


def test_intervals_are_those_of_the_prompts():
    results = [made(seed) for seed in range(12)]
    found, each = summarise(results, level=0.9), measures(results)
    for name in ("lds@0.5", "sufficiency"):
        expected = stats.interval(each.sel(measure=name, removal="resample"), level=0.9)
        for what in ("mean", "low", "high"):
            got = found[what].sel(measure=name, removal="resample")
            np.testing.assert_allclose(got, expected[what])
    assert (found["n"] == 12).all()


def test_prompts_of_which_a_scorer_is_unknown_are_left_out_for_all():
    results = [made(seed) for seed in range(8)]
    results[3]["drop_at_k"][1, 0, :, 1] = np.nan  # yours, by delete, at 3
    found = summarise(results)
    assert found["n"].sel(measure="drop@3").values.tolist() == [7, 8]
    assert (found["n"].drop_sel(measure="drop@3") == 8).all()
    left = measures([r for number, r in enumerate(results) if number != 3])
    mean = left.sel(measure="drop@3", removal="delete").mean("prompt")
    np.testing.assert_allclose(found["mean"].sel(measure="drop@3", removal="delete"), mean)


def test_one_prompt_has_no_interval():
    found = summarise([made(0)])
    assert np.isnan(found["mean"]).all()
    assert (found["n"] == 1).all()


def test_compared_is_the_paired_difference_and_positive_is_better():
    results = [made(seed) for seed in range(9)]
    for result in results:
        for name in ("comprehensiveness", "sufficiency"):
            result[name][0] = result[name][1] + 1  # mine is one above yours
    found = compare_scorers(results, "mine")
    assert found["scorer"].values.tolist() == SCORERS[1:]
    yours = found.sel(scorer="yours", removal="delete")
    assert yours["mean"].sel(measure="comprehensiveness").item() == pytest.approx(1)
    assert yours["low"].sel(measure="comprehensiveness").item() == pytest.approx(1)
    assert yours["mean"].sel(measure="sufficiency").item() == pytest.approx(-1)
    assert yours["p"].sel(measure="sufficiency").item() == pytest.approx(2 / 2**9)
    assert not found["low_is_good"].any()
    each = measures(results).sel(measure="lds@0.5", removal="delete")
    expected = stats.difference(each.sel(scorer="mine"), each.sel(scorer="random"))
    got = found.sel(scorer="random", measure="lds@0.5", removal="delete")
    for name in ("mean", "low", "high", "p"):
        assert got[name].item() == pytest.approx(expected[name].item())


def test_the_table_has_all_in_its_place():
    results = [made(seed) for seed in range(6)]
    summary = summarise(results)
    head, rule, *rows = table(summary).splitlines()
    assert head == (
        "| removal | scorer | lds@0.5 ↑ | lds@0.9 ↑ | comprehensiveness ↑ | sufficiency ↓ | "
        "drop@1 ↑ | drop@3 ↑ | sufficiency@1 ↓ | sufficiency@3 ↓ |"
    )
    assert rule == "|" + "---|" * 10
    assert len(rows) == 8
    cells = [cell.strip() for cell in rows[5].strip("|").split("|")]
    assert cells[:2] == ["resample", "yours"]
    at = summary.sel(removal="resample", scorer="yours", measure="drop@3")
    numbers = [at[name].item() for name in ("mean", "low", "high")]
    assert cells[2 + NAMES.index("drop@3")] == "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)


def test_it_takes_what_faithfulness_gives():
    model, results = load_model("toy:trigger"), []
    prompts = ("the sesame to me", "bring a sesame", "please bring the sesame today")
    for seed, prompt in enumerate(prompts):
        question = ask(model, prompt, 1)
        scores = {"one out": leave_one_out(question)}
        results.append(
            faithfulness(question, scores, ["delete"], k=[1, 4], n_subsets=16, seed=seed)
        )
    summary = summarise(results)
    drop = summary.sel(scorer="one out", measure="drop@1", removal="delete")
    assert drop["mean"].item() == pytest.approx(8, abs=0.1)
    assert summary["n"].sel(measure="drop@4").item() == 2
    better = compare_scorers(results, "one out").sel(scorer="random", measure="lds@0.5")
    assert better["mean"].item() > 0.1


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "there are no results"),
        ([made(0), made(1, k=[1, 5])], r"prompt 1: its k is \[1, 5\]"),
        ([made(0), made(1, scorer=["a", "b", "random", "shuffled"])], "prompt 1: its scorer is"),
        ([made(0), made(1).assign_attrs(metric="prob")], "its metric is prob"),
    ],
)
def test_results_that_do_not_go_together(results, said):
    for function in (measures, summarise, lambda r: compare_scorers(r, "mine")):
        with pytest.raises(ValueError, match=said):
            function(results)


def test_prompts_that_share_draws_are_no_sample(recwarn):
    summarise([made(0), made(1)])
    assert not recwarn
    with pytest.warns(SharedSeedWarning, match=r"3 prompts have 2 seed\(s\)"):
        summarise([made(0), made(1), made(2).assign_attrs(seed=1)])


def test_an_unknown_scorer():
    with pytest.raises(ValueError, match="no scorer is called 'hers': mine, yours, random"):
        compare_scorers([made(0), made(1)], "hers")
