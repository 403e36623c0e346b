"""Nothing is lost: tokens and order are those of one token a step; what is saved is what the definition says."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.errors import MdmError
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SHAPE = {"gen_length": 12, "block_length": 6}
FOLLOWED = [({}, "confidence"), ({"draft_steps": 9}, "confidence"), ({"order": "left-to-right"}, "left-to-right")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def order(result):
    """Positions and their tokens in the order of the steps that commit them."""
    return [pair for line in result.trace for pair in zip(line["positions"], line["tokens"], strict=True)]


@pytest.mark.parametrize(
    ("family", "cache"),
    [
        ("llada", "none"),
        ("llada", "prefix"),
        ("llada", "dual"),
        ("dream", "dual"),
        ("llada2", "block"),
        ("sdar", "block"),
    ],
)
@pytest.mark.parametrize(("options", "followed"), FOLLOWED, ids=str)
def test_nothing_is_lost(tmp_path, family, cache, options, followed):
    model = mdm.load_model(save(tmp_path / family, family), device="cpu", dtype="float32")
    shape = {"cache": cache, **SHAPE}
    if family == "sdar":
        shape["block_length"] = 4
    plain = mdm.decode(model, PROMPTS, followed, **shape)
    for reuse in (True, False):
        fast = mdm.decode(model, PROMPTS, "freedave", options, reuse_scores=reuse, **shape)
        for mine, other in zip(fast, plain, strict=True):
            assert mine.sequence == other.sequence
            taken = iter(order(other))
            for line in mine.trace:  # it is sorted by position
                pairs = list(zip(line["positions"], line["tokens"], strict=True))
                assert pairs == sorted(next(taken) for _ in pairs)
        if reuse:
            assert sum(len(r.trace) for r in fast) < sum(len(r.trace) for r in plain)


def step(model, canvas, block, threshold=None):
    """What a step of the decoder that is followed commits, and the masks that it would go on with, best first."""
    log_p = model.score_logits(torch.tensor([canvas]))[0].log_softmax(-1)
    log_p[:, MASK] = -torch.inf
    masks = sorted((p for p in block if canvas[p] == MASK), key=lambda p: -float(log_p[p].max()))
    pairs = [(p, int(log_p[p].argmax())) for p in masks]
    sure = 0 if threshold is None else sum(float(log_p[p].max().exp()) >= threshold for p in masks)
    return pairs[: max(sure, 1)], pairs[max(sure, 1) :]


def filled(canvas, pairs):
    out = list(canvas)
    for p, token in pairs:
        out[p] = token
    return out


@pytest.mark.parametrize(("drafts", "threshold"), [(1, None), (3, None), (3, 0.2), (8, 0.15)])
def test_as_many_steps_as_their_own_scores_confirm(model, drafts, threshold):
    prompt, options = PROMPTS[0], {"draft_steps": drafts, "confidence_threshold": threshold}
    [result] = mdm.decode(model, [prompt], "freedave", options, cache="none", **SHAPE)
    canvas, steps, forwards = prompt + [MASK] * 12, [], 2
    for start in (6, 12):
        block = range(start, start + 6)
        while MASK in canvas[start : start + 6]:
            first, rest = step(model, canvas, block, threshold)
            size = 0
            for _ in range(drafts):
                target, _ = step(model, filled(canvas, first + rest[:size]), block, threshold)
                size = max(n for n in range(min(drafts, len(rest) + 1)) if {*rest[size:n]} <= {*target} or n <= size)
            canvas = filled(canvas, first + rest[:size])
            steps.append(sorted(first + rest[:size]))
            forwards += bool(rest)
    assert [list(zip(x["positions"], x["tokens"], strict=True)) for x in result.trace] == steps
    assert result.forwards == forwards


def test_longer_drafts_save_steps(model):
    steps = [
        sum(len(r.trace) for r in mdm.decode(model, PROMPTS, "freedave", {"draft_steps": n}, cache="none", **SHAPE))
        for n in (1, 2, 4)
    ]
    assert steps[0] == 36 and steps == sorted(steps, reverse=True) and steps[2] < 36


def test_an_answer_is_the_same_up_to_its_end_token(model):
    """What a step drafts behind an end token has not seen the fill; no token before it can differ, left to right."""
    [free, *_] = mdm.decode(model, PROMPTS, "left-to-right", cache="none", gen_length=12)
    shape = {"stop_at_eos": True, "eos_token_id": free.tokens[4], "cache": "none", "gen_length": 12}
    plain = mdm.decode(model, PROMPTS, "left-to-right", **shape)
    fast = mdm.decode(model, PROMPTS, "freedave", {"order": "left-to-right"}, **shape)
    for a, b in zip(plain, fast, strict=True):
        end = [*a.tokens, free.tokens[4]].index(free.tokens[4])
        assert a.tokens[:end] == b.tokens[:end] and MASK not in b.sequence


@pytest.mark.parametrize("options", [{"draft_steps": 0}, {"confidence_threshold": 1.5}, {"order": "random"}])
def test_what_is_refused(model, options):
    with pytest.raises(MdmError, match=f"freedave.{next(iter(options))}"):
        mdm.decode(model, PROMPTS, "freedave", options, **SHAPE)
