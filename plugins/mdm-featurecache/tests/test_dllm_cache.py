"""What dLLM-Cache computes of each layer, where it is exact, and that rows have caches of their own."""

from __future__ import annotations

import mdm
import pytest
import tiny_families
import torch
from mdm.engine import memory
from mdm.errors import MdmError
from mdm.models import products
from mdm.models.features import FeatureStore
from mdm.protocols import BaseCache, LayerCache, NoOptions, Plan
from mdm_featurecache.dllm_cache import DllmCache, DllmCacheOptions
from mdm_testing.counters import counting, layers_run
from mdm_testing.probe import Watched, decode, essence, looking, plain, prompts
from mdm_testing.toy import KV_HEADS, LAYERS, MASK, WIDTH, toy_model

FULL = ["llada", "dream", "mmada", "llada-moe", "illada"]
UNLIKE = ["dream", "llada-moe"]
"""Shifted logits, biases and shared keys; experts and norms of queries and keys."""
ALWAYS = {"prompt_refresh": 1, "answer_refresh": 1}
NEVER = {"prompt_refresh": 99, "answer_refresh": 99}
UNEVEN = {"gen_length": [10, 3, 8, 6], "batch_size": 2}


@pytest.fixture(scope="module")
def models():
    folder = tiny_families.SCRATCH
    return {f: mdm.load_model(tiny_families.save(folder / f, f), device="cpu", dtype="float32") for f in FULL}


def kept(model, given=None, sampler=None, options=None, **settings):
    given = prompts(200) if given is None else given
    return decode(model, given, sampler or plain(), "dllm-cache", cache_options=options or {}, **settings)


@pytest.mark.parametrize("sampler", [plain, looking], ids=["plain", "looking"])
@pytest.mark.parametrize("family", FULL)
def test_always_refreshed_it_is_none(models, family, sampler):
    seen = []
    for cache, options in (("none", {}), ("dllm-cache", ALWAYS)):
        watched = Watched(sampler())
        decode(models[family], prompts(200), watched, cache, cache_options=options, guidance=0.5, **UNEVEN)
        seen.append(watched.decided)
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.state.tokens, other.state.tokens)
        for a, b in zip([one.scores, *one.answers], [other.scores, *other.answers], strict=True):
            assert torch.equal(a.entropy, b.entropy) and torch.equal(a.log_odds, b.log_odds)


@pytest.mark.parametrize("family", UNLIKE)
def test_where_all_is_picked_it_is_none(models, family):
    """Another way through the layers: every position is watched, picked and met in an order of its own."""

    class All(LayerCache):
        full_layers = 0

        def plan(self, state, spec):
            whole = state.in_canvas & (state.step == 0)[:, None]
            watched = state.in_canvas & ~whole
            return Plan(whole, state.in_canvas, state.in_canvas, watched=watched, picked=watched.sum(1))

        def rank(self, layer, new, kept):
            return new.sum(-1)

    given = prompts(200)
    exact = decode(models[family], given, looking(), guidance=0.5, **UNEVEN)
    found = decode(models[family], given, looking(), All(NoOptions()), guidance=0.5, **UNEVEN)
    assert [essence(r) for r in exact] == [essence(r) for r in found]


@pytest.mark.parametrize(("sampler", "guidance"), [(plain, 0.5), (looking, 0.0)], ids=["plain", "looking"])
@pytest.mark.parametrize("family", UNLIKE)
def test_a_row_does_not_depend_on_its_neighbours(models, family, sampler, guidance):
    """Rows join and leave, so that those in one forward are at steps of their own."""
    given, options = prompts(200), {"prompt_refresh": 4, "answer_refresh": 3, "ratio": 0.5}
    together = kept(models[family], given, sampler(), options, guidance=guidance, **UNEVEN)
    for i, length in enumerate(UNEVEN["gen_length"]):
        own = {"row_ids": [i], "gen_length": length, "guidance": guidance}
        [alone] = kept(models[family], [given[i]], sampler(), options, **own)
        assert essence(alone) == essence(together[i])


def test_a_fork_has_what_its_row_had(models):
    given, options = prompts(200), {"prompt_refresh": 4, "answer_refresh": 3}
    settings = {"sampler_options": {"beam_size": 3}, "gen_length": 8, "block_length": 4}
    beams = {"sampler": "beam", "cache": "dllm-cache", **settings}
    together = mdm.decode(models["llada"], given, cache_options=options, trace=True, **beams)
    for i, prompt in enumerate(given):
        [alone] = mdm.decode(models["llada"], [prompt], row_ids=[i], cache_options=options, trace=True, **beams)
        assert essence(alone) == essence(together[i])
    exact = mdm.decode(models["llada"], given, "beam", trace=True, **settings)
    found = mdm.decode(models["llada"], given, cache_options=ALWAYS, trace=True, **beams)
    assert [essence(r) for r in exact] == [essence(r) for r in found]


