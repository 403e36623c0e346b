"""A zoo of wrong samplers: each ends, with the right check named and its place, and elsewhere in one line."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time

import mdm
import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.protocols import BaseSampler, NoOptions
from mdm_testing import checks, run, subject, toy_model
from mdm_testing.check_command import check
from mdm_testing.limits import TimeIsUp, time_limit
from mdm_testing.suite import KINDS, check_names

FRESH = itertools.count()
HEAD = """
import sys, time
import torch
from mdm.protocols import BaseSampler, Commit, Evaluate, top_k


def best(state, scores):
    return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)


def looking(state, scores, **more):
    first = top_k(scores.log_odds, scores.valid, state.budget)
    where = torch.stack([first, top_k(-scores.log_odds, scores.valid, state.budget)], 1)
    return where, Evaluate(Commit(where, scores.token[:, None].expand_as(where)), where.any(-1), **more)


class X(BaseSampler):
    "Is wrong."
"""
DECIDE = "    def decide(self, state, scores, memory, draws):\n        "
OTHER_SCORES = """where, asked = looking(state, scores)
        ahead = yield asked
        return Commit(where[:, 0], scores.token, scores=ahead.pick(torch.ones_like(state.budget)))"""
OTHER_TOKENS = """where = best(state, scores).where[:, None].expand(-1, 2, -1)
        tokens = torch.stack([scores.token, (scores.token + 1) % 250], 1)
        ahead = yield Evaluate(Commit(where, tokens), where.any(-1))
        return Commit(where[:, 0], scores.token, scores=ahead.pick(torch.ones_like(state.budget)))"""
INVALID = """where, asked = looking(state, scores)
        yield asked
        more = top_k(scores.log_odds, scores.valid, state.budget + state.row_id % 2)  # rows of different lengths
        return Commit(more | ~scores.valid, scores.token)"""
LOOKS_ONLY = """where, asked = looking(state, scores)
        yield asked
        return Commit(where[:, 0] & False, scores.token)"""
PING_PONG = """masked = state.masked.gather(1, scores.positions)
        first = scores.positions == state.block_bounds[:, :1]
        return Commit(first & scores.valid, torch.where(masked, scores.token, state.mask_id))"""
EDITS = """masked = state.masked.gather(1, scores.positions)
        return Commit(scores.valid, torch.where(masked, scores.token, (scores.token + state.step[:, None]) % 250))"""
LINGERS = "\n    def lingers(self, state, memory): return ~state.masked_in_block.any(1)\n"
REVISES = "    reads, pace = 'generated', 'own'\n"

ZOO = {
    # what it does: its class's body, the check that is for it, and what a decode of it says
    "another candidate's scores": (DECIDE + OTHER_SCORES, "scores_it_returns_are_true", "did not choose"),
    "scores of other tokens": (DECIDE + OTHER_TOKENS, "scores_it_returns_are_true", "did not choose"),
    "this step's scores": (
        DECIDE + "return Commit(best(state, scores).where, scores.token, scores=scores)",
        "always_ends", "answer no Evaluate of this step",
    ),
    "invalid places behind a lookahead": (
        "    pace = 'own'\n" + DECIDE + INVALID, "commits_only_what_it_was_shown", "commits position",
    ),
    "invalid places": (
        DECIDE + "return Commit(best(state, scores).where | ~scores.valid, scores.token)",
        "commits_only_what_it_was_shown", "commits position",
    ),
    "nothing": (DECIDE + "return Commit(scores.valid & False, scores.token)", "always_ends", "committed no token"),
    "nothing behind lookaheads": (DECIDE + LOOKS_ONLY, "always_ends", "in the last 16 steps, though it looked ahead"),
    "takes back": (REVISES + DECIDE + PING_PONG, "always_ends", "without coming to an end"),
    "edits for ever": (REVISES + DECIDE + EDITS + LINGERS, "always_ends", "without coming to an end"),
    "lingers for ever": (DECIDE + "return best(state, scores)" + LINGERS, "always_ends", "without coming to an end"),
    "is done at once": (
        DECIDE + "return best(state, scores)\n    def finished(self, state, memory): return state.masked.any(1)",
        "always_ends", "masks left",
    ),
    "writes into the state": (
        DECIDE + "state.masked.fill_(False)\n        return best(state, scores)",
        "changes_nothing_it_is_given", "masks left",
    ),
    "looks for ever": (
        DECIDE + "while True: yield looking(state, scores)[1]", "always_ends", "has looked ahead 128 times",
    ),
    "leaves": (DECIDE + "sys.exit(0)", "always_ends", "failed in decide: SystemExit: 0"),
    "raises a base exception": (DECIDE + "raise BaseException('no')", "always_ends", "BaseException: no"),
    "ends its generator": (DECIDE + "raise GeneratorExit", "always_ends", "failed in decide: GeneratorExit"),
    "no device": (
        DECIDE + "return Commit(torch.ones(scores.valid.shape).bool() & scores.valid, scores.token)",
        "makes_its_tensors_on_the_device", None,
    ),
}  # fmt: skip


def made(body):
    space = {"__name__": "wrong"}
    exec(HEAD + body, space)
    return space["X"]


@pytest.mark.parametrize("name", ZOO)
def test_the_right_check_names_it(name):
    body, promise, _ = ZOO[name]
    start = time.monotonic()
    found = {outcome.check: outcome for outcome in run(subject("sampler", made(body)), names=[promise], timeout=60)}
    assert found[promise].status == "failed" and not found[promise].same_as, found
    assert time.monotonic() - start < 60


@pytest.mark.attack("plugins: wrong samplers")
@pytest.mark.parametrize("name", [name for name, (_, _, says) in ZOO.items() if says])
def test_a_decode_of_it_is_one_line(name):
    body, _, says = ZOO[name]
    with pytest.raises(MdmError) as error:
        mdm.decode(toy_model(), ["hi", "a longer one"], made(body)(NoOptions()), gen_length=[4, 9])
    assert says in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("sampler X") and str(error.value).endswith("(package wrong)")


def test_what_one_wrote_into_harms_no_other():
    """A budget of the engine, which later decodes would be given again."""
    body = DECIDE + "state.budget.zero_()\n        return best(state, scores)"
    plain = DECIDE + "return best(state, scores)"
    with pytest.raises(MdmError, match="gets nowhere"):
        mdm.decode(toy_model(), ["hi"], made(body)(NoOptions()), gen_length=4)
    assert mdm.decode(toy_model(), ["hi"], made(plain)(NoOptions()), gen_length=4)[0].tokens


def install(site, body):
    number = next(FRESH)
    name, module = f"wrong-{number}", f"fake_wrong_{number}"
    site.package(f"fake-wrong-{number}", {"mdm.samplers": {name: f"{module}:X"}}, HEAD + body)
    return name, module


@pytest.mark.parametrize("name", ["another candidate's scores", "invalid places behind a lookahead"])
def test_both_wrong_lookaheads_end_a_run_with_one_line(site, tmp_path, name):
    body, promise, says = ZOO[name]
    plugin, _ = install(site, body)
    out = str(tmp_path / "run")
    short = ["--limit", "3", "--gen-length", "4", "--device", "cpu"]
    for command in (["run", "--out", out, *short], ["generate", "1+1=", *short[2:]]):
        if command[0] == "generate" and says == "commits position":
            continue  # of a row alone all is valid
        done = CliRunner().invoke(cli, [*command, "--sampler", plugin])
        assert isinstance(done.exception, MdmError) and says in str(done.exception), done.output
    done = CliRunner().invoke(cli, ["check", plugin, "-x", "--json", "-k", promise, "-k", "commits"])
    *_, last = json.loads(done.stdout)["checks"]
    assert (last["check"], last["status"], last["same_as"]) == (promise, "failed", "")


def test_the_check_that_is_for_it_comes_first_and_stops():
    found = list(run(subject("sampler", made(DECIDE + OTHER_SCORES)), names=["stays_in_its_span", "scores_it_returns"]))
    assert [(o.check, o.same_as) for o in found] == [
        ("scores_it_returns_are_true", ""), ("stays_in_its_span", "scores_it_returns_are_true"),
    ]  # fmt: skip


HANGS = {"in a loop": "while True: pass", "in a sleep": "time.sleep(10**8)", "and swallows": "while True:\n"
         "            try: time.sleep(10**8)\n            except BaseException: self.options = None; break\n"
         "        while True: pass"}  # fmt: skip


@pytest.mark.parametrize("how", HANGS)
def test_a_check_that_hangs_is_named_with_its_place(site, how):
    toy_model()  # made once; not in the time of the first check
    plugin, module = install(site, DECIDE + HANGS[how])
    done = CliRunner().invoke(
        check, [plugin, "-k", "always_ends", "-k", "waits_for_nothing", "--timeout", "0.5"], standalone_mode=False
    )
    text = " ".join(done.output.split())
    assert done.return_value == 1 and "always_ends failed: it has not ended after 0.5 s" in text, text
    assert re.search(rf"at \S*{module}\S*:\d+ and so, for the same reason: waits_for_nothing", text), text


def test_a_ctrl_c_is_no_time_limit():
    with pytest.raises(KeyboardInterrupt) as error, time_limit(60):
        raise KeyboardInterrupt
    assert not isinstance(error.value, TimeIsUp)
    with time_limit(0.01):
        pass
    time.sleep(0.05)  # nothing rings behind the block


def test_one_error_is_told_once_with_its_line(site):
    plugin, module = install(site, DECIDE + "return [][0]")
    done = CliRunner().invoke(
        cli, ["check", plugin, "-k", "always_ends", "-k", "fills_holes", "-k", "is_a_pure", "--json"]
    )
    found = json.loads(done.stdout)["checks"]
    assert [c["status"] for c in found] == ["failed"] * 3
    assert [c["same_as"] for c in found] == ["", found[0]["check"], found[0]["check"]]
    line = (HEAD + DECIDE).count("\n") + 1
    assert re.search(rf"{module}\S*:{line}$", found[0]["where"])


TOLD_ONCE = {
    "return None": r"sampler X: decide returned None, which is no Commit \(package",
    "return Commit(torch.zeros(3, 5).bool(), scores.token)": r"sampler X: Commit.where is bool \[3, 5\] .*should be",
    "return Commit(scores.log_odds + torch.zeros(2, 7), scores.token)": r"sampler X failed in decide: RuntimeError: ",
    "return Commit(scores.valid & False, scores.token)": "sampler X gets nowhere",
}


@pytest.mark.parametrize("decides", TOLD_ONCE)
def test_one_cause_is_told_once_by_the_name_of_the_plugin(decides):
    found = [outcome for outcome in run(subject("sampler", made(DECIDE + decides)), timeout=60) if not outcome.ok]
    [told] = [outcome for outcome in found if not outcome.same_as]
    assert len(found) > 10 and {outcome.same_as for outcome in found} == {"", told.check}
    assert re.match(TOLD_ONCE[decides], told.detail)
    assert not any(re.search(r"Watched|Guard|PromptError|MdmError|with \{\}", outcome.detail) for outcome in found)


def test_what_hangs_twice_is_not_run_again():
    """Only the checks that would ask it again; each of these waits would be as long as the time limit."""
    body = DECIDE + "while True:\n            state.step.max()\n            state.step.min()"
    toy_model()
    found = {outcome.check: outcome for outcome in run(subject("sampler", made(body)), timeout=0.5)}
    hung = [outcome for outcome in found.values() if not outcome.ok]
    assert [outcome.detail for outcome in hung[:2]] == ["it has not ended after 0.5 s"] * 2
    assert {outcome.detail for outcome in hung[2:]} == {f"not run: it hangs as in {hung[0].check}"}
    assert {outcome.same_as for outcome in hung[1:]} == {hung[0].check} and len(hung) > 10
    assert found["options_refuse_unknown_names"].status == found["it_says_what_it_does"].status == "passed"


def test_a_time_limit_outside_of_the_plugin_says_so():
    def waits(of):
        """Waits in the kit."""
        time.sleep(60)

    *_, found = run(subject("sampler", made(DECIDE + "pass")), [waits], names=["waits"], timeout=0.1)
    assert (found.check, found.where) == ("waits", "") and found.detail.endswith("raise --timeout")


def test_an_option_without_a_default_fails_one_check():
    space = {"__name__": "wrong"}
    options = "from mdm.protocols import NoOptions\nclass Needs(NoOptions):\n    t: float\n"
    exec(options + HEAD + "    Options = Needs\n" + DECIDE + "return best(state, scores)", space)
    for given in ({}, {"t": 2}):
        failed = [(o.check, o.detail) for o in run(subject("sampler", space["X"], options=given)) if not o.ok]
        assert failed == [("options_refuse_unknown_names", "option t has no default")]
    with pytest.raises(MdmError, match="option t is missing"):
        list(run(subject("sampler", space["X"]), names=["always_ends"]))


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_ctrl_c_keeps_what_came_out(site, more):
    plugin, _ = install(site, DECIDE + "raise KeyboardInterrupt")
    done = CliRunner().invoke(check, [plugin, *more], standalone_mode=False)
    assert done.return_value == 130
    assert re.search(r"mdm: interrupted in \w+\n$", done.stderr) and "options_refuse_unknown_names" in done.stdout
    if more:
        report = json.loads(done.stdout)
        assert not report["ok"] and {outcome["status"] for outcome in report["checks"]} == {"passed"}


def test_a_log_says_what_is_waited_for(site, monkeypatch):
    monkeypatch.setattr("mdm_testing.check_command.EVERY", 0.05)
    plugin, _ = install(site, DECIDE + "time.sleep(10**8)")
    done = CliRunner().invoke(check, [plugin, "-k", "always_ends", "--timeout", "0.5"], standalone_mode=False)
    assert f"checking sampler {plugin}: 1. always_ends\n" in done.stderr


def test_names_of_checks_are_known_before_anything_is_imported():
    for kind in KINDS:
        for one in checks(kind):
            check_names(kind, [one.name])
        with pytest.raises(MdmError, match=f"no check of a {kind} has such a name"):
            check_names(kind, ["nosuch"])
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom mdm.cli import cli\n"
        "for more in (['-k', 'nosuch'], ['--data', 'x'], ['-o', 'x']):\n"
        "    done = CliRunner().invoke(cli, ['check', 'confidence', *more])\n"
        "    assert type(done.exception).__name__ == 'MdmError', done.output\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_minus_x_stops_and_minus_k_chooses(site):
    plugin, _ = install(site, DECIDE + "return [][0]")
    found = json.loads(CliRunner().invoke(cli, ["check", plugin, "-x", "--json"]).stdout)["checks"]
    assert [c["status"] for c in found].count("failed") == 1 and found[-1]["status"] == "failed"
    found = json.loads(CliRunner().invoke(cli, ["check", plugin, "-k", "options_refuse", "--json"]).stdout)["checks"]
    assert [c["check"] for c in found] == ["options_refuse_unknown_names"]
    done = CliRunner().invoke(cli, ["check", plugin, "-k", "always_end_s"])
    assert "no check of a sampler has such a name. Did you mean 'always_ends'?" in str(done.exception)


@pytest.mark.parametrize(
    ("init", "says"),
    [("raise ValueError('no')", r"ValueError: no \(\S+:\d+\)"), ("time.sleep(10**8)", "takes more than")],
)
def test_a_sampler_that_cannot_be_made_is_one_line(site, init, says):
    body = f"    def __init__(self, options):\n        {init}\n" + DECIDE + "return best(state, scores)"
    plugin, _ = install(site, body)
    done = CliRunner().invoke(cli, ["check", plugin, "--timeout", "0.2"])
    assert isinstance(done.exception, MdmError) and re.search(f"cannot be made: .*{says}", str(done.exception))


def test_a_wrong_option_is_one_line():
    done = CliRunner().invoke(cli, ["check", "confidence", "-o", "no_such=1"])
    assert isinstance(done.exception, MdmError) and "no_such" in str(done.exception)


def test_samplers_have_a_device_check_that_our_own_pass():
    class Weighs(BaseSampler):
        """Makes its weights where the canvas lies."""

        def decide(self, state, scores, memory, draws):
            import torch
            from mdm.protocols import Commit, top_k

            weights = torch.tensor([1.0] * len(scores.valid), device=state.device)
            return Commit(top_k(scores.log_odds * weights[:, None], scores.valid, state.budget), scores.token)

    [found] = run(subject("sampler", Weighs), names=["makes_its_tensors_on_the_device"])
    assert found.status == "passed"
