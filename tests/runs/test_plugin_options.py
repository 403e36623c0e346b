"""Each option goes to the plugin it is meant for, also where plugins of two kinds share a name."""

from __future__ import annotations

import pytest
from mdm.errors import MdmError
from mdm.runs import config, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.variants import without_policy

PLUGINS = """
    import torch
    from mdm.protocols import BaseSampler, BaseTask, Commit, Example, NoOptions, Preset, Prompt, TaskPreset, top_k
    from pydantic import Field

    class SamplerOptions(NoOptions):
        gamma: float = 0.5
        shared: int = 1

    class TaskOptions(NoOptions):
        level: int = 1
        shared: int = 2

    class Sampler(BaseSampler):
        Options = SamplerOptions
        seen = []
        def decide(self, state, scores, memory, draws):
            Sampler.seen.append(self.options.gamma)
            return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)

    class Task(BaseTask):
        Options = TaskOptions
        metric, default_limit = "right", 1
        def examples(self, **kw):
            yield Example("a", {}, "1")
        def prompt(self, example, style):
            return Prompt("1+1=", gen_length=2)
        def grade(self, example, completion):
            return {"right": float(self.options.level == 4)}

    HARD = Preset("Hard.", {"options": {"sampler.puzzle": {"gamma": 2.0}}}, {"puzzle": TaskPreset({}, {"level": 9})})
"""


@pytest.fixture(autouse=True)
def plugins(site):
    points = {
        "mdm.samplers": {"puzzle": "fake_shared:Sampler"}, "mdm.tasks": {"puzzle": "fake_shared:Task"},
        "mdm.presets": {"hard": "fake_shared:HARD"},
    }  # fmt: skip
    site.package("fake-shared", points, PLUGINS)


def build(*assignments, file=None, **flags):
    return config.build(RunConfig, file, {"sampler": ["puzzle"], "task": "puzzle", **flags}, assignments)


def refusal(*assignments, **call):
    with pytest.raises(MdmError) as caught:
        build(*assignments, **call)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sampler_and_a_task_of_one_name_have_options_of_their_own(tmp_path):
    built = build("gamma=0.25", "task.puzzle.level=4")
    assert built.options == {"sampler.puzzle": {"gamma": 0.25, "shared": 1}, "task.puzzle": {"level": 4, "shared": 2}}
    assert built.options_of("sampler", "puzzle")["gamma"] == 0.25 and built.options_of("task", "puzzle")["level"] == 4
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(built))
    assert config.build(RunConfig, file) == built == config.parse(RunConfig, file)
    hard = build(preset="hard")
    assert hard.options_of("task", "puzzle")["level"] == 9 and hard.options_of("sampler", "puzzle")["gamma"] == 2.0


def test_a_run_gives_each_its_own(tmp_path):
    import fake_shared

    summary = runs.run(build("gamma=0.25", "level=4", model="tiny"), tmp_path / "run")
    assert (summary["runs"][0]["examples"], summary["runs"][0]["errors"], summary["runs"][0]["accuracy"]) == (1, 0, 1.0)
    assert set(fake_shared.Sampler.seen) == {0.25}


def test_what_could_mean_both_is_asked():
    assert refusal("puzzle.gamma=1") == "-o puzzle.gamma=1: which one, sampler.puzzle.gamma or task.puzzle.gamma?"
    assert refusal("shared=3") == "-o shared=3: which one, sampler.puzzle.shared or task.puzzle.shared?"
    assert refusal("task.puzzle.gamma=1").startswith("option task.puzzle.gamma: there is no such name.")
    assert build("task.puzzle.shared=3").options_of("sampler", "puzzle")["shared"] == 1


def test_the_kind_may_stand_where_it_is_not_needed(tmp_path):
    built = build(sampler=["confidence"])
    assert built.options == {"puzzle": {"level": 1, "shared": 2}}
    assert build("task.puzzle.level=7", sampler=["confidence"]).options == {"puzzle": {"level": 7, "shared": 2}}
    file = tmp_path / "a.yaml"
    file.write_text("options: {task.puzzle: {level: 5}}\n")
    assert build(file=file, sampler=["confidence"]).options == {"puzzle": {"level": 5, "shared": 2}}


def test_a_file_names_the_kind_where_it_must(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("options: {puzzle: {level: 5}}\n")
    assert refusal(file=file) == f"{file}: options of 'puzzle': which one, sampler.puzzle or task.puzzle?"
    file.write_text("options: {task.puzzel: {level: 5}}\n")
    assert "which is no part of this run. Did you mean 'task.puzzle'?" in refusal(file=file)


def test_without_its_sampler_a_run_keeps_its_tasks_options():
    options = {"sampler.info-gain": {"gamma": 1.0}, "task.info-gain": {"level": 4}}
    bare = without_policy(RunConfig(task="info-gain", options=options))
    assert bare.options == {"task.info-gain": {"level": 4}}
    assert bare.options_of("task", "info-gain") == {"level": 4}
