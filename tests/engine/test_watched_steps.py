"""``mdm.steps``: the same tokens as ``mdm.decode``, one step at a time, with logits where they are asked for."""

from __future__ import annotations

import gc
import weakref

import mdm
import pytest
import torch
from mdm.engine import engine as engines
from mdm.errors import MdmError
from mdm.protocols import BaseSampler, Commit, NoOptions
from mdm_testing.toy import MASK, VOCABULARY, toy_model

PROMPTS = ["hello", "a longer prompt", [5, MASK, 7]]
SHORT = {"gen_length": 8, "block_length": 4}


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        ("info-gain", {"cache": "dual"}),
        ("confidence", {"tokens_per_step": 2, "batch_size": 2}),
        ("confidence", {"temperature": 1.0, "seed": 3, "trace": "full"}),
        ("remdm", {"guidance": 0.5, "unconditional": ["no", "no", [MASK, 7]]}),
        ("confidence", {"stop_at_eos": True}),
    ],
)
def test_steps_are_those_of_a_decode(model, sampler, more):
    call = SHORT | more
    decoded = mdm.decode(model, PROMPTS, sampler, **call)
    run = mdm.steps(model, PROMPTS, sampler, logits=True, **call)
    steps = list(run)
    assert run.results == decoded
    for prompt, result in enumerate(decoded):
        own = [step for step in steps if step.prompt == prompt]
        assert [line for step in own for line in step.lines] == result.trace
        assert [step.step for step in own] == list(range(len(own))) and list(own[-1].canvas) == result.sequence
        for step in own:
            assert all(step.canvas[place] == token for place, token in zip(step.positions, step.tokens, strict=True))
            assert len(step.kinds) == len(step.entropies) == len(step.positions)
            assert step.logits.shape == (len(step.scored), VOCABULARY) and step.logits.dtype == torch.float32
            committed = {place for place, kind in zip(step.positions, step.kinds, strict=True) if kind == "commit"}
            assert committed <= set(step.scored)


def test_of_beams_each_has_its_steps(model):
    run = mdm.steps(model, ["hello"], "beam", logits=True, **SHORT)
    steps = list(run)
    assert run.results == mdm.decode(model, ["hello"], "beam", **SHORT)
    last = [step for step in steps if step.step == steps[-1].step]
    assert len(last) > 1 and run.results[0].sequence in [list(step.canvas) for step in last]


@pytest.mark.parametrize("shift", [False, True])
def test_logits_are_the_models_own(shift):
    model = toy_model(shift=shift)
    prompt = model.encode("hello")
    before = [*prompt, *[MASK] * 8]
    # Rules change what is committed, and not what the model says.
    for step in mdm.steps(model, [prompt], "confidence", logits=True, suppressed_tokens=[3], temperature=0.5, **SHORT):
        said = model.score_logits(torch.tensor([before]), positions=torch.tensor(step.scored))[0]
        torch.testing.assert_close(step.logits, said)
        assert [before[place] for place in step.scored] == [MASK] * len(step.scored)
        before = list(step.canvas)


def test_guided_logits_are_merged(model):
    prompt, weight = model.encode("hello"), 0.5
    [first, *_] = mdm.steps(model, [prompt], "confidence", logits=True, guidance=weight, **SHORT)
    both = torch.tensor([[*prompt, *[MASK] * 8], [MASK] * (len(prompt) + 8)])
    said, unsaid = model.score_logits(both, positions=torch.tensor(first.scored))
    torch.testing.assert_close(first.logits, unsaid + (weight + 1) * (said - unsaid))


def test_texts_and_values_for_a_notebook(model):
    steps = list(mdm.steps(model, ["hello"], "left-to-right", gen_length=3))
    assert steps[0].text.startswith("hello") and steps[0].text.endswith("[MASK]" * 2)
    assert "[MASK]" not in steps[-1].text and steps[0].logits is None
    assert repr(steps[1]).startswith(
        f"Step(prompt=0, step=1, positions=[6], tokens=[{steps[1].tokens[0]}], kinds=['commit'], "
    )


def test_the_results_come_with_the_last_step_and_are_what_the_generator_returns(model):
    run = mdm.steps(model, ["hello"], "confidence", **SHORT)
    with pytest.raises(MdmError, match="no results yet: they are there when all steps are taken"):
        _ = run.results

    def inner():
        results = yield from run
        returned.append(results)

    returned = []
    assert len(list(inner())) == 8
    assert returned == [run.results] == [mdm.decode(model, ["hello"], "confidence", **SHORT)]


def test_a_loop_that_is_left_frees_all_and_the_next_begins_anew(model, monkeypatch):
    made = []
    begin = engines.Engine.__init__

    def noted(engine, *args, **more):
        made.append(weakref.ref(engine))
        begin(engine, *args, **more)

    monkeypatch.setattr(engines.Engine, "__init__", noted)
    run = mdm.steps(model, ["hello"], "confidence", cache="dual", **SHORT)
    for step in run:
        first = step.canvas
        assert made[0]() is not None
        break
    gc.collect()
    assert made[0]() is None, "an engine outlives the loop that was left"
    assert next(step.canvas for step in run) == first and len(made) == 2


class Ends(BaseSampler):
    def decide(self, state, scores, memory, draws):
        raise StopIteration


def test_a_sampler_ends_no_loop(model):
    with pytest.raises(MdmError, match="Ends.* raised StopIteration|Ends.*StopIteration"):
        list(mdm.steps(model, ["hello"], Ends(NoOptions()), **SHORT))


class Invents(BaseSampler):
    """Goes on with scores of its own making."""

    def decide(self, state, scores, memory, draws):
        from dataclasses import replace

        where = scores.valid & (scores.positions == scores.positions.where(scores.valid, 10**6).amin(1, keepdim=True))
        return Commit(where, scores.token, scores=replace(scores, features=None))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"logits": 1}, "logits is 1: it is True or False"),
        ({"stepss": 4}, "there is no option 'stepss'. Did you mean 'steps'?"),
        ({"trace": "all"}, "trace is 'all'"),
        ({"on_finish": 3}, "on_finish is 3: it should be a function"),
    ],
)
def test_what_is_refused_is_refused_at_once(model, call, said):
    with pytest.raises(MdmError) as caught:
        mdm.steps(model, ["hello"], "confidence", **SHORT, **call)
    assert said in str(caught.value)


def test_scores_that_are_the_samplers_own_are_refused(model):
    with pytest.raises(MdmError, match="Invents: Commit.scores answer no Evaluate of this step"):
        list(mdm.steps(model, ["hello"], Invents(NoOptions()), logits=True, **SHORT))
