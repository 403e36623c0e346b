"""A replay reads the tensors of its capture: every input has to be brought there, and no two shapes are mixed up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mdm
import pytest
import torch
from mdm.models import Model, cuda_graphs
from mdm.models.cuda_graphs import CudaGraphCache
from mdm.models.kv_store import KVStore
from mdm.models.model import run, running
from mdm_testing.probe import essence
from mdm_testing.toy import toy_model

PROMPTS = [[1, 2, 3, 4, 5], [7, 8], [9] * 8]
SETTINGS = [{}, {"guidance": 0.7}, {"max_rows": 2}, {"batch_size": 1, "temperature": 0.8}]
CACHES = [("full", "none"), ("full", "prefix"), ("full", "dual"), ("block-causal", "block")]


def again(forward):
    """What a graph does, without one: the captured forward on its own tensors, into the same tensor."""
    out = forward().clone()

    def replay():
        return out.copy_(forward())

    return replay


def decoded(model, cache, **settings):
    results = mdm.decode(
        model, PROMPTS, "info-gain", {"candidates": 3}, gen_length=12, block_length=4, cache=cache, **settings
    )  # fmt: skip
    return [essence(result) for result in results]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("attention", "cache"), CACHES)
def test_a_replayed_decode_is_the_same_decode(attention, cache, settings):
    model, captured = toy_model(attention), []

    def capture(forward):
        captured.append(again(forward))
        return captured[-1]

    plain = decoded(model, cache, **settings)
    with running(model, CudaGraphCache(run, capture)):
        assert decoded(model, cache, **settings) == plain
    assert captured


def test_another_model_and_another_thread_run_as_they_did():
    model, ran = toy_model(), []
    other = Model(model.spec, model.body, model.lm_head, model.tokenizer)
    plain = decoded(model, "dual")

    def seen(*given):
        ran.append(1)
        return run(*given)

    with running(model, seen), ThreadPoolExecutor(1) as pool:
        assert decoded(other, "dual") == plain and pool.submit(decoded, model, "dual").result() == plain
        assert not ran
        assert decoded(model, "dual") == plain and ran
    ran.clear()
    assert decoded(model, "dual") == plain and not ran


@torch.inference_mode()
def test_rows_that_continue_from_others_are_not_mixed_up():
    model, everywhere = toy_model(), torch.arange(8).expand(4, -1)
    store, replayed, tokens = KVStore(model, 4, 8), CudaGraphCache(run, again), torch.arange(32).view(4, 8)
    model.hidden(tokens, everywhere, cache=store.full([0, 1, 2, 3], write=True))
    for rows in [[2, 0, 2, 0], [0, 2, 2, 0], [3, 1, 3, 1], [1, 2, 2, 1], [2, 1, 2, 1]]:
        at = torch.tensor([[n, n + 3] for n in rows])
        wanted = model.hidden(tokens[rows].gather(1, at) + 1, at, cache=store.window(rows, at))
        torch.testing.assert_close(
            replayed(model.body, tokens[rows].gather(1, at) + 1, at, None, store.window(rows, at)), wanted
        )
    assert sum(captured.replay is not None for captured in replayed.forwards.values()) == 2


@torch.inference_mode()
def test_what_a_forward_gave_is_not_overwritten_and_the_oldest_makes_place(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    model, at = toy_model(), torch.arange(8)[None]
    replayed = CudaGraphCache(run, again)
    tokens = [torch.full((1, 8), n) for n in range(1, 5)]
    wanted = [model.hidden(t, at) for t in tokens]
    found = [replayed(model.body, t, at, None, None) for t in tokens]
    torch.testing.assert_close(found, wanted)
    for length in (5, 6, 7):
        replayed(model.body, tokens[0][:, :length], at[:, :length], None, None)
    assert len(replayed.forwards) == 2


@torch.inference_mode()
def test_where_nothing_can_be_captured_forwards_run():
    model, at = toy_model(), torch.arange(8)[None]
    replayed = CudaGraphCache(run, lambda forward: None)
    for n in range(1, 5):
        tokens = torch.full((1, 8), n)
        torch.testing.assert_close(replayed(model.body, tokens, at, None, None), model.hidden(tokens, at))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_compiled_decode_on_a_gpu_is_the_same_decode(cache):
    model = toy_model()
    on_gpu = Model(model.spec, model.body.to("cuda"), model.lm_head.to("cuda"), model.tokenizer)
    try:
        for settings in SETTINGS:
            assert decoded(on_gpu, cache, compile=True, **settings) == decoded(on_gpu, cache, **settings)
    finally:
        model.body.cpu(), model.lm_head.cpu()
