"""ReMDM commits and re-masks as many tokens a step as it is told, whatever the schedule says."""

from __future__ import annotations

import mdm
from mdm_testing import toy_model


def test_it_sets_its_own_pace():
    [result] = mdm.decode(toy_model(), [[1, 2, 3]], "remdm", {"unmask_k": 4}, gen_length=16)
    assert max(len(line["positions"]) for line in result.trace) == 4
    assert mdm.registry.resolve("sampler", "remdm").pace == "own"
