"""Files and flags merge, options find their plugins, and mistakes are named in one line."""

from __future__ import annotations

import pytest
from mdm.errors import MdmError
from mdm.runs import config, plugin_options, presets
from mdm.runs.config import DecodeConfig, RunConfig

PLUGINS = """
    from typing import Literal
    from mdm.protocols import BaseCache, BaseSampler, BaseTask, Preset, TaskPreset
    from pydantic import BaseModel, ConfigDict, Field

    class Base(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    class SharpOptions(Base):
        candidates: int | Literal["all"] = Field(8, description="How many.")
        power: float = Field(0.5, ge=0)
        shared: int = 1

    class DullOptions(Base):
        power: float = 1.0

    class StoreOptions(Base):
        shared: int = 2

    class TaskOptions(Base):
        size: int = 4

    class Sharp(BaseSampler):
        Options = SharpOptions
        def decide(self, *args): ...

    class Dull(Sharp):
        Options = DullOptions

    class Store(BaseCache):
        Options = StoreOptions
        def plan(self, *args): ...

    class Grid(BaseTask):
        Options = TaskOptions
        metric, default_limit = "solved", 7
        def examples(self, **kw): ...
        def prompt(self, *args): ...
        def grade(self, *args): ...

    PAPER = Preset(
        "The paper's.",
        settings={"temperature": 0.5, "prompt_style": "compact", "options": {"sharp": {"power": 3.0}}},
        tasks={"grid": TaskPreset({"gen_length": 256, "steps": 128}, {"size": 9}, 71.5, "solved", "arXiv:1")},
    )
    SHORT = Preset("Short.", tasks={"grid": TaskPreset({"steps": 4})})
    LONG = Preset("Long.", {"gen_length": 1024, "steps": 1024, "block_length": 1024, "temperature": 0.5})
    ELSEWHERE = Preset("For another task.", tasks={"maze": TaskPreset({"steps": 4})})
"""


@pytest.fixture(autouse=True)
def plugins(site):
    points = {
        "mdm.samplers": {"sharp": "fake_config:Sharp", "dull": "fake_config:Dull"},
        "mdm.caches": {"store": "fake_config:Store"},
        "mdm.tasks": {"grid": "fake_config:Grid"},
        "mdm.presets": {name: f"fake_config:{name.upper()}" for name in ("paper", "short", "long", "elsewhere")}
        | {"class": "fake_config:Preset", "settings": "fake_config:FLAGS"},
    }
    site.package("fake-config", points, PLUGINS)


FLAGS = {"sampler": ["sharp"], "cache": "store", "task": "grid"}


def build(*assignments, file=None, **flags):
    return config.build(RunConfig, file, {**FLAGS, **flags}, assignments)


def fault(*assignments, file=None, **flags):
    with pytest.raises(MdmError) as caught:
        build(*assignments, file=file, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_options_are_complete_and_typed():
    built = build("candidates=all", "size=9")
    assert built.options == {
        "sharp": {"candidates": "all", "power": 0.5, "shared": 1},
        "store": {"shared": 2},
        "grid": {"size": 9},
    }


def test_an_option_of_several_samplers_goes_to_each():
    built = build("power=2", sampler=["sharp", "dull"])
    assert (built.options["sharp"]["power"], built.options["dull"]["power"]) == (2.0, 2.0)
    built = build("power=2", "dull.power=3", sampler=["sharp", "dull"])
    assert (built.options["sharp"]["power"], built.options["dull"]["power"]) == (2.0, 3.0)


def test_an_option_of_two_kinds_must_be_qualified():
    assert fault("shared=5") == "-o shared=5: which one, sharp.shared or store.shared?"
    assert build("store.shared=5").options["store"] == {"shared": 5}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("candidats=4", "no option 'candidats'. Did you mean 'candidates'? There are: sharp.candidates, sharp.power"),
        ("sharp.candidats=4", "option sharp.candidats: there is no such name. Did you mean 'candidates'?"),
        ("shrap.candidates=4", "'shrap' is no part of this run. Did you mean 'sharp'? It has: sharp, store, grid"),
        ("candidates=some", "option sharp.candidates=some: should be a valid integer"),
        ("candidates=some", "or should be 'all'"),
        ("power=-1", "option sharp.power=-1: should be greater than or equal to 0"),
        ("candidates", "-o candidates: expected option=value"),
        ("candidates=[1", "not YAML"),
    ],
)
def test_option_mistakes(assignment, said):
    assert said in fault(assignment)


