"""A full trace says what the model believed and what the sampler weighed, and changes nothing else."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.protocols.hooks import plain
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [7, 1]]
SHAPE = {"gen_length": 8, "block_length": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def by_forward(model, canvas):
    """Entropy and probabilities of every position, from a plain forward."""
    log_p = model.score_logits(torch.tensor([canvas]))[0].log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1), log_p.exp()


@pytest.mark.parametrize("sampler", ["confidence", "info-gain", "lookum"])
@pytest.mark.parametrize("more", [{}, {"tokens_per_step": 2, "temperature": 0.8}, {"cache": "dual"}], ids=str)
def test_a_full_trace_only_adds(model, sampler, more):
    short = mdm.decode(model, PROMPTS, sampler, **SHAPE, **more)
    full = mdm.decode(model, PROMPTS, sampler, **SHAPE, **more, trace="full")
    for a, b in zip(short, full, strict=True):
        assert a.trace == [plain(line) for line in b.trace]
        assert not any({"confidence", "weighed"} & line.keys() for line in a.trace)
        assert all(len(line["confidence"]) == len(line["entropy"]) for line in b.trace)
        # A lone candidate is the greedy commit: it is not counted as tried either.
        assert all(len(line["weighed"]) == line["candidates"] for line in b.trace)


@pytest.mark.parametrize("sampler", ["info-gain", "lookum"])
def test_what_was_weighed_is_what_plain_forwards_say(model, sampler):
    [result] = mdm.decode(model, PROMPTS[:1], sampler, {"candidates": "all"}, **SHAPE, trace="full")
    canvas = PROMPTS[0] + [MASK] * SHAPE["gen_length"]
    compared = 0
    for line in result.trace:
        before, probability = by_forward(model, canvas)
        [position], [token] = line["positions"], line["tokens"]
        assert line["confidence"] == pytest.approx([float(probability[position, token])], abs=1e-4)
        canvas[position] = token
        left = [i for i, t in enumerate(canvas) if t == MASK]
        if line["weighed"]:
            compared += 1
            best = max(line["weighed"], key=lambda candidate: candidate["J"])
            assert best["positions"] == [position]
            assert best["H"] == pytest.approx(float(by_forward(model, canvas)[0][left].mean()), abs=1e-4)
            for candidate in line["weighed"]:
                assert candidate["C"] == pytest.approx(float(before[candidate["positions"]].sum()), abs=1e-4)
                cost = candidate["C"] if sampler == "info-gain" else 0
                assert candidate["J"] == pytest.approx(-candidate["H"] - cost, abs=1e-5)
    assert compared == 6  # every step but the last mask of each of the two blocks


def test_a_fill_is_certain_and_weighs_nothing(model):
    [free] = mdm.decode(model, PROMPTS[:1], "left-to-right", **SHAPE)
    end = free.tokens[3]
    [result] = mdm.decode(
        model, PROMPTS[:1], "left-to-right", stop_at_eos=True, eos_token_id=end, **SHAPE, trace="full"
    )
    [fill] = [line for line in result.trace if line["kind"] == "fill"]
    assert fill["confidence"] == [1.0] * len(fill["positions"]) and fill["weighed"] == []


def test_another_kind_of_trace_is_refused(model):
    with pytest.raises(mdm.MdmError, match="'fuller'"):
        mdm.decode(model, PROMPTS, trace="fuller", **SHAPE)
