from collections import Counter

import pytest

from mechinterp import Site
from mechinterp.tasks import TASKS
from mechinterp.tasks.capitals import FINDINGS as CAPITALS
from mechinterp.tasks.definition import heads, mlps
from mechinterp.tasks.docstring import FINDINGS as DOCSTRING
from mechinterp.tasks.greater_than import FINDINGS as GREATER_THAN
from mechinterp.tasks.induction import FINDINGS as INDUCTION
from mechinterp.tasks.ioi import FINDINGS as IOI
from mechinterp.tasks.sva import FINDINGS as SVA

FINDINGS = {
    "ioi": IOI,
    "greater-than": GREATER_THAN,
    "induction": INDUCTION,
    "docstring": DOCSTRING,
    "sva": SVA,
    "capitals": CAPITALS,
}
SIZES = {"gpt2": (12, 12), "smollm2": (30, 9), "attn-only-4l": (4, 8), "gpt2-xl": (48, 25)}
"""Layers and heads."""


def test_heads_and_mlps():
    assert heads((3, 1), (0, 2)) == (Site("z", 3, 1), Site("z", 0, 2))
    assert mlps(8, 2) == (Site("mlp_out", 8), Site("mlp_out", 2))


@pytest.mark.parametrize("name", TASKS)
def test_findings_name_sites_that_their_model_has(name, digits):
    assert FINDINGS[name] == TASKS[name](digits, n=2).findings
    roles = Counter()
    for finding in FINDINGS[name]:
        layers, n_heads = SIZES[finding.model]
        roles[finding.model, finding.role] += 1
        assert len(set(finding.sites)) == len(finding.sites)
        assert finding.claim
        assert finding.source
        assert finding.role or not finding.sites
        for site in finding.sites:
            assert site.layer < layers
            assert site.head is None or site.head < n_heads
    assert max(roles.values()) == 1


def test_the_circuit_of_indirect_objects_has_26_heads():
    sites = [site for finding in IOI if finding.model == "gpt2" for site in finding.sites]
    assert len(sites) == len(set(sites)) == 26