def test_dashes_are_underscores_and_values_are_yaml():
    assert plugin_options._scalar("", "null") is None and plugin_options._scalar("", "true") is True
    assert build("power=1e-3").options["sharp"]["power"] == 0.001
    assert fault("no-such-option=1").startswith("-o no-such-option=1: no option 'no_such_option'")


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("sampler: [sharp, dull]\nsteps: 3\nseed: 4\noptions: {sharp: {candidates: 2, power: 3}}\n")
    built = config.build(RunConfig, file, {"steps": 5, "cache": "store", "task": "grid"}, ["candidates=9"])
    assert (built.sampler, built.steps, built.seed) == (["sharp", "dull"], 5, 4)
    assert built.options["sharp"] == {"candidates": 9, "power": 3.0, "shared": 1}


def test_options_of_a_plugin_that_a_flag_replaced_are_dropped(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("sampler: sharp\noptions: {sharp: {candidates: 2}}\n")
    assert "sharp" not in build(file=file, sampler=["dull"]).options
    file.write_text("sampler: sharp\noptions: {shrap: {candidates: 2}}\n")
    assert "options of 'shrap', which is no part of this run. Did you mean 'sharp'?" in fault(file=file)


def test_what_is_written_reads_back_the_same(tmp_path):
    built = build("candidates=all", sampler=["sharp", "dull"], data=tmp_path / "x.csv", temperature=0.1, limit=3)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(built))
    assert config.build(RunConfig, file) == built
    assert config.parse(RunConfig, file) == built


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gen_lenght: 3", "a.yaml: gen_lenght: there is no such name. Did you mean 'gen_length'?"),
        ("steps: 0", "a.yaml: steps=0: should be greater than or equal to 1"),
        ("steps: 4\ntokens_per_step: 2", "give either steps or tokens_per_step, not both"),
        ("schedule: evn", "a.yaml: schedule=evn: should be 'even', 'linear', 'cosine', 'dream', 'maskgit'"),
        ("sampler: [sharp, sharp]", "the same value twice"),
        ("- 1", "expected keys and values, found list"),
        ("a: [", "not YAML"),
        ("options: {candidates: 4}", "write options: {info-gain: {candidates: 4}}"),
    ],
)
def test_file_mistakes(tmp_path, text, said):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(MdmError) as caught:
        config.build(RunConfig, file, {})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(MdmError, match="cannot read .*none.yaml: No such file"):
        config.build(RunConfig, tmp_path / "none.yaml")


def test_without_arguments_a_run_is_the_main_job():
    plain = RunConfig()
    assert (plain.model, plain.sampler, plain.cache, plain.task) == (["tiny"], ["info-gain"], "auto", "sudoku")
    assert set(RunConfig.model_fields) - set(DecodeConfig.model_fields) == {
        "task", "prompt_style", "data", "limit", "repeats", "allow_code_execution", "autoregressive",
        "swept", "folders",
    }  # fmt: skip


def test_unknown_plugin_is_named_first():
    assert fault(sampler=["shrp"]).startswith("unknown sampler 'shrp'. Did you mean 'sharp'?")


