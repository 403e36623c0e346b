"""A decode does not depend on how it is run: in any batch, however forwards are split, the same tokens in one order."""

from __future__ import annotations

from typing import Any

import mdm
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from mdm import registry
from mdm_testing import toy_model
from mdm_testing.probe import essence
from mdm_testing.toy import BYTES, EOS, MASK

VARIATIONS: dict[str, dict[str, Any]] = {
    "one prompt at a time": {"batch_size": 1},
    "two prompts at a time": {"batch_size": 2},
    "one row a forward": {"max_rows": 1},
    "three rows a forward": {"max_rows": 3},
    "scores computed anew": {"reuse_scores": False},
    "a full trace": {"trace": "full"},
}


@st.composite
def decodes(draw: st.DrawFn) -> dict[str, Any]:
    """A model and the arguments of ``mdm.decode``: any sampler and cache, ragged prompts, some of them with holes."""
    attention = draw(st.sampled_from(["full", "block-causal"]))
    shift = attention == "full" and draw(st.booleans())
    rows = draw(st.lists(st.tuples(st.lists(st.integers(0, BYTES - 1), min_size=1, max_size=12), st.integers(1, 9)),
                         min_size=1, max_size=4))  # fmt: skip
    holes = draw(st.sets(st.integers(1, 11)))
    few = 1 if attention == "full" else 12  # a block of a grid takes at least one
    pace = draw(st.fixed_dictionaries({"steps": st.integers(few, 16)})
                | st.fixed_dictionaries({"tokens_per_step": st.integers(1, 3)}))  # fmt: skip
    return {
        "model": toy_model(attention, shift=shift),
        "prompts": [[MASK if i in holes else token for i, token in enumerate(tokens)] for tokens, _ in rows],
        "gen_length": [length for _, length in rows],
        "sampler": draw(st.sampled_from(registry.names("sampler"))),
        "cache": draw(st.sampled_from(["none", "prefix", "dual", *["block"] * (attention == "block-causal")])),
        "block_length": draw(st.sampled_from([2, 4, 32])),
        "temperature": draw(st.sampled_from([0.0, 0.8])),
        "stop_at_eos": draw(st.booleans()),
        "eos_token_id": draw(st.sampled_from([EOS, 32])),
        **pace,
    }


def same_in_every_variation(decode: dict[str, Any]) -> None:
    results = mdm.decode(**decode)
    for prompt, result in zip(decode["prompts"], results, strict=True):
        assert MASK not in result.sequence
        assert all(token in (MASK, result.sequence[i]) for i, token in enumerate(prompt)), "a visible token has changed"
    for name, more in VARIATIONS.items():
        for row, (result, other) in enumerate(zip(results, mdm.decode(**decode, **more), strict=True)):
            assert essence(other) == essence(result), f"row {row} decodes otherwise with {name}"


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(decodes())
def test_a_few_decodes(decode):
    same_in_every_variation(decode)


@pytest.mark.wide
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(decodes())
def test_many_decodes(decode):
    same_in_every_variation(decode)
