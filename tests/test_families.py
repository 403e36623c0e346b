"""Every family under every cache it can use: rows alone and together, exact caches, refreshes, rules."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm import registry
from mdm.scoring.statistics import statistics
from mdm_testing.probe import Watched, essence, prompts
from tiny_families import MASK, save, save_masked
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

FULL, GRID = ("none", "prefix", "dual"), ("none", "prefix", "dual", "block")
CACHES = {
    "llada": FULL, "llada-moe": FULL, "dream": FULL, "mmada": FULL, "sdar": GRID, "sdar-moe": GRID, "llada2": GRID,
    "diffcoder": GRID, "fastdllm2": GRID, "mlm": ("none",),
}  # fmt: skip
ON_GRID = [family for family, caches in CACHES.items() if caches is GRID]
CASES = [pytest.param(family, cache, id=f"{family}-{cache}") for family, caches in CACHES.items() for cache in caches]
KEPT = [case for case in CASES if case.values[1] != "none"]
SAMPLERS = {
    "confidence": {}, "info-gain": {"candidates": 4},
    "joint-threshold": {"threshold": 0.4, "edit_threshold": 0.2, "max_post_steps": 3},
}  # fmt: skip
PROMPTS = prompts(250, (5, 11, 3, 8))
SHAPE = {"gen_length": 8, "block_length": 4}
CLOSE = 1e-4
"""How far two float32 forwards of one canvas may differ (nats, logits)."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each family's tiny model, loaded once."""
    made = {}
    for family in CACHES:
        folder = tmp_path_factory.mktemp(family)
        save_masked(folder) if family == "mlm" else save(folder, family)
        made[family] = mdm.load_model(folder, device="cpu", dtype="float32")
    return made


def decoded(model, of, sampler, cache, **more):
    return mdm.decode(model, of, sampler, SAMPLERS[sampler], cache, **SHAPE | more)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("family", "cache"), CASES)
def test_a_row_does_not_depend_on_its_neighbours(models, family, cache, sampler):
    """Rows of different lengths, some in other blocks, one making place for another, decode as they do alone."""
    lengths = [7, 3, 6, 5]
    together = decoded(models[family], PROMPTS, sampler, cache, gen_length=lengths, batch_size=3)
    edits = sum(line["kind"] == "edit" for result in together for line in result.trace)
    assert bool(edits) == (sampler == "joint-threshold"), f"{edits} edits"
    for i in (1, 2):
        [alone] = decoded(models[family], [PROMPTS[i]], sampler, cache, gen_length=lengths[i], row_ids=[i])
        assert essence(alone) == essence(together[i])
        assert (alone.forwards, alone.rows) == (together[i].forwards, together[i].rows)
        assert alone.cumulative_entropy == pytest.approx(together[i].cumulative_entropy, abs=CLOSE)


EXACT = [
    *(pytest.param(family, cache, {}, name) for family in ON_GRID for cache in GRID[1:] for name in SAMPLERS),
    *(
        pytest.param(family, cache, {"refresh": 1}, sampler)
        for family, caches in CACHES.items()
        if caches is FULL
        for cache in FULL[1:]
        for sampler in ("confidence", "joint-threshold")
    ),
]


@pytest.mark.parametrize(("family", "cache", "options", "sampler"), EXACT)
def test_an_exact_cache_decides_as_none_does(models, family, cache, options, sampler):
    """Block-causal: what lies before a block is final, and what lies behind is not seen. Else: refreshed every step."""
    plain = decoded(models[family], PROMPTS, sampler, "none")
    kept = decoded(models[family], PROMPTS, sampler, cache, cache_options=options)
    for one, other in zip(plain, kept, strict=True):
        assert essence(one) == essence(other)
        assert one.cumulative_entropy == pytest.approx(other.cumulative_entropy, abs=CLOSE)


@pytest.mark.parametrize("family", ["llada", "dream", "mmada"])
def test_a_cache_that_is_not_refreshed_is_not_exact(models, family):
    """Else the test above could not tell."""
    plain, kept = (decoded(models[family], PROMPTS, "confidence", cache) for cache in ("none", "dual"))
    assert [essence(r) for r in plain] != [essence(r) for r in kept]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("family", "cache"), [case for case in KEPT if case.values[1] != "block"])
