"""A compiled forward decides as one that is not, one layer is compiled for all, and what cannot be had is said."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import mdm
import pytest
import tiny_families
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from mdm.errors import MdmError
from mdm.models import compiled, products, torch_compile
from mdm_testing.counters import counting
from mdm_testing.probe import essence
from torch._dynamo.utils import counters

CACHES = {
    "llada": ["none", "prefix", "dual", "d2cache"],
    "dream": ["none", "prefix", "dual"],
    "sdar": ["none", "dual", "block"],
}
PROMPTS = [[[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5], [7, 8], [9] * 8]]


pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def model(tmp_path, request):
    family = getattr(request, "param", "llada")
    return mdm.load_model(tiny_families.save(tmp_path, family), device="cpu", dtype="float32")


def decoded(model, prompts, **settings):
    results = mdm.decode(model, prompts, "info-gain", {"candidates": 3}, **({"block_length": 4} | settings))
    return [essence(result) for result in results]


@pytest.mark.parametrize("model", CACHES, indirect=True)
def test_a_compiled_decode_is_the_same_decode_and_one_layer_is_compiled(model):
    """Once, when the first step begins, whatever the layers, the cache, the lengths and the rows that come later."""
    torch._dynamo.reset()
    caches, before = CACHES[model.spec.family], counters["stats"]["unique_graphs"]
    for prompts in PROMPTS:
        expected = decoded(model, prompts, gen_length=8, cache=caches[0])
        assert decoded(model, prompts, gen_length=8, cache=caches[0], compile=True) == expected
        assert counters["stats"]["unique_graphs"] == before + 1
    before += 1
    for cache in caches:
        for prompts in PROMPTS:
            for settings in ({"gen_length": 12}, {"gen_length": [8] * len(prompts), "guidance": 0.7, "max_rows": 2}):
                expected = decoded(model, prompts, cache=cache, **settings)
                assert decoded(model, prompts, cache=cache, compile=True, **settings) == expected, (cache, settings)
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.wide
@pytest.mark.parametrize("dense", [0, 1])
def test_layers_with_experts_are_compiled_once_and_those_without_once(tmp_path, dense):
    torch._dynamo.reset()
    folder = tiny_families.save(tmp_path, "llada2", first_k_dense_replace=dense)
    model, before = mdm.load_model(folder, device="cpu", dtype="float32"), counters["stats"]["unique_graphs"]
    for cache in ("none", "block"):
        for prompts in PROMPTS:
            expected = decoded(model, prompts, gen_length=8, cache=cache)
            assert decoded(model, prompts, gen_length=8, cache=cache, compile=True) == expected
    assert counters["stats"]["unique_graphs"] == before + 1 + dense


def test_hidden_states_are_the_same_and_of_their_own(model):
    tokens, at = torch.arange(24).view(3, 8), torch.arange(8).expand(3, -1)
    mask = torch.zeros(3, 1, 8, 8)
    mask[1, ..., 6:] = torch.finfo(torch.float32).min
    with torch.inference_mode():
        plain = [model.hidden(tokens, at, mask=m) for m in (None, mask)]
        with compiled.forwards(model):
            first, second = (model.hidden(tokens, at, mask=m) for m in (None, mask))
    assert not torch.allclose(plain[0], plain[1])
    torch.testing.assert_close([first, second], plain)


def test_who_counts_operations_sees_them(model):
    seen = []
    for compile in (False, True):
        with counting(model) as counts:
            decoded(model, PROMPTS[0], gen_length=4, cache="dual", compile=compile)
        seen.append((counts.model_operations, counts.model_calls, counts.rows))
    assert seen[0] == seen[1]


def test_others_decode_while_a_thread_compiles(model):
    """torch says of the whole process that it compiles: who decodes meanwhile, here on its own, is not to care."""
    expected, seen = decoded(model, PROMPTS[1], gen_length=8, cache="dual"), []

    def backend(graph, inputs):
        decode = Thread(target=lambda: seen.append(decoded(model, PROMPTS[1], gen_length=8, cache="dual")))
        decode.start()
        decode.join()
        return graph

    torch.compile(torch.sin, backend=backend)(torch.ones(2))
    assert seen == [expected]


def test_two_threads_compile_at_once(model):
    """Each its own forward, of one model or of two."""
    torch._dynamo.reset()
    ways = [{"cache": "dual"}, {"cache": "none", "guidance": 0.5}, {"cache": "prefix", "max_rows": 2}]
    expected = [decoded(model, PROMPTS[1], gen_length=8, **way) for way in ways]
    with ThreadPoolExecutor(len(ways)) as pool:
        found = [pool.submit(decoded, model, PROMPTS[1], gen_length=8, compile=True, **way) for way in ways]
    assert [decode.result() for decode in found] == expected


def test_a_body_that_cannot_be_traced_whole_says_so(model):
    layer = model.body.layers[0]
    forward = layer.forward
    layer.forward = lambda x, **more: forward(x if x.sum() > 0 else -x, **more)
    with pytest.raises(MdmError, match="cannot be compiled .*: drop --compile"):
        decoded(model, PROMPTS[0], gen_length=4, cache="none", compile=True)
    assert decoded(model, PROMPTS[0], gen_length=4, cache="none")


def test_too_many_kinds_of_forward_are_not_hidden(model, monkeypatch):
    torch._dynamo.reset()  # what another test of this process compiled would serve here as well
    monkeypatch.setattr(torch_compile, "MAX_SPECIALIZATIONS", 1)
    decoded(model, PROMPTS[0], gen_length=4, cache="dual", compile=True)
    model.body.double(), model.lm_head.double()
    with pytest.raises(MdmError, match="more than 1 kinds of forward"):
        decoded(model, PROMPTS[0], gen_length=4, cache="dual", compile=True)


def test_a_joined_product_is_compiled_as_one(model):
    torch._dynamo.reset()
    expected = decoded(model, PROMPTS[1], gen_length=8, cache="dual")
    products.join(model.body)
    products_of_a_layer = []

    def backend(graph, inputs):
        products_of_a_layer.append(sum("linear" in str(node.target) for node in graph.graph.nodes))
        return graph

    with pytest.MonkeyPatch.context() as patch:
        compile = torch.compile
        patch.setattr(torch, "compile", lambda function, **_: compile(function, backend=backend, dynamic=True))
        torch_compile.compiled.cache_clear()
        try:
            assert decoded(model, PROMPTS[1], gen_length=8, cache="dual", compile=True) == expected
        finally:
            torch_compile.compiled.cache_clear()
    assert products_of_a_layer == [4]  # q k v, o, gate up, down


@pytest.mark.wide
def test_what_was_compiled_is_found_by_the_next_process(tmp_path):
    code = """
import mdm
from mdm_testing.toy import toy_model
from torch._dynamo.utils import counters
mdm.decode(toy_model(), [[1, 2, 3]], "confidence", gen_length=4, block_length=4, cache="none", compile=True)
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
"""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said == ["1 0\n", "0 1\n"]


def _hooked(model):
    add_hook_to_module(model.body.layers[0], ModelHook())


def _quantized(model):
    model.body.config.quantization_config = {"quant_method": "torchao"}


def _own_forward(model):
    class Own(type(model)):
        def hidden(self, tokens, positions, **more):
            return super().hidden(tokens, positions, **more)

    model.__class__ = Own


def _another_attention(model):
    model.body.set_attn_implementation("eager")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_hooked, "has weights that do not lie on one device"),
        (_quantized, "has quantized weights"),
        (_own_forward, "has a forward of its own"),
        (_another_attention, "does not use sdpa attention"),
    ],
)
def test_what_cannot_be_compiled_is_named(model, change, why):
    change(model)
    with pytest.raises(MdmError, match=why + ".*drop --compile"):
        decoded(model, PROMPTS[0], gen_length=4, cache="none", compile=True)
