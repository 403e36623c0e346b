"""dLLM-Cache against the published code: tokens, and the positions that each layer computed in each forward."""

from __future__ import annotations

import mdm
import pytest
from mdm_testing.counters import layers_run
from samplers2026 import changed, changes, llada, traces


@pytest.mark.parametrize("case", traces("dllmcache"))
def test_the_positions_of_every_layer_and_forward(case):
    params, model = case["params"], llada(case["head_scale"])
    with layers_run(model) as run:
        [result] = mdm.decode(
            model,
            case["prompt"],
            sampler="confidence",
            cache="dllm-cache",
            cache_options={
                "prompt_refresh": params["prompt_interval_steps"],
                "answer_refresh": params["gen_interval_steps"],
                "ratio": params["transfer_ratio"],
            },
            gen_length=params["gen_length"],
            block_length=params["block_length"],
            steps=params["steps"],
            trace=True,
        )
    assert changed(result) == changes(case)
    assert list(result.sequence) == case["output"][0]
    length, prompt = len(result.sequence), len(case["prompt"][0])
    expected = [
        (layer, _expected(forward, layer, prompt, length))
        for forward in case["recomputed"]
        for layer in range(model.layers)
    ]
    assert [(layer, sorted(positions[0])) for layer, positions in run] == [(n, p) for n, p in expected if p]


def _expected(forward, layer, prompt, length):
    if layer == 0:
        return list(range(length))
    chosen = list(range(prompt)) if forward["refresh_prompt"] else []
    if forward["refresh_response"]:
        return chosen + list(range(prompt, length))
    return chosen + sorted(forward["partial"].get(str(layer), {}).get("positions", []))
