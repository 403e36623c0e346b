"""FreeDave, SOAR, DCD, Prophet and particles on a family of each kind, under each of its caches."""

from __future__ import annotations

from functools import lru_cache

import mdm
import pytest
from tiny_families import EOS, MASK, SCRATCH, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SAMPLERS = {
    "freedave": {"draft_steps": 3},
    "soar": {"threshold": 0.3, "max_beam_size": 3},
    "dcd": {"initial_window_length": 5, "decode_param": 0.3},
    "prophet": {"early": 1.5, "mid": 1.0, "late": 0.5},
    "particles": {"particles": 3},
}
PLACES = [
    *[(family, cache) for family in ("llada", "dream") for cache in ("none", "prefix", "dual")],
    *[(family, cache) for family in ("llada2", "sdar") for cache in ("none", "block")],
]


@lru_cache(maxsize=4)
def model(family):
    return mdm.load_model(save(SCRATCH / f"sb-{family}", family), device="cpu", dtype="float32")


def order(result):
    return [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in result.trace]


@pytest.mark.parametrize(("family", "cache"), PLACES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8, "stop_at_eos": True}], ids=["plain", "drawn"])
def test_a_prompt_decodes_the_same_alone_and_as_rows_come_and_go(sampler, family, cache, settings):
    options = SAMPLERS[sampler]
    settings = {"cache": cache, "gen_length": 8, "block_length": 4, "eos_token_id": EOS, **settings}
    together = mdm.decode(model(family), PROMPTS, sampler, options, batch_size=2, **settings)
    [alone] = mdm.decode(model(family), PROMPTS[2:], sampler, options, row_ids=[2], **settings)
    assert order(alone) == order(together[2]) and alone.forwards == together[2].forwards
    for prompt, result in zip(PROMPTS, together, strict=True):
        canvas = prompt + [MASK] * (len(result.sequence) - len(prompt))
        for _, positions, tokens, _ in order(result):
            assert all(canvas[p] == MASK for p in positions)
            for p, token in zip(positions, tokens, strict=True):
                canvas[p] = token
        assert canvas == result.sequence and MASK not in canvas


@pytest.mark.parametrize("schedule", ["dream", "cosine"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_of_none_is_harmless(sampler, schedule):
    """The schedule of Dream has steps that commit nothing."""
    for result in mdm.decode(
        model("llada"), PROMPTS, sampler, SAMPLERS[sampler], cache="none", gen_length=8, block_length=8, steps=12,
        schedule=schedule,
    ):  # fmt: skip
        assert MASK not in result.sequence