def test_a_refresh_scores_as_none_does(models, family, cache, sampler):
    """Where a row enters a block, its scores are those of the plain forward of the canvas it has come to."""
    model, plugin = models[family], registry.resolve("sampler", sampler)
    watched = Watched(plugin(plugin.Options(**SAMPLERS[sampler])))
    mdm.decode(model, PROMPTS, watched, cache=cache, **SHAPE)
    compared = 0
    for seen in watched.decided:
        for row in seen.state.entered_block.nonzero().flatten().tolist():
            canvas = seen.state.tokens[row : row + 1, : int(seen.state.in_canvas[row].sum())]
            true = statistics(model.score_logits(canvas, SHAPE["block_length"])[0], never=MASK)
            at = seen.scores.positions[row][seen.scores.valid[row]]
            for name in ("entropy", "log_odds"):
                given = getattr(seen.scores, name)[row][seen.scores.valid[row]]
                torch.testing.assert_close(given, getattr(true, name)[at], atol=10 * CLOSE, rtol=0)
            compared += len(at)
    ends = [len(p) + SHAPE["gen_length"] for p in PROMPTS]
    if model.spec.attention == "block-causal" and model.spec.rounds_up:
        ends = [-(-end // 4) * 4 for end in ends]
    assert compared == sum(ends) - sum(map(len, PROMPTS))


class Penalty(LogitsProcessor):
    """A processor as people write their own."""

    def __init__(self, penalties):
        self.penalties = penalties

    def __call__(self, input_ids, scores):
        taken = torch.zeros_like(scores)
        for token, amount in self.penalties.items():
            taken[:, token] += amount
        return scores - taken


FEW, MANY = list(range(40, 80)), list(range(100, 200))
RULES = {
    "suppressed": ({"suppressed_tokens": MANY}, SuppressTokensLogitsProcessor(MANY)),
    "allowed": ({"allowed_tokens": [(40, 80)]}, PrefixConstrainedLogitsProcessor(lambda row, ids: FEW, 1)),
}


@pytest.fixture(params=["penalties", *RULES])
def rule(request):
    """Settings, and the processor that does the same, for a model whose best tokens are known."""

    def of(free):
        if request.param in RULES:
            return RULES[request.param]
        ids = [result.tokens[0] for result in free]  # penalties of tokens that are drawn make a difference
        settings = {"eos_token_id": ids[0], "eos_penalty": 6.0, "pad_token_id": ids[1], "pad_penalty": 4.0}
        return settings, Penalty({ids[0]: 6.0, ids[1]: 4.0})

    return of


RULED = [("llada", "none"), ("dream", "prefix"), ("sdar", "block")]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("family", "cache"), RULED)
def test_a_rule_is_transformers_processor(models, family, cache, sampler, rule):
    """Ours and theirs decide the same, whether a lookahead's scores stand for the next forward or not."""

    def decisions(**more):
        return decoded(models[family], PROMPTS[:2], sampler, cache, gen_length=6, **more)

    free = decisions()
    settings, processor = rule(free)
    ours = [essence(r) for r in decisions(**settings)]
    theirs = decisions(logits_processors=LogitsProcessorList([processor]))
    assert ours == [essence(r) for r in theirs]
    assert ours == [essence(r) for r in decisions(reuse_scores=False, **settings)]
    assert ours != [essence(r) for r in free], "the rule changes nothing here"


@pytest.mark.parametrize(("family", "cache"), RULED)
def test_a_processor_sees_the_canvas_that_is_scored(models, family, cache):
    """A repetition penalty depends on the canvas: a lookahead's, with its candidate, is the next step's."""

    def decisions(**more):
        rows = decoded(models[family], PROMPTS[:2], "info-gain", cache, **more)
        return [essence(r) for r in rows]

    settings = {"logits_processors": [RepetitionPenaltyLogitsProcessor(1.8)]}
    assert decisions(**settings) == decisions(reuse_scores=False, **settings)
    assert decisions(**settings) != decisions()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("family", "cache"), RULED)
def test_guidance(models, family, cache, sampler):
    """Two guises ride in one forward; a row's neighbours and the reuse of scores change nothing."""

    def decisions(of, **more):
        return [essence(r) for r in decoded(models[family], of, sampler, cache, guidance=0.8, **more)]

    together = decisions(PROMPTS[:2])
    assert together == decisions(PROMPTS[:2], reuse_scores=False)
    assert together[0] == decisions(PROMPTS[:1])[0]
    assert together != [essence(r) for r in decoded(models[family], PROMPTS[:2], sampler, cache)]


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_guidance_is_its_formula(models, family):
    """The first commit is the best of u + (w + 1)(c - u), u from the canvas whose prompt is masked."""
    model, prompt = models[family], PROMPTS[1]
    canvas = torch.tensor([prompt + [MASK] * 4])
    blind = canvas.clone()
    blind[:, : len(prompt)] = MASK
    c, u = (model.score_logits(x, 4)[0, len(prompt) :] for x in (canvas, blind))
    logits = u + 1.8 * (c - u)
    logits[:, MASK] = -torch.inf
    step = mdm.decode(model, [prompt], "left-to-right", gen_length=4, block_length=4, guidance=0.8)[0].trace[0]
    assert step["positions"] == [len(prompt)] and step["tokens"] == [int(logits[0].argmax())]