def layers_of(model, *given, **settings):
    """The result, and of each forward of one prompt what the layers computed, those with nothing left out."""
    with layers_run(model) as calls:
        results = kept(model, *given, **settings)
    forwards = []
    for layer, (positions, *_) in calls:
        forwards += [{}] if layer == 0 else []
        forwards[-1][layer] = sorted(positions)
    return results, forwards


@pytest.mark.parametrize("family", FULL)
def test_without_a_refresh_and_a_share_only_the_first_layer_runs(models, family):
    _, forwards = layers_of(models[family], prompts(200, lengths=(5,)), None, NEVER | {"ratio": 0}, gen_length=8)
    whole = list(range(13))
    assert forwards == [dict.fromkeys(range(tiny_families.LAYERS), whole)] + [{0: whole}] * 7


def test_each_part_is_refreshed_by_its_own_interval():
    options = {"prompt_refresh": 4, "answer_refresh": 3, "ratio": 0.4}
    _, forwards = layers_of(toy_model(), prompts(lengths=(5,)), None, options, gen_length=8)
    sizes = [(sum(p < 5 for p in run[1]), sum(p >= 5 for p in run[1])) for run in forwards]
    assert sizes == [(5, 8), (0, 3), (0, 3), (0, 8), (5, 3), (0, 3), (0, 8), (0, 3)]
    assert all(run[0] == list(range(13)) for run in forwards)


def test_the_answer_of_an_infill_begins_at_its_first_mask():
    [prompt] = prompts(lengths=(12,))
    holed = [MASK if i in (4, 7, 8) else token for i, token in enumerate(prompt)]
    options = NEVER | {"answer_refresh": 2, "ratio": 0.25}
    _, forwards = layers_of(toy_model(), [holed], None, options, gen_length=0, block_length=4)
    assert [len(run[1]) for run in forwards] == [12, 2, 8]
    assert forwards[2][1] == list(range(4, 12)) and min(forwards[1][1]) >= 4


def test_with_shifted_logits_the_position_before_the_answer_goes_with_it():
    options = NEVER | {"answer_refresh": 2, "ratio": 0.5}
    _, forwards = layers_of(toy_model(shift=True), prompts(lengths=(5,)), None, options, gen_length=4)
    assert [run[1] for run in forwards][::2] == [list(range(9)), list(range(4, 9))]
    assert [len(run[1]) for run in forwards][1::2] == [2, 2]


def test_rows_at_other_steps_run_no_more_than_alone():
    """A row that does not refresh does not run with one that does. All canvases are ten long here."""
    model, options = toy_model(), {"prompt_refresh": 9, "answer_refresh": 3}
    given = prompts(lengths=(8, 3, 5))
    with layers_run(model) as calls:
        kept(model, given, None, options, gen_length=[2, 7, 5], batch_size=2)
    together = sum(len(row) for _, rows in calls for row in rows)
    alone = 0
    for prompt, length in zip(given, [2, 7, 5], strict=True):
        with layers_run(model) as calls:
            kept(model, [prompt], None, options, gen_length=length)
        alone += sum(len(row) for _, rows in calls for row in rows)
    assert together == alone


def test_a_lookahead_computes_what_its_step_computes_and_every_step_has_a_forward():
    """Scores that a lookahead leaves do not stand for a forward, which is what keeps the features up to date."""
    model, options = toy_model(), {"prompt_refresh": 4, "answer_refresh": 2, "ratio": 0.5}
    [prompt] = prompts(lengths=(5,))
    asked = {"sampler": "info-gain", "cache": "dllm-cache", "cache_options": options, "trace": True, "gen_length": 4}
    with layers_run(model) as calls:
        [reused] = mdm.decode(model, [prompt], **asked)
    [again] = mdm.decode(model, [prompt], reuse_scores=False, **asked)
    assert essence(reused) == essence(again) and reused.forwards == again.forwards
    sizes = [[len(row) for row in rows] for layer, rows in calls if layer == 1]
    own, ahead = [s for s in sizes if len(s) == 1], [s for s in sizes if len(s) > 1]
    assert [s[0] for s in own if s][:1] == [9]
    assert [set(s) for s in ahead] == [{9}, {2}, {4}]


def test_a_forward_that_broke_off_is_run_whole(monkeypatch):
    """What it had stored would be compared with itself: nothing would have changed."""
    model, given, options = toy_model(), prompts(lengths=(5, 5)), NEVER | {"ratio": 0.25}
    broken = []
    rank = DllmCache.rank

    def once(self, layer, new, old):
        out = rank(self, layer, new, old)
        if not broken:
            broken.append(layer)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    monkeypatch.setattr(DllmCache, "rank", once)
    with layers_run(model) as calls:
        kept(model, given, None, options, gen_length=4)
    of_second = [[len(row) for row in rows] for layer, rows in calls if layer == 1]
    assert broken and of_second == [[9, 9], [9], [9], [1], [1], [1], [1]]


def test_nothing_waits_for_the_device():
    """Beside the one transfer of a step: as many as without a cache."""
    model = toy_model()
    found = []
    for cache in ("none", "dllm-cache"):
        with counting(model) as counts:
            decode(model, prompts(), plain(), cache)
        found.append((counts.syncs, counts.pageable))
    assert found[0] == found[1]