def test_a_preset_sets_what_nobody_else_does(tmp_path):
    built = build(preset="paper")
    assert (built.gen_length, built.steps, built.options["grid"]) == (256, 128, {"size": 9})
    assert (built.temperature, built.prompt_style, built.options["sharp"]["power"]) == (0.5, "compact", 3.0)
    assert build("power=1", preset="paper", temperature=0.0).options["sharp"]["power"] == 1.0
    assert build(preset="paper", temperature=0.0).temperature == 0.0
    built = build("size=2", preset="paper", gen_length=32)
    assert (built.gen_length, built.steps, built.options["grid"]) == (32, 16, {"size": 2})  # at the same pace
    built = build(preset="paper", tokens_per_step=2)
    assert (built.tokens_per_step, built.steps, built.gen_length) == ([2], None, 256)
    file = tmp_path / "a.yaml"
    file.write_text("preset: paper\ngen_length: 16\noptions: {grid: {size: 3}}\n")
    built = build(file=file)
    assert (built.gen_length, built.steps, built.options["grid"]) == (16, 8, {"size": 3})
    built = build(file=file, preset="short")
    assert (built.gen_length, built.steps, built.options["grid"]) == (16, 4, {"size": 3})


def test_what_a_layer_says_is_judged_with_the_others(tmp_path):
    built = build(preset="paper", top_p=0.9)
    assert (built.temperature, built.top_p) == (0.5, 0.9)
    file = tmp_path / "a.yaml"
    file.write_text("top_p: 0.9\n")
    assert build(file=file, temperature=0.7).top_p == 0.9
    assert build(file=file, preset="paper").top_p == 0.9
    assert fault(file=file).startswith("top_p changes nothing at temperature 0")
    assert fault(preset="paper", temperature=0.0, top_p=0.9).startswith("top_p changes nothing at temperature 0")


def test_a_preset_says_nothing_of_the_length_of_a_task_it_does_not_name():
    built = build(preset="long")
    assert (built.gen_length, built.steps, built.block_length, built.temperature) == (None, None, 1024, 0.5)
    built = config.build(DecodeConfig, None, {"sampler": ["sharp"], "preset": "long"})
    assert (built.gen_length, built.steps, built.block_length) == (1024, 1024, 1024)


def test_a_preset_named_by_a_flag_wins_over_a_complete_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(config.to_yaml(build(tokens_per_step=2)))
    built = build(file=file, preset="paper")
    assert (built.gen_length, built.steps, built.tokens_per_step) == (256, 128, None)
    assert built.options["grid"] == {"size": 9}
    file.write_text(config.to_yaml(build("size=5", preset="paper", tokens_per_step=2)))
    assert build(file=file) == build("size=5", preset="paper", tokens_per_step=2)


def test_an_unknown_preset_is_named():
    said = fault(preset="papr")
    assert said.startswith("unknown preset 'papr'. Did you mean 'paper'? Installed: ")
    assert fault(preset="mmada-t2i-no").startswith("unknown preset 'mmada-t2i-no'.")


def test_the_options_of_a_preset_go_with_their_sampler():
    built = build(preset="paper", sampler=["dull"])
    assert "sharp" not in built.options and built.options["dull"] == {"power": 1.0}


def test_a_preset_without_a_task_gives_its_general_settings(tmp_path):
    flags = {"sampler": ["sharp"], "preset": "paper"}
    built = config.build(config.PromptConfig, None, flags)
    assert (built.temperature, built.gen_length, built.prompt_style) == (0.5, None, "compact")
    # Where prompts come ready made, their style is no setting.
    assert config.build(DecodeConfig, None, flags).temperature == 0.5


def test_a_preset_that_has_nothing_to_give_says_so():
    assert fault(preset="elsewhere") == "preset 'elsewhere' has nothing for grid: it is for maze"
    with pytest.raises(MdmError, match="preset 'short' has nothing for a prompt without a task: it is for grid"):
        config.build(DecodeConfig, None, {"sampler": ["sharp"], "preset": "short"})


def test_a_preset_is_an_instance():
    assert fault(preset="class").endswith("is not a preset: it must be an instance of mdm.protocols.Preset")
    assert "does not load" in fault(preset="settings")


def test_what_is_published_is_said_in_one_line():
    assert presets.remark("paper", "grid") == "preset paper: 71.5 solved for grid (arXiv:1)"
    assert presets.remark("short", "grid") == "preset short: none published for grid"
    assert presets.remark("paper", "maze") == "preset paper: none published for maze; its general settings apply"
