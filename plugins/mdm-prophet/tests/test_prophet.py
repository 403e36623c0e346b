"""When it ends is what the definition says, with forwards of its own; until then it is ``confidence``."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.errors import MdmError
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SHAPE = {"gen_length": 12, "block_length": 6}
NEVER = {"early": 99.0, "mid": 99.0, "late": 99.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def essence(result):
    return [(line["step"], line["positions"], line["tokens"]) for line in result.trace], result.forwards


def definition(model, prompt, steps, options):
    """What each step commits: 12 masks in two blocks, evenly over the steps."""
    canvas, out = prompt + [MASK] * 12, []
    start = options.get("answer_start")
    region = range(12) if start is None else range(start, min(12, start + options.get("answer_length", 5)))
    while MASK in canvas:
        logits = model.score_logits(torch.tensor([canvas]))[0].clone()
        logits[:, MASK] = -torch.inf
        leads = [float(top[0] - top[1]) for top in logits[[len(prompt) + i for i in region]].topk(2).values]
        progress = (len(out) + 1) / steps
        enough = options["early"] if progress < 0.33 else options["mid"] if progress < 0.67 else options["late"]
        confidence = logits.softmax(-1).amax(-1)
        masks = [i for i, token in enumerate(canvas) if token == MASK]
        if sum(leads) / len(leads) < enough:
            block = [i for i in masks if (i - len(prompt)) // 6 == (masks[0] - len(prompt)) // 6]
            masks = sorted(sorted(block, key=lambda i: -float(confidence[i]))[: 12 // steps])
        out.append((len(out), masks, logits[masks].argmax(-1).tolist()))
        for i, token in zip(*out[-1][1:], strict=True):
            canvas[i] = token
    return out


@pytest.mark.parametrize("steps", [12, 6])
@pytest.mark.parametrize(
    "options",
    [
        NEVER,
        {"early": 0.0, "mid": 0.0, "late": 0.0},
        NEVER | {"mid": 0.0},
        NEVER | {"late": 0.6},
        {"early": 1.6, "mid": 0.9, "late": 0.6, "answer_start": 2},
        {"early": 0.9, "mid": 0.9, "late": 0.6, "answer_start": 8, "answer_length": 2},
        {"early": 1.2, "mid": 0.7, "late": 0.1, "answer_start": 10},
    ],
    ids=str,
)
def test_it_ends_where_the_definition_does(model, steps, options):
    results = mdm.decode(model, PROMPTS, "prophet", options, cache="none", steps=steps, **SHAPE)
    for prompt, result in zip(PROMPTS, results, strict=True):
        expected = definition(model, prompt, steps, options)
        assert essence(result) == (expected, len(expected))


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_lead_that_nothing_has_leaves_confidence(model, cache):
    plain = mdm.decode(model, PROMPTS, "confidence", cache=cache, **SHAPE)
    mine = mdm.decode(model, PROMPTS, "prophet", NEVER, cache=cache, **SHAPE)
    assert [essence(r) for r in mine] == [essence(r) for r in plain]
    nowhere = {"answer_start": 40, "early": 0.0, "mid": 0.0, "late": 0.0}
    mine = mdm.decode(model, PROMPTS, "prophet", nowhere, cache=cache, **SHAPE)
    assert [essence(r) for r in mine] == [essence(r) for r in plain]


@pytest.mark.parametrize(("cache", "steps"), [("none", 2), ("prefix", 2), ("dual", 3)])
def test_what_is_committed_at_once_is_what_the_forward_computes(model, cache, steps):
    """The second of 6 steps ends it; under ``dual`` the block, and the first step of the next one, that."""
    options = NEVER | {"mid": 0.0, "late": 0.0}
    for result in mdm.decode(model, PROMPTS, "prophet", options, cache=cache, steps=6, **SHAPE):
        assert len(result.trace) == result.forwards == steps
        assert MASK not in result.sequence


def test_each_option_changes_something(model):
    def decoded(**options):
        plain = NEVER | {"mid": 1.0, "answer_start": 4}
        results = mdm.decode(model, PROMPTS, "prophet", plain | options, cache="none", **SHAPE)
        return [essence(result) for result in results]

    plain = decoded()
    for change in (
        {"answer_start": None}, {"answer_start": 0}, {"answer_length": 1}, {"early": 0.1}, {"mid": 0.1}, {"late": 0.0}
    ):  # fmt: skip
        assert decoded(**change) != plain, change


@pytest.mark.parametrize("options", [{"answer_start": -1}, {"answer_length": 0}, {"early": -0.5}, {"gap": 5}])
def test_what_is_refused(model, options):
    with pytest.raises(MdmError, match=f"prophet.{next(iter(options))}"):
        mdm.decode(model, PROMPTS, "prophet", options, **SHAPE)