def test_projections_that_were_joined_are_met_alone():
    """As on a GPU, where q, k and v are one product."""
    joined, apart = toy_model.__wrapped__(), toy_model()
    products.join(joined.body)
    options = {"answer_refresh": 3, "ratio": 0.5}
    assert [essence(r) for r in kept(joined, options=options)] == [essence(r) for r in kept(apart, options=options)]
    attention, states = joined.body.layers[0].self_attn, torch.randn(2, 3, WIDTH)
    torch.testing.assert_close(
        products.alone(attention.v_proj, states), apart.body.layers[0].self_attn.v_proj(states), rtol=0, atol=1e-6
    )


def test_memory_counts_what_is_kept():
    model, mode = toy_model(), DllmCache(DllmCacheOptions())
    store = FeatureStore(mode.rank, mode.full_layers, model, 2, 10)
    tokens, at = torch.zeros(2, 10, dtype=torch.long), torch.arange(10).expand(2, -1)
    view = store.full([0, 1], write=True)
    view.run(model.body, tokens, at, None, view)
    held = sum(getattr(layer, n).nbytes for layer in store.layers for n in layer.names if getattr(layer, n) is not None)
    token = 2 * (KV_HEADS * WIDTH // 4 + WIDTH) * 4
    assert held == (LAYERS - mode.full_layers) * 2 * 10 * token
    assert memory.kept_bytes(model, 10, features=True) == LAYERS * 10 * token  # the first layer too, to be safe


def test_memory_is_asked_for_before_it_is_taken(monkeypatch):
    model = toy_model()
    free = 40 * (memory.kept_bytes(model, 20, features=True) + 20 * (memory.POSITION_BYTES))
    monkeypatch.setattr("mdm.models.placement.free_bytes", lambda device: free)
    given, options = [[1, 2, 3, 4]] * 41, {"gen_length": 16, "steps": 1, "batch_size": 41}
    mdm.decode(model, given, "confidence", cache="dual", **options)
    with pytest.raises(MdmError, match="batch_size too large: 41 canvases .* at most 40"):
        mdm.decode(model, given, "confidence", cache="dllm-cache", **options)


def test_refusals(models):
    def refused(model, line, **settings):
        with pytest.raises(MdmError, match=line):
            mdm.decode(model, [[1, 2]], "confidence", cache="dllm-cache", gen_length=2, **settings)

    refused(toy_model("block-causal"), "for full models, and toy has block-causal attention: use --cache block|none")
    refused(toy_model(kv=False), "cache 'dllm-cache' needs keys and values, which a toy model has not")
    refused(models["llada"], "works inside the layers does not go with --compile", compile=True)
    refused(toy_model(), "option dllm-cache.ratio=1.5", cache_options={"ratio": 1.5})
    hooked = toy_model.__wrapped__()
    hooked.body.layers[1]._hf_hook = object()
    refused(hooked, "toy has weights that do not lie on one device, so no cache works inside its layers")
    strange = toy_model.__wrapped__()
    strange.body.layers[1].extra = torch.nn.Identity()
    refused(strange, "toy has layers of another kind")


def test_a_plan_for_layers_is_for_a_layer_cache():
    class Confused(BaseCache):
        def plan(self, state, spec):
            return Plan(state.in_canvas, state.in_canvas, state.in_canvas, watched=state.in_canvas)

    class Silent(DllmCache):
        def plan(self, state, spec):
            return Plan(state.in_canvas, state.in_canvas, state.in_canvas)

    class Ranks(DllmCache):
        def rank(self, layer, new, kept):
            return new.sum(-1).bool()

    class Fails(DllmCache):
        def rank(self, layer, new, kept):
            raise ValueError("oh")

    for mode, line in ((Ranks, "what rank returned is bool"), (Fails, "cache Fails failed in rank: ValueError: oh")):
        with pytest.raises(MdmError, match=line):
            decode(toy_model(), prompts(), plain(), mode(DllmCacheOptions()))
    with pytest.raises(MdmError, match="Plan.watched is for a LayerCache"):
        decode(toy_model(), prompts(), plain(), Confused(NoOptions()))
    with pytest.raises(MdmError, match="Plan.watched is None, and should be bool"):
        decode(toy_model(), prompts(), plain(), Silent(DllmCacheOptions()))


@pytest.mark.parametrize("far", [1e-1, 1e-3, 1e-5])
def test_values_are_ranked_by_their_cosine_also_near_one(far):
    random = torch.Generator().manual_seed(0)
    old = torch.randn(1, 50, 64, generator=random).double()
    new = old + far * torch.rand(1, 50, 1, generator=random) * torch.randn(1, 50, 64, generator=random)
    rank = DllmCache(DllmCacheOptions()).rank(1, new.float(), old.float())
    cosine = torch.nn.functional.cosine_similarity(new.float().double(), old.float().double(), dim=-1)
    assert torch.equal(rank[0, :].argsort(descending=True)[:10], cosine[0].argsort()[:10])
