"""What beams are kept is what the definition says, with forwards of its own."""

from __future__ import annotations

import math

import mdm
import pytest
import torch
from mdm.errors import MdmError
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
SHAPE = {"gen_length": 12, "block_length": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def essence(results):
    return [([(x["positions"], x["tokens"], x["kind"]) for x in r.trace], r.forwards, r.rows) for r in results]


def successors(model, canvas, options):
    """What a beam becomes, as (what is added to its score, its commit), and whether it was sure."""
    start = next(s for s in (len(canvas) - 12, len(canvas) - 6) if MASK in canvas[s : s + 6])
    log_p = model.score_logits(torch.tensor([canvas]))[0].log_softmax(-1)
    p = log_p.exp().index_fill(-1, torch.tensor([MASK]), -1.0)
    masks = [i for i in range(start, start + 6) if canvas[i] == MASK]
    masks.sort(key=lambda i: -float(p[i].max()))
    gain = {i: float(p[i].max()) for i in masks}
    if options["score"] == "log-probability":
        gain = {i: math.log(g) for i, g in gain.items()}
    sure = [i for i in masks if float(p[i].max()) > options["threshold"]]
    sets = [sure[: options["max_parallel"]]] if sure else [[i] for i in masks[: options["max_beam_size"]]]
    return [(sum(gain[i] for i in each), {i: int(p[i].argmax()) for i in each}) for each in sets], bool(sure)


def definition(model, prompt, options):
    """The commits of the best beam, step by step, and how many beams each step had."""
    beams, widths = [(0.0, prompt + [MASK] * 12, [])], []
    while MASK in beams[0][1]:
        widths.append(len(beams))
        found, any_sure = [], False
        for score, canvas, path in beams:
            after, sure = successors(model, canvas, options)
            any_sure |= sure
            for gain, commit in after:
                grown = [commit.get(i, token) for i, token in enumerate(canvas)]
                found.append((score + gain, grown, [*path, sorted(commit.items())]))
        found.sort(key=lambda beam: -beam[0])
        kept = []
        for beam in found:
            if beam[1] not in [other[1] for other in kept]:
                kept.append(beam)
        beams = kept[: 1 if any_sure else options["max_beam_size"]]
    return beams[0][2], widths


DEFAULTS = {"max_beam_size": 3, "threshold": 1.0, "max_parallel": 5, "score": "probability"}


@pytest.mark.parametrize(
    "changes",
    [{}, {"threshold": 0.25}, {"threshold": 0.2, "max_parallel": 2}, {"threshold": 0.2, "score": "log-probability"}],
    ids=str,
)
def test_beams_are_the_definitions(model, changes):
    options = DEFAULTS | changes
    results = mdm.decode(model, PROMPTS, "soar", options, cache="none", **SHAPE)
    for prompt, result in zip(PROMPTS, results, strict=True):
        path, widths = definition(model, prompt, options)
        assert [list(zip(x["positions"], x["tokens"], strict=True)) for x in result.trace] == path
        assert (result.forwards, result.rows) == (len(widths), sum(widths))


def test_each_option_changes_something(model):
    def decoded(**options):
        return essence(
            mdm.decode(model, PROMPTS, "soar", DEFAULTS | {"threshold": 0.3} | options, cache="none", **SHAPE)
        )

    plain = decoded()
    for change in ({"max_beam_size": 1}, {"threshold": 1.0}, {"max_parallel": 1}, {"score": "log-probability"}):
        assert decoded(**change) != plain, change


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_one_beam_without_sure_tokens_is_confidence(model, cache):
    plain = mdm.decode(model, PROMPTS, "confidence", cache=cache, **SHAPE)
    one = mdm.decode(model, PROMPTS, "soar", {"max_beam_size": 1, "threshold": 1.0}, cache=cache, **SHAPE)
    assert essence(one) == essence(plain)


def test_beams_with_fills_end_together(model):
    [free] = mdm.decode(model, PROMPTS[:1], "soar", {"max_beam_size": 3}, **SHAPE)
    for end in free.tokens[:4]:
        options = {"max_beam_size": 3, "threshold": 0.3}
        results = mdm.decode(model, PROMPTS, "soar", options, stop_at_eos=True, eos_token_id=end, **SHAPE)
        assert len(results) == len(PROMPTS) and all(MASK not in r.sequence for r in results)


def test_drawn_tokens_are_the_same_in_any_batch(model):
    options = {"temperature": 1.0, **SHAPE}
    together = mdm.decode(model, PROMPTS, "soar", {"max_beam_size": 3}, **options)
    [alone] = mdm.decode(model, PROMPTS[1:2], "soar", {"max_beam_size": 3}, row_ids=[1], **options)
    assert essence([alone]) == essence([together[1]])


@pytest.mark.parametrize("options", [{"max_beam_size": 0}, {"threshold": 1.5}, {"max_parallel": 0}, {"score": "logit"}])
def test_what_is_refused(model, options):
    with pytest.raises(MdmError, match=f"soar.{next(iter(options))}"):
        mdm.decode(model, PROMPTS, "soar", options, **SHAPE)
