"""Samplers, caches and callbacks of strangers: whatever they answer ends in one line that names them."""

from __future__ import annotations

import re
import sys

import mdm
import pytest
import torch
from mdm.cli import main
from mdm.protocols import BaseCache, BaseSampler, Commit, Evaluate, NoOptions, Plan, top_k
from mdm_testing.toy import MASK, VOCABULARY, toy_model


class Plain(BaseSampler):
    """Keeps to the budget; ``twist`` is what a trial makes of its commit."""

    twist = staticmethod(lambda commit, state, scores: commit)

    def decide(self, state, scores, memory, draws):
        return self.twist(Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token), state, scores)


def changed(**fields):
    """A twist that changes fields of the commit; a function is given the commit, and ``scores``."""

    def twist(commit, state, scores):
        values = {name: value(commit, scores) if callable(value) else value for name, value in fields.items()}
        return Commit(**{"where": commit.where, "tokens": commit.tokens} | values)

    return twist


def fails(error):
    def twist(commit, state, scores):
        raise error

    return twist


def uncommits(commit, state, scores):
    return Commit(scores.valid, torch.full_like(scores.token, MASK))


TWISTS = {
    "nothing": (changed(where=lambda c, s: c.where & False), "gets nowhere"),
    "the mask": (uncommits, "gets nowhere"),
    "a token behind the vocabulary": (changed(tokens=lambda c, s: c.tokens + VOCABULARY), "commits token"),
    "a token of 2^62": (changed(tokens=lambda c, s: c.tokens * 0 + 2**62), f"commits token {2**62}"),
    "a negative token": (changed(tokens=lambda c, s: c.tokens - 10**6), "commits token -"),
    "where of one column": (changed(where=lambda c, s: c.where[:, :1]), "Commit.where is bool"),
    "tokens of one column": (changed(tokens=lambda c, s: c.tokens[:, :1]), "Commit.tokens is int64"),
    "where of one row more": (changed(where=lambda c, s: c.where.repeat(2, 1)), "Commit.where"),
    "where without rows": (changed(where=lambda c, s: c.where[0]), "Commit.where"),
    "where of numbers": (changed(where=lambda c, s: c.where.long()), "Commit.where is int64"),
    "tokens of floats": (changed(tokens=lambda c, s: c.tokens.float()), "Commit.tokens is float32"),
    "tokens of int32": (changed(tokens=lambda c, s: c.tokens.int()), "Commit.tokens is int32"),
    "tokens elsewhere": (changed(tokens=lambda c, s: c.tokens.to("meta")), "Commit.tokens is int64 .* on meta"),
    "where of a list": (changed(where=lambda c, s: c.where.tolist()), "Commit.where is"),
    "where None": (changed(where=None), "Commit.where is None"),
    "tokens None": (changed(tokens=None), "Commit.tokens is None"),
    "a source out of range": (changed(source=lambda c, s: torch.tensor([7])), "Commit.source names row 7"),
    "a negative source": (changed(source=lambda c, s: torch.tensor([-1])), "Commit.source names row -1"),
    "a source of floats": (changed(source=lambda c, s: torch.tensor([0.0])), "Commit.source is float32"),
    "no source": (
        changed(
            source=lambda c, s: torch.tensor([], dtype=torch.long), where=lambda c, s: c.where[:0],
            tokens=lambda c, s: c.tokens[:0],
        ),
        "leaves no row of prompt 0",
    ),
    "a list as source": (changed(source=[0]), "Commit.source is"),
    "known of a wrong shape": (changed(known=lambda c, s: c.where), "Commit.known"),
    "bypass of a wrong shape": (changed(bypass=lambda c, s: c.where), "Commit.bypass"),
    "scores of a stranger": (changed(scores={"a": 1}), "Commit.scores is"),
    "memory of a stranger": (changed(memory={"a": 1}), "Commit.memory is"),
    "None": (lambda *_: None, "decide returned None"),
    "a text": (lambda *_: "all", "decide returned 'all'"),
    "a list": (lambda *_: [1] * 10**5, "decide returned"),
    "a class": (lambda *_: Commit, "decide returned"),
    "StopIteration": (fails(StopIteration("x")), "failed in decide: StopIteration"),
    "two lines": (fails(ValueError("one\ntwo")), "failed in decide: ValueError: one"),
    "no words": (fails(ZeroDivisionError()), "failed in decide: ZeroDivisionError"),
    "recursion": (fails(RecursionError("deep")), "failed in decide: RecursionError"),
    "an exit of a generator": (fails(GeneratorExit if False else StopAsyncIteration()), "StopAsyncIteration"),
}  # fmt: skip


