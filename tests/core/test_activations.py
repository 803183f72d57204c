import numpy as np
import pytest
import torch

from mechinterp import HookError, Prompts, Site, delete_token, read, run
from mechinterp.core.activations import Activations

Z = Site("z", 1)


@pytest.fixture
def acts(absolute_model, ragged):
    sites = (Z, Site("pattern", 0, 2), Site("mlp_post", 2, pos="end"), Site("embed"))
    return run(absolute_model, ragged, read(*sites)).acts


def test_it_is_a_mapping_of_what_was_read(acts):
    assert len(acts) == 4
    assert list(acts) == [Site("embed"), Site("pattern", 0, 2), Z, Site("mlp_post", 2, pos="end")]
    assert acts[Z].shape == (3, 7, 4, 6)
    assert acts[Site("mlp_post", 2, pos="end")].shape == (3, 28)
    assert torch.equal(dict(acts)[Z], acts[Z])


def test_a_narrower_site_is_cut_out(acts):
    whole = acts[Z]
    assert torch.equal(acts[Site("z", 1, 3)], whole[:, :, 3])
    assert torch.equal(acts[Site("z", 1, pos=2)], whole[:, 2])
    last = torch.stack([whole[0, 6, 3], whole[1, 3, 3], whole[2, 5, 3]])
    assert torch.equal(acts[Site("z", 1, 3, "end")], last)
    named = torch.stack([whole[0, 5], whole[1, 2], whole[2, 3]])
    assert torch.equal(acts[Site("z", 1, pos="S2")], named)
    assert torch.equal(acts[Site("pattern", 0, 2, 1)], acts[Site("pattern", 0, 2)][:, 1])
    neuron = acts[Site("mlp_post", 2, pos="end", neuron=5)]
    assert torch.equal(neuron, acts[Site("mlp_post", 2, pos="end")][:, 5])


def test_what_it_holds(acts):
    for site in (
        Z,
        Site("z", 1, 3),
        Site("z", 1, 3, "end"),
        Site("mlp_post", 2, pos="end", neuron=0),
    ):
        assert site in acts
    for site in (Site("z", 0), Site("pattern", 0), Site("pattern", 0, 1), Site("mlp_post", 2), "z"):
        assert site not in acts


def test_what_was_not_read_says_what_was(acts):
    with pytest.raises(HookError, match=r"L0\.pattern was not read\. Read: embed, L0H2\.pattern"):
        acts[Site("pattern", 0)]
    with pytest.raises(HookError, match=r"Add read\(Site\(act='z', layer=0"):
        acts[Site("z", 0)]
    with pytest.raises(HookError, match="Read: nothing"):
        Activations({}, acts.prompts)[Z]


def test_positions_are_those_of_the_given_prompt(absolute_model, ragged):
    acts = run(absolute_model, ragged, delete_token(1) + read(Z)).acts
    assert acts[Z].shape == (3, 6, 4, 6)
    assert torch.equal(acts[Site("z", 1, pos=3)], acts[Z][:, 2])
    assert torch.equal(acts[Site("z", 1, pos=0)], acts[Z][:, 0])
    with pytest.raises(ValueError, match="position 1 of prompt 0 was deleted"):
        acts[Site("z", 1, pos=1)]


def test_it_shows_sites_and_no_numbers(acts):
    assert "L1.z" in repr(acts)
    assert len(repr(acts)) < 300


def test_a_head_that_is_not_there(absolute_model, ragged, refuses):
    acts = run(absolute_model, ragged, read(Site("z", 1))).acts
    refuses(lambda: acts[Site("z", 1, 4)], "L1H4.z is out of range", "L1.z", "[3, 7, 4, 6]")


def test_tokens_that_were_read_whole_keep_their_places(absolute_model):
    prompts = Prompts.from_ids([[5, 6, 7, 8, 9, 10]])
    for specs in (read(Site("tokens")) + delete_token(1), delete_token(1) + read(Site("tokens"))):
        acts = run(absolute_model, prompts, specs).acts
        assert acts[Site("tokens", pos=3)].tolist() == [8]


def test_reading_a_full_name_alone_runs_as_far(absolute_model, ragged):
    site = Site("blocks.2.ln1.hook_scale")
    alone = run(absolute_model, ragged, read(site), logits_at=()).acts[site]
    assert torch.equal(alone, run(absolute_model, ragged, read(site)).acts[site])


def test_numbers_of_numpy_are_numbers(as_users_call_it, refuses):
    assert Site("z", np.int64(1), head=np.int64(2)) == Site("z", 1, head=2)
    refuses(lambda: Site("z", 1, head=np.int64(-1)), "negative")
