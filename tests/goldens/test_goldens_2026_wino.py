"""WINO against its authors' code: net changes of every step, and forwards."""

from __future__ import annotations

import mdm
import pytest
from samplers2026 import changed, changes, llada, traces


@pytest.mark.parametrize("case", traces("wino"))
def test_wino(case):
    p = case["params"]
    options = {name: p[name] for name in ("threshold", "threshold_back")}
    model = llada(case["head_scale"])
    sizes = {"gen_length": p["gen_length"], "block_length": p["block_length"]}
    [result] = mdm.decode(model, case["prompt"], "wino", options, cache="none", **sizes)
    assert changed(result) == changes(case)
    assert result.forwards == case["forwards"]
    assert result.sequence == case["output"][0]
