"""What the factories make; what their edits do is in `tests/laws/test_run_reference.py`."""

import pytest
import torch

from mechinterp import (
    At,
    HookError,
    HookSpec,
    Prompts,
    Site,
    add,
    delete_token,
    edit,
    knockout,
    mean,
    patch,
    put,
    read,
    replace_token,
    resample,
    scale,
    zero,
)
from mechinterp.core.activations import Activations
from mechinterp.core.prompts import DELETED

Z = Site("z", 1, 2, "end")
PROMPTS = Prompts.from_ids([[1, 2, 3], [4, 5]])
OLD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def result_of(specs, old=OLD, prompts=PROMPTS):
    (spec,) = specs
    return spec.edit(old.clone(), At(spec.site, prompts, Activations({}, prompts)))


@pytest.mark.parametrize(
    ("specs", "name"),
    [
        (zero(Z), "zero L1H2.z@end"),
        (read(Z), "read L1H2.z@end"),
        (put(Z, 1.0), "put L1H2.z@end"),
        (add(Z, torch.ones(2)), "add L1H2.z@end"),
        (scale(Z, 2.0), "scale L1H2.z@end"),
        (edit(Z, lambda value, at: value), "edit L1H2.z@end"),
        (edit(Z, torch.relu), "relu L1H2.z@end"),
        (edit(Z, torch.relu, name="mine"), "mine L1H2.z@end"),
        (knockout(1, 2, "end", 0), "knockout L1H2.attn_scores@end to 0"),
        (knockout(1, None, None, "S2"), "knockout L1.attn_scores to S2"),
        (delete_token(3), "delete tokens@3"),
        (replace_token("S2", 5), "replace tokens@S2"),
    ],
)
def test_each_makes_a_tuple_of_one_named_spec(specs, name):
    (spec,) = specs
    assert isinstance(spec, HookSpec)
    assert spec.name == name


def test_they_compose_by_addition():
    specs = zero(Z) + read(Site("z", 0), Site("z", 1)) + delete_token(1)
    assert [spec.name for spec in specs] == [
        "zero L1H2.z@end",
        "read L0.z",
        "read L1.z",
        "delete tokens@1",
    ]
    assert read() == ()


def test_an_edit_is_the_users_own_function():
    def double(value, at):
        return value * 2

    (spec,) = edit(Z, double)
    assert spec.edit is double
    assert spec.site == Z
    assert read(Z)[0].edit is None


def test_numbers():
    assert torch.equal(result_of(zero(Z)), torch.zeros(2, 2))
    assert torch.equal(result_of(put(Z, 1.5)), torch.full((2, 2), 1.5))
    assert torch.equal(result_of(scale(Z, -2.0)), torch.tensor([[-2.0, -4.0], [-6.0, -8.0]]))
    assert torch.equal(
        result_of(delete_token(0), torch.tensor([3, 4])), torch.tensor([DELETED] * 2)
    )
    assert torch.equal(result_of(replace_token(0, 9), torch.tensor([3, 4])), torch.tensor([9, 9]))


def test_a_tensor_for_all_prompts_or_one_for_each():
    each, alike = torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([5.0, 6.0])
    assert torch.equal(result_of(put(Z, each)), each)
    assert torch.equal(result_of(put(Z, alike)), torch.stack([alike, alike]))
    assert torch.equal(result_of(add(Z, alike, 10.0)), OLD + torch.tensor([50.0, 60.0]))
    assert torch.equal(result_of(add(Z, each)), OLD + each)
    with pytest.raises(HookError, match=r"add L1H2.z@end: the vector has shape \[3\]"):
        result_of(add(Z, torch.ones(3)))


def activations(value, site=Z, prompts=PROMPTS):
    return Activations({site: value}, prompts)


def test_from_another_run():
    other = torch.tensor([[10.0, 20.0], [30.0, 60.0]])
    assert torch.equal(result_of(patch(Z, activations(other))), other)
    assert torch.equal(result_of(mean(Z, activations(other))), torch.tensor([[20.0, 40.0]] * 2))
    source = Site("q", 0, 1, "end")
    patched = patch(Z, activations(other, source), source)
    assert patched[0].name == "patch L1H2.z@end from L0H1.q@end"
    assert torch.equal(result_of(patched), other)
    three = Prompts.from_ids([[1], [2], [3]])
    with pytest.raises(HookError, match=r"the source has shape \[3, 2\], the value \[2, 2\]"):
        result_of(patch(Z, activations(torch.ones(3, 2), prompts=three)))
    drawn = result_of(resample(Z, activations(torch.arange(6.0).reshape(3, 2), prompts=three), 0))
    assert {tuple(row) for row in drawn.tolist()} <= {(0, 1), (2, 3), (4, 5)}


def test_the_mean_leaves_padding_out():
    site = Site("resid_pre", 0)
    value = torch.tensor([[[1.0], [2.0], [6.0]], [[4.0], [7.0], [1000.0]]])
    expected = (1 + 2 + 6 + 4 + 7) / 5
    found = result_of(mean(site, activations(value, site)), torch.zeros(2, 3, 1))
    torch.testing.assert_close(found, torch.full((2, 3, 1), expected))
    at_end = Site("resid_pre", 0, pos="end")
    found = result_of(mean(at_end, activations(value, site)), torch.zeros(2, 1))
    torch.testing.assert_close(found, torch.full((2, 1), (6 + 7) / 2))


def test_knockout_of_one_query():
    scores = torch.zeros(2, 3)  # prompt src, of one head and query
    expected = torch.zeros(2, 3)
    expected[:, 1] = -torch.inf
    assert torch.equal(result_of(knockout(0, 0, "end", 1), scores), expected)
    with pytest.raises(HookError, match="the query comes before the key"):
        result_of(knockout(0, 0, 0, 1), scores)


def test_knockout_of_every_later_query():
    inf = torch.inf
    links = torch.tensor([[0, 0, 0], [-inf, 0, 0], [-inf, 0, 0]])
    assert torch.equal(
        result_of(knockout(0, 0, None, 0), torch.zeros(2, 3, 3)), links.expand(2, 3, 3)
    )
    # The key is another one in each prompt; every head.
    named = PROMPTS.named(key=[1, 0])
    second = torch.tensor([[0, 0, 0], [0, 0, 0], [0, -inf, 0]])
    found = result_of(knockout(0, None, None, "key"), torch.zeros(2, 4, 3, 3), named)
    assert torch.equal(found[0], second.expand(4, 3, 3))
    assert torch.equal(found[1], links.expand(4, 3, 3))
