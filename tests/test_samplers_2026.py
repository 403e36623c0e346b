"""core, saber, credit, local-leap, dus, slow-fast and p2 under each cache on a family of each kind, in batches."""

from __future__ import annotations

from functools import lru_cache

import mdm
import pytest
from mdm_testing.probe import essence
from tiny_families import MASK, SCRATCH, save

OPTIONS = {
    "p2": {"eta": 1.4},
    "core": {"every": 2, "remask_k": 2, "revise": "margin"},
    "saber": {"n": 3},
    "credit": {"threshold": 0.5},
    "local-leap": {"anchor_threshold": 0.2, "neighbor_threshold": 0.1},
    "dus": {},
    "slow-fast": {"k_exploration_steps": 2, "cycle_len_confidence_threshold": 0.4, "high_confidence_threshold": 0.4},
}
GRIDS = ("sdar", "llada2")
CELLS = [(family, cache) for family in ("llada", "dream") for cache in ("none", "prefix", "dual")]
CELLS += [(family, "block") for family in GRIDS]
PROMPTS = [[3, 14, 15, 92], [2, 71, 82, 81, 82, 84, 59, 4, 52], [6, 62]]


@lru_cache
def model(family, block):
    folder = SCRATCH / f"samplers-2026-{family}-{block}"
    changes = {"block_size": block} if family == "sdar" else {}
    return mdm.load_model(save(folder, family, **changes), device="cpu", dtype="float32")


def decode(family, cache, sampler, rows=(0, 1, 2), **settings):
    """Of ``core``, which leaves the last 16 positions of a block as they are, longer answers in longer blocks."""
    block, lengths = (20, [28, 20, 24]) if sampler == "core" else (6, [14, 9, 12])
    sizes = {} if family in GRIDS else {"block_length": block}
    return mdm.decode(
        model(family, block), [PROMPTS[i] for i in rows], sampler, OPTIONS[sampler], cache=cache, row_ids=list(rows),
        gen_length=[lengths[i] for i in rows], tokens_per_step=2, **sizes, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("sampler", OPTIONS)
@pytest.mark.parametrize(("family", "cache"), CELLS)
def test_a_batch_is_its_rows(sampler, family, cache):
    """Each of which ends, under an exact cache as without one."""
    together = decode(family, cache, sampler, batch_size=2)
    [alone] = decode(family, "none" if family in GRIDS else cache, sampler, (1,))
    assert essence(together[1]) == essence(alone) and together[1].forwards == alone.forwards
    for result in together:
        assert MASK not in result.sequence and result.forwards < 2 * len(result.tokens)
    if sampler in ("core", "saber", "p2"):
        kinds = {line["kind"] for result in together for line in result.trace if line["positions"]}
        assert kinds == {"commit", "edit" if sampler == "core" else "remask"}


@pytest.mark.parametrize("sampler", OPTIONS)
def test_draws_and_an_end_in_between_do_no_harm(sampler):
    settings = {"temperature": 0.9, "stop_at_eos": True, "eos_token_id": 7, "schedule": "dream"}
    together = decode("llada", "dual", sampler, batch_size=2, **settings)
    [alone] = decode("llada", "dual", sampler, (1,), **settings)
    assert essence(together[1]) == essence(alone)
    assert all(MASK not in result.sequence for result in together)
