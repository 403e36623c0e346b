"""docs/examples.md: its packages pass their tests, its mistakes are caught, and its path can be typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import torch
from goldens import ROOT
from mdm.protocols import Commit, Evaluate, Plan, ranks
from mdm_testing import checks, subject
from mdm_testing.suite import outcome
from stranger import stranger as stranger  # a fixture

PAGE = (ROOT / "docs" / "examples.md").read_text()
PACKAGES = [ROOT / "docs" / path for path in re.findall(r'^--8<-- "(tutorial/[\w-]+)/src', PAGE, re.M)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that makes the examples' packages known, and the path to import them: as an editable install does."""
    site = tmp_path_factory.mktemp("site")
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        info = site / f"{package.name.replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        wanted = "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"])
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head + wanted)
        (info / "entry_points.txt").write_text(
            "".join(f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
                    for group, points in project["entry-points"].items())
        )  # fmt: skip
    return [str(site), *(str(package / "src") for package in PACKAGES)]


def test_the_examples_pass_their_own_tests(installed):
    """All but the conformance of the last sampler, which the page types."""
    assert len(PACKAGES) == 5
    path = os.pathsep.join([*installed, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not patient-", *map(str, PACKAGES)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def mistakes():
    """The mistake of each line of the page's table -> its kind, and a plugin that makes it."""
    from mdm_choices import Choices
    from mdm_foresight import Foresight
    from mdm_interval import Interval
    from mdm_steady import Steady

    class AtLeastOne(Steady):
        def decide(self, state, scores, memory, draws):
            return super().decide(state.replace(budget=state.budget.clamp(min=1)), scores, memory, draws)

    class FourBest(Foresight):
        def decide(self, state, scores, memory, draws):
            best = scores.log_odds.topk(4).indices
            where = best[..., None] == scores.positions.new_tensor(range(scores.positions.shape[1]))
            ahead = yield Evaluate(Commit(where, scores.token[:, None].expand_as(where)), where.any(-1))
            return Commit(where[:, 0], scores.token, scores=ahead.pick(best[:, 0] * 0))

    class ByPlace(Steady):
        memory = None

        def begin(self, state):
            return None

        def decide(self, state, scores, memory, draws):
            if self.memory is None or self.memory.token.shape != state.tokens.shape:
                self.memory = super().begin(state)
            commit = super().decide(state, scores, self.memory, draws)
            self.memory = commit.memory
            return Commit(commit.where, commit.tokens)

    class OnlySteady(Steady):
        def decide(self, state, scores, memory, draws):
            memory = self.listen(scores, memory)
            steady = memory.times.gather(1, scores.positions) > 9
            return Commit(scores.valid & steady, scores.token, memory=memory)

    class InPlace(Steady):
        def listen(self, scores, memory):
            before = memory.token.gather(1, scores.positions)
            times = memory.times.gather(1, scores.positions).where(scores.token == before, 0) + 1
            memory.times.scatter_(1, scores.positions, times)
            memory.token.scatter_(1, scores.positions, scores.token)
            return memory

    class MeanOfAll(Steady):
        def key(self, scores, memory):
            return (scores.confidence - scores.confidence.mean()).abs()

    class Asks(Steady):
        def key(self, scores, memory):
            return super().key(scores, memory) if scores.valid.any() else scores.confidence

    class OnTheHost(Foresight):
        def decide(self, state, scores, memory, draws):
            first = torch.arange(self.options.candidates)[:, None]
            where = scores.valid[:, None] & (ranks(scores.log_odds, scores.valid)[:, None] == first)
            ahead = yield Evaluate(Commit(where, scores.token[:, None].expand_as(where)), where.any(-1))
            return Commit(where[:, 0], scores.token, scores=ahead.pick(state.budget * 0))

    class OfAnother(Foresight):
        def decide(self, state, scores, memory, draws):
            decision = super().decide(state, scores, memory, draws)
            ask = next(decision)
            ahead = yield Evaluate(ask.candidates, ask.valid)
            first = state.budget * 0
            last = first + ask.valid.shape[1] - 1
            rows = ask.valid[:, -1]
            return Commit(ask.candidates.where[:, 0], scores.token, scores=ahead.pick(last), known=rows)

    class CountsSteps(Interval):
        steps = 0

        def plan(self, state, spec):
            self.steps += 1
            whole = state.in_canvas & (self.steps % 4 == 1)
            return Plan(query=whole | state.in_block, write=whole, window=whole | state.in_block)

    class MissesLast(Interval):
        def plan(self, state, spec):
            plan = super().plan(state, spec)
            last = state.positions == state.block_bounds[:, 1:] - 1
            return Plan(query=plan.query, write=plan.write, window=plan.window & ~last)

    class AnyLetter(Choices):
        def grade(self, example, completion):
            return {"accuracy": float(any(letter in completion for letter in "ABCD"))}

    return {
        "state.budget.clamp(min=1)": ("sampler", AtLeastOne),
        "scores.log_odds.topk(4)": ("sampler", FourBest),
        "by place in the batch": ("sampler", ByPlace),
        "no commit until": ("sampler", OnlySteady),
        "memory.times": ("sampler", InPlace),
        "a mean over all rows": ("sampler", MeanOfAll),
        "if weighed.any():": ("sampler", Asks),
        "torch.arange(n)": ("sampler", OnTheHost),
        "the scores of another candidate": ("sampler", OfAnother),
        "a cache that counts steps": ("cache", CountsSteps),
        "`window` without": ("cache", MissesLast),
        "a grade that any letter": ("task", AnyLetter),
    }


def test_each_mistake_of_the_page_is_caught(installed, monkeypatch):
    for folder in installed[1:]:
        monkeypatch.syspath_prepend(folder)
    known = mistakes()
    lines = re.findall(r"^\| (.*?) \| [^|]* \| `(\w+)` \|$", PAGE.split("## What goes wrong")[1], re.M)
    assert len(lines) == len(known)
    for mistake, named in lines:
        [(kind, plugin)] = [plugin for words, plugin in known.items() if words in mistake]
        check = next(check for check in checks(kind) if check.name == named)
        found = outcome(check, subject(kind, plugin))
        assert found.status == "failed", f"{named} does not see: {mistake}"


def test_mdm_new_imports_no_torch(tmp_path):
    code = "import sys; from mdm_testing.scaffold import create; create('task', 'mine', __import__('pathlib').Path())"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.stdout == "False\n", done.stderr


@pytest.mark.wide
def test_the_path_to_a_lookahead_with_memory_can_be_typed(stranger):
    home, types = stranger
    path = PAGE.split("## Both, typed")[1].split("\n## ")[0]
    begin, finish = re.findall(r"^```console\n(.*?)^```", path, re.M | re.S)
    for line in begin.splitlines():
        said = types(line)
    assert ", 0 fail" in said
    [package] = [package for package in PACKAGES if package.name == "mdm-patient"]
    for page in ("src/mdm_patient/__init__.py", "tests/test_patient.py"):
        assert (home / package.name / page).is_file(), "what the page edits is what `mdm new` wrote"
        shutil.copy(package / page, home / package.name / page)
    tested, checked, table = [types(line) for line in finish.splitlines()]
    assert "passed" in tested and ", 0 fail" in checked
    rows = [row.split()[0] for row in table.splitlines() if "%" in row and row.startswith(" ")]
    assert rows[-2:] == ["patient", "info-gain"]
