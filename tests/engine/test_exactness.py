"""Which shortcuts reproduce a whole pass, found by trying them."""

import copy

from mechinterp.engine.exactness import resumes_exactly


def test_which_models_resume_exactly(model, absolute_model, monkeypatch):
    assert resumes_exactly(model) == (True, True)
    state = {"calls": 0}

    def differs(module, args, kwargs):
        state["calls"] += 1
        return (args[0] * (1 + 1e-2 * state["calls"]),), kwargs

    assert resumes_exactly(tiny_model_again(absolute_model, switched_on=True)) == (True, False)
    uneven = tiny_model_again(absolute_model)
    handle = uneven.blocks[1].register_forward_pre_hook(differs, with_kwargs=True)
    assert resumes_exactly(uneven) == (False, False)
    handle.remove()


def tiny_model_again(model, switched_on=False):
    again = copy.deepcopy(model)
    again.cfg.use_split_qkv_input = switched_on
    return again