def twisted(twist):
    return type("Stranger", (Plain,), {"twist": staticmethod(twist)})(NoOptions())


def line_of(sampler, **how):
    """The one line that a decode ends in, which names sampler and package."""
    how = {"gen_length": 2} | how
    with pytest.raises(mdm.MdmError) as error:
        mdm.decode(toy_model(), ["hi"], sampler, **how)
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.mark.attack("numbers: samplers of strangers")
@pytest.mark.parametrize("name", TWISTS)
def test_what_a_stranger_commits(name):
    twist, words = TWISTS[name]
    line = line_of(twisted(twist))
    assert line.startswith("sampler Stranger") and line.endswith("(package tests)")
    assert re.search(words, line), line


@pytest.mark.wide
@pytest.mark.attack("numbers: samplers of strangers")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("name", TWISTS)
def test_what_a_stranger_commits_under_every_cache(name, cache, temperature):
    assert line_of(twisted(TWISTS[name][0]), cache=cache, temperature=temperature).startswith("sampler Stranger")


class Looks(BaseSampler):
    """Looks ahead with whatever ``asked`` makes, ``times`` times."""

    times = 1
    asked = staticmethod(lambda where, tokens: Evaluate(Commit(where, tokens), where.any(-1)))

    def decide(self, state, scores, memory, draws):
        where = top_k(scores.log_odds, scores.valid, state.budget)[:, None]
        for _ in range(self.times):
            yield self.asked(where, scores.token[:, None])
        return Commit(where[:, 0], scores.token)


def asks(times, asked):
    return type("Stranger", (Looks,), {"times": times, "asked": staticmethod(asked)})(NoOptions())


def evaluating(**fields):
    def asked(where, tokens):
        values = {name: value(where, tokens) if callable(value) else value for name, value in fields.items()}
        commit = Commit(values.pop("where", where), values.pop("tokens", tokens))
        return Evaluate(**{"candidates": commit, "valid": where.any(-1)} | values)

    return asked


ASKS = {
    "for ever": (10**9, Looks.asked, "gets nowhere: it has looked ahead 128 times"),
    "a commit": (1, lambda w, t: Commit(w[:, 0], t[:, 0]), "decide yielded"),
    "nothing": (1, lambda w, t: None, "decide yielded None"),
    "no candidates": (1, evaluating(valid=lambda w, t: w.any(-1)[:, :0]), "Evaluate.valid"),
    "valid of a wrong shape": (1, evaluating(valid=lambda w, t: w), "Evaluate.valid"),
    "valid of numbers": (1, evaluating(valid=lambda w, t: w.any(-1).long()), "Evaluate.valid is int64"),
    "where of one column": (1, evaluating(where=lambda w, t: w[..., :1]), "Evaluate.candidates.where"),
    "tokens of floats": (1, evaluating(tokens=lambda w, t: t.float()), "Evaluate.candidates.tokens"),
    "more candidates than valid": (1, evaluating(where=lambda w, t: w.repeat(1, 3, 1)), "Evaluate.candidates.where"),
    "a reach that is none": (1, evaluating(reach="far"), "Evaluate.reach is 'far'"),
    "candidates that are none": (1, evaluating(candidates=5), "decide yielded"),
}


@pytest.mark.attack("numbers: lookaheads of strangers")
@pytest.mark.parametrize("name", ASKS)
def test_what_a_stranger_asks(name):
    times, asked, words = ASKS[name]
    line = line_of(asks(times, asked))
    assert line.startswith("sampler Stranger") and words in line, line


@pytest.mark.attack("numbers: lookaheads of strangers")
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("shift", [VOCABULARY, -(10**9)])
def test_candidates_out_of_the_vocabulary_break_nothing(shift, cache):
    stranger = asks(1, evaluating(tokens=lambda w, t: t + shift))
    plain = asks(1, Looks.asked)
    answers = [mdm.decode(toy_model(), ["hi"], each, gen_length=4, cache=cache)[0].tokens for each in (stranger, plain)]
    assert answers[0] == answers[1]


