"""A replay reads the tensors of its capture: every input has to be brought there, and no two calls are mixed up."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import mdm
import pytest
import tape
import tiny_families
import torch
from mdm import registry
from mdm.models import Model, cuda_graphs
from mdm.models.cuda_graphs import GraphCache, GraphCounts, counts
from mdm.models.kv_store import KVStore
from mdm.models.model import run, running
from mdm.protocols import BaseSampler, Commit, Evaluate, NoOptions, top_k, upload
from mdm.protocols.upload import to_device
from mdm.scoring import truncation
from mdm_testing.probe import essence
from mdm_testing.toy import toy_model

PROMPTS = [[1, 2, 3, 4, 5], [7, 8], [9] * 8]
SETTINGS = [
    {}, {"guidance": 0.7}, {"max_rows": 2}, {"batch_size": 1, "temperature": 0.8},
    {"temperature": 0.3, "top_p": 0.9, "score_after": "tempered", "eos_rank": "last", "eos_token_id": 7},
    {"stop_at_eos": True},
]  # fmt: skip
CACHES = {
    "llada": ["none", "prefix", "dual", "d2cache"], "dream": ["none", "prefix", "dual"],
    "sdar": ["none", "dual", "block"], "llada2": ["none", "block"],
}  # fmt: skip
PAIRS = [(family, cache) for family in CACHES for cache in CACHES[family]]
SAMPLERS = sorted(
    entry.name
    for entry in registry.entries("sampler")
    if registry.load(entry).reads != "left-out"  # which is not captured
)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {
        name: mdm.load_model(tiny_families.save(folder / name, name), device="cpu", dtype="float32") for name in CACHES
    }  # fmt: skip


def decoded(model, cache, sampler="info-gain", prompts=PROMPTS, **settings):
    options = {"candidates": 3} if "candidates" in registry.resolve("sampler", sampler).Options.model_fields else {}
    settings = {"gen_length": 12, "block_length": 4} | settings
    return [
        (essence(r), r.forwards, r.rows) for r in mdm.decode(model, prompts, sampler, options, cache=cache, **settings)
    ]


def same_with_graphs(monkeypatch, model, cache, sampler="info-gain", **settings):
    """Decodes without graphs and three times with them, which a decode has from those before; how many were replayed.

    The first may make room for rows that fork, the second then captures, and the third replays at last.
    """
    plain = decoded(model, cache, sampler, **settings)
    before = counts(model).replays
    monkeypatch.setattr(truncation, "FIRST_LOOK", 10**9)  # on a GPU nobody looks
    with tape.taped(monkeypatch):
        for _ in range(3):
            assert decoded(model, cache, sampler, **settings) == plain
    return counts(model).replays - before


@pytest.mark.parametrize(("family", "cache"), PAIRS)
def test_a_replayed_decode_is_the_same_decode(monkeypatch, families, family, cache):
    assert same_with_graphs(monkeypatch, families[family], cache)


@pytest.mark.parametrize("settings", SETTINGS[1:], ids=str)
@pytest.mark.parametrize(
    ("family", "cache"), [("dream", "prefix"), pytest.param("sdar", "block", marks=pytest.mark.wide)]
)
def test_whatever_the_settings(monkeypatch, families, family, cache, settings):
    same_with_graphs(monkeypatch, families[family], cache, **settings)


class Named(BaseSampler):
    """Commits the masks whose tokens are most probable, as an ``Evaluate`` of nothing tells of them by name."""

    def decide(self, state, scores, memory, draws):
        tokens = state.tokens.scatter_add(1, scores.positions, (scores.token - state.mask_id) * scores.valid)
        nothing = Commit(torch.zeros_like(scores.valid)[:, None], scores.token[:, None])
        answer = yield Evaluate(nothing, scores.valid.any(1, keepdim=True), "span", held=tokens)
        one = answer.pick(torch.zeros_like(state.block))
        held = torch.zeros(tokens.shape).scatter_add(1, one.positions, one.held * one.valid)
        return Commit(top_k(held.gather(1, scores.positions), scores.valid, state.budget), scores.token)


@pytest.mark.parametrize(("family", "cache"), [("dream", "dual"), ("sdar", "block")])
def test_named_tokens_are_brought_to_a_replay(monkeypatch, families, family, cache):
    """Each replay has the tokens that it is asked for, and not those of its capture."""

    def decoded():
        found = mdm.decode(families[family], PROMPTS, Named(NoOptions()), cache=cache, gen_length=12, block_length=4)
        return [essence(result) for result in found]

    plain, before = decoded(), counts(families[family]).replays
    with tape.taped(monkeypatch):
        for _ in range(3):
            assert decoded() == plain
    assert counts(families[family]).replays > before


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_decides_the_same_by_replays(monkeypatch, families, sampler):
    replayed = same_with_graphs(monkeypatch, families["llada"], "dual", sampler, prompts=PROMPTS[:2], gen_length=8)
    assert (
        bool(replayed) is not registry.resolve("sampler", sampler).keeps_logits
    )  # logits would be kept in every graph


@pytest.mark.wide
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("family", "cache"), PAIRS)
def test_every_sampler_cache_and_family(monkeypatch, families, family, cache, sampler):
    for settings in SETTINGS[:4]:
        same_with_graphs(monkeypatch, families[family], cache, sampler, **settings)


def test_a_decode_has_a_handful_of_captures(monkeypatch, families):
    """Eight candidates come in every number of rows; they are captured in 1, 2, 4 and 8, once and for all."""
    model = families["llada"]
    with tape.taped(monkeypatch):
        before = (counts(model).captures, counts(model).replays)
        for _ in range(3):
            mdm.decode(model, PROMPTS[:1], "info-gain", {"candidates": 8}, cache="dual", gen_length=32, block_length=8)
        captures, replays = counts(model).captures - before[0], counts(model).replays - before[1]
    assert captures <= 4
    assert replays > 3 * 32 - 3 * 4 - 3 * captures  # all but the refreshes and what warms up


def test_lookahead_rows_that_fill_a_shape_cost_no_decision(families):
    from mdm.engine.evaluate import _padded, _places

    assert _padded([0, 1, 2], 1, 4, 4) == [0, 1, 2, 2]
    assert _padded([1, 9], 3, 4, 2) == [1, 1, 4, 4, 9, 9]
    assert _places([1, 2, 2], 4) == [0, 0, 1, 1]
    assert _places([1, 1, 4, 4, 9, 9], 12) == [0, 0, 0, 0, 2, 2, 2, 2, 2, 4, 4, 4]


@pytest.mark.parametrize("size", [3, 8, 16])
def test_batches_capture_no_more_than_they_replay(monkeypatch, families, size):
    """Candidates of several rows come in any number: only as many as are padded to one number a row are captured."""
    model, prompts = families["llada"], [[n, n + 1, n + 2] for n in range(1, size + 1)]
    before = counts(model)
    with tape.taped(monkeypatch):
        for _ in range(2):
            mdm.decode(model, prompts, "info-gain", {"candidates": 8}, cache="dual", gen_length=24, block_length=24)
    assert counts(model).captures - before.captures <= 8


def test_another_seed_needs_no_other_graph(monkeypatch, families):
    model = families["llada"]
    with tape.taped(monkeypatch):
        for seed in (0, 0, 1, 2):
            before = counts(model).captures
            found = decoded(model, "dual", temperature=0.7, prompts=PROMPTS[:1], seed=seed)
        assert counts(model).captures == before
    assert found == decoded(model, "dual", temperature=0.7, prompts=PROMPTS[:1], seed=2)


def test_what_is_changed_between_two_decodes_is_heeded(monkeypatch):
    """A hook, its end, and other weights."""
    toy = toy_model()
    body = copy.deepcopy(toy.body)
    model = Model(toy.spec, body, copy.deepcopy(toy.lm_head), toy.tokenizer)

    def same():
        plain = decoded(model, "dual", graphs=False)
        with tape.taped(monkeypatch):
            assert decoded(model, "dual") == plain
        return plain

    first = [same(), same()][1]
    hook = body.layers[0].register_forward_hook(lambda module, given, out: out + 1.0)
    assert same() != first
    hook.remove()
    assert same() == first
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.flip(0).clone(), requires_grad=False)
    assert same() != first


def test_without_graphs_nothing_is_captured(monkeypatch, families):
    with tape.taped(monkeypatch):
        before = counts(families["llada"]).captures
        decoded(families["llada"], "dual", graphs=False)
        assert counts(families["llada"]).captures == before


def test_many_row_tokens_are_not_captured(monkeypatch, families):
    monkeypatch.setattr("mdm.scoring.scorer.MAX_ROW_TOKENS", 3)
    with tape.taped(monkeypatch):
        before = counts(families["llada"]).captures
        decoded(families["llada"], "dual")
        assert counts(families["llada"]).captures == before


def test_a_processor_is_called_in_every_step(monkeypatch):
    model, calls = toy_model(), []

    def processor(ids, logits):
        calls.append(len(ids))
        return logits

    plain = decoded(model, "dual", logits_processors=[processor])
    expected, calls = len(calls), []
    with tape.taped(monkeypatch):
        assert decoded(model, "dual", logits_processors=[processor]) == plain
    assert len(calls) == expected


def test_decodes_at_once_have_graphs_of_their_own(monkeypatch, families):
    model = families["llada"]
    ways = [{}, {"guidance": 0.7}, {"prompts": PROMPTS[:1]}, {}]
    plain = [decoded(model, "dual", **way) for way in ways]
    with tape.taped(monkeypatch), ThreadPoolExecutor(4) as pool:
        found = [pool.submit(decoded, model, "dual", **way) for way in ways * 2]
        assert [each.result() for each in found] == plain * 2


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


def call(cache, function, *given, store=None, facts=0):
    return cache(function, *given, store=store, keep=None, facts=facts)


@torch.inference_mode()
def test_what_a_call_gave_is_not_overwritten_and_the_oldest_makes_place(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    cache = GraphCache(tape.capture, GraphCounts())

    def double(values, times):
        return (values[0] * times,)

    found = [call(cache, double, [torch.full((2,), n)], 2)[0] for n in range(5)]
    assert [t.tolist() for t in found] == [[2 * n] * 2 for n in range(5)]
    assert (cache.counts.captures, cache.counts.replays) == (1, 3)
    assert call(cache, double, [torch.ones(2)], 3)[0].tolist() == [3, 3]  # another fact, another call
    for length in (5, 6, 7):
        call(cache, double, [torch.ones(length)], 2)
    assert call(cache, double, [torch.full((2,), 7)], 2)[0].tolist() == [14, 14]
    assert cache.counts.replays == 3


@torch.inference_mode()
def test_a_graph_of_a_store_that_has_moved_is_forgotten():
    model = toy_model()
    store, cache = KVStore(model, 2, 8), GraphCache(tape.capture, GraphCounts())
    at = torch.arange(8).expand(2, -1)
    model.hidden(at + 1, at, cache=store.full([0, 1], write=True))
    cache.open(store)

    def windowed(tokens, positions):
        return (model.hidden(tokens, positions, cache=store.window([0, 1], positions)),)

    def same():
        tokens, positions = torch.tensor([[3, 4], [5, 6]]), torch.tensor([[1, 2], [4, 5]])
        torch.testing.assert_close(call(cache, windowed, tokens, positions, store=store), windowed(tokens, positions))

    for _ in range(4):
        same()
    assert cache.counts.replays == 2
    store.select_rows(torch.tensor([1, 0]))  # rows change places, the memory stays
    same()
    assert cache.counts.replays == 3
    store.make_room(3, 9)
    cache.open(store)
    same()
    assert cache.counts.replays == 3


@torch.inference_mode()
def test_numbers_that_a_capture_brought_along_are_kept_with_it(monkeypatch):
    cache = GraphCache(tape.capture, GraphCounts())

    def plus(values):
        return (values + to_device([1, 2], values.device),)

    for _ in range(3):
        call(cache, plus, torch.ones(2))
    kept = weakref.ref(to_device([1, 2], torch.device("cpu")))
    upload._on_device.cache_clear()
    gc.collect()
    assert kept() is not None
    assert call(cache, plus, torch.ones(2))[0].tolist() == [2, 3]


@torch.inference_mode()
def test_where_nothing_can_be_captured_calls_run():
    cache = GraphCache(lambda call: None, GraphCounts())
    for n in range(5):
        assert call(cache, lambda x: (x + 1,), torch.full((1,), n))[0].item() == n + 1
    assert (cache.counts.captures, cache.counts.replays) == (0, 0)


def test_a_model_is_not_kept_by_its_graphs(monkeypatch):
    toy = toy_model()
    model = Model(toy.spec, toy.body, toy.lm_head, toy.tokenizer)
    with tape.taped(monkeypatch):
        decoded(model, "dual", prompts=[[1, 2, 3]])
    # A tape holds the model, which a CUDA graph does not: what the cache itself holds is looked at.
    [cache] = cuda_graphs._free[model].values()
    assert cache.counts.captures
    held = [(cache.store, replay.keep, replay.inputs) for replay in cache._calls.values() if replay is not None]
    cache._calls.clear()
    reference = weakref.ref(model)
    del model, cache
    gc.disable()
    try:
        assert held and reference() is None  # at once, without a collection of circles
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_decodes_on_a_gpu_are_the_same(cache):
    """Eager, replayed, and compiled and replayed."""
    model = toy_model()
    on_gpu = Model(model.spec, model.body.to("cuda"), model.lm_head.to("cuda"), model.tokenizer)
    try:
        for settings in SETTINGS:
            eager = decoded(on_gpu, cache, graphs=False, **settings)
            for _ in range(2):
                assert decoded(on_gpu, cache, **settings) == eager
                assert decoded(on_gpu, cache, compile=True, **settings) == eager
        assert counts(on_gpu).replays
    finally:
        model.body.cpu(), model.lm_head.cpu()


def test_graphs_share_memory_as_long_as_one_of_them_lives():
    class Graph:
        pass

    pool = cuda_graphs.SharedPool(object)
    first, second = Graph(), Graph()
    shared = pool.of(first)
    assert pool.of(second) is shared
    del first
    third = Graph()
    assert pool.of(third) is shared
    del second, third
    assert pool.of(Graph()) is not shared
