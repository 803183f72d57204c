"""Our checks of types find what jaxtyping and beartype would, and can be switched off."""

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from run_time_types import checked
from torch import Tensor

from mechinterp import Site, log_prob
from mechinterp.core.indices import index
from mechinterp.storage.digest import digest


@pytest.fixture
def turned():
    @checked(typechecker=beartype)
    def turn(x: Float[Tensor, "a b"]) -> Float[Tensor, "b a"]:
        return x

    return turn


def test_sizes_of_arguments_and_of_the_result(turned):
    turned(torch.zeros(2, 2))
    for wrong in (torch.zeros(2), 3):
        with pytest.raises(TypeCheckError, match="checking the parameters"):
            turned(wrong)
    with pytest.raises(TypeCheckError, match="checking the return value"):
        turned(torch.zeros(2, 3))


def test_functions_without_arrays_and_classes_of_the_package():
    with pytest.raises(BeartypeCallHintViolation):
        Site(3)
    with pytest.raises(BeartypeCallHintViolation):
        index(1, name=3)


def test_switched_off_they_are_not_there(turned, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert turned(3) == 3


def test_a_function_stays_what_it_was():
    metric = log_prob(5)
    before = digest(metric)
    metric.score(torch.zeros(2, 1, 7))
    assert digest(metric) == before == digest(log_prob(5))