METHODS = {
    "begin": [5, {"a": 1}],
    "finished": [None, True, lambda state: state.masked, lambda state: state.step],
    "lingers": [None, 1, lambda state: state.masked],
    "pick": [],
}


@pytest.mark.attack("numbers: samplers of strangers")
@pytest.mark.parametrize(("method", "answer"), [(m, a) for m, answers in METHODS.items() for a in answers])
def test_what_a_stranger_says_of_rows(method, answer):
    given = lambda self, state, *more: answer(state) if callable(answer) else answer  # noqa: E731
    line = line_of(type("Stranger", (Plain,), {method: given})(NoOptions()))
    assert line.startswith("sampler Stranger") and method in line


@pytest.mark.attack("numbers: samplers of strangers")
@pytest.mark.parametrize("error", [StopIteration("x"), KeyError(5), RuntimeError("a\nb")])
@pytest.mark.parametrize("method", ["begin", "finished", "lingers"])
def test_what_a_stranger_raises(method, error):
    def given(self, *more):
        raise error

    line = line_of(type("Stranger", (Plain,), {method: given})(NoOptions()))
    assert line.startswith(f"sampler Stranger failed in {method}: {type(error).__name__}")


class Plans(BaseCache):
    uses_kv = False
    answer = None

    def plan(self, state, spec):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(state) if callable(self.answer) else self.answer


PLANS = {
    "None": (None, "plan returned None"),
    "an error": (StopIteration(3), "failed in plan: StopIteration"),
    "numbers": (lambda s: Plan(s.tokens, s.masked, s.masked), "Plan.query is int64"),
    "one row": (lambda s: Plan(s.masked[0], s.masked, s.masked), "Plan.query"),
    "None inside": (lambda s: Plan(s.masked, None, s.masked), "Plan.write is None"),
}


@pytest.mark.attack("numbers: caches of strangers")
@pytest.mark.parametrize("name", PLANS)
def test_what_a_stranger_plans(name):
    answer, words = PLANS[name]
    cache = type("Strange", (Plans,), {"answer": staticmethod(answer) if callable(answer) else answer})(NoOptions())
    line = line_of("confidence", cache=cache)
    assert line.startswith("cache Strange") and words in line


@pytest.mark.attack("numbers: hooks that change lines")
@pytest.mark.parametrize("trace", [True, "full"])
@pytest.mark.parametrize("sampler", ["confidence", "info-gain", "remdm"])
def test_what_a_hook_does_to_lines_changes_nothing(sampler, trace):
    def spoils(event):
        for line in event.lines:
            line["tokens"][:] = [0] * len(line["tokens"])
            line["positions"].clear()
            line["entropy"].append(1e9)
            line.clear()

    how = {"gen_length": 4, "trace": trace}
    spoilt, plain = (mdm.decode(toy_model(), ["hi"], sampler, on_step=hook, **how)[0] for hook in (spoils, None))
    assert spoilt == plain


@pytest.mark.attack("numbers: hooks that raise")
@pytest.mark.parametrize("sampler", ["confidence", "info-gain", "beam"])
def test_stop_iteration_of_a_callback_is_no_commit(sampler):
    def stops(event):
        raise StopIteration("x")

    with pytest.raises(mdm.MdmError, match=r"stops raised StopIteration: x, which does not end a decode"):
        mdm.decode(toy_model(), ["hi"], sampler, gen_length=4, on_step=stops)


@pytest.mark.attack("numbers: the command line")
@pytest.mark.parametrize(
    "flags",
    [
        ["--guidance", "nan"], ["--temperature", "inf"], ["--eos-penalty", "1e400"], ["--gen-length", str(10**12)],
        ["--steps", str(10**12)], ["--seed", str(10**30)], ["-o", "candidates=1000000000"], ["-o", "threshold=.nan"],
        ["-o", "position_temperature=.inf"], ["--sampler", "eb", "-o", "gamma=1e999"], ["--top-k", str(2**64)],
        ["--sampler", "beam", "-o", f"beam_size={10**9}"], ["--temperature", "1e-300"], ["--max-rows", str(10**40)],
    ],
)  # fmt: skip
def test_the_command_line_says_it_in_one_line(flags, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mdm", "generate", "1+1=", "--device", "cpu", *flags])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and len(err.strip().splitlines()) == 1, err
