"""Several values of an option make variants of a run."""

from __future__ import annotations

import json

import pytest
import yaml
from mdm.cli import main
from mdm.errors import MdmError
from mdm.runs import config as configs, plugin_options, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.variants import variants
from stand_in_engine import engine as engine, make


def ended(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def labels(config, out):
    return [variant.label for variant in variants(config.model_copy(update={"autoregressive": []}), out)]


def test_each_value_is_decoded_with(engine, tmp_path):
    summary = runs.run(make("candidates=2", "candidates=4", limit=1), tmp_path)
    assert [call["sampler_options"] for call in engine.calls] == [{"candidates": 2}, {"candidates": 4}]
    assert [row["variant"] for row in summary["runs"]] == ["candidates=2", "candidates=4"]
    assert [row["swept"] for row in summary["runs"]] == [{"candidates": 2}, {"candidates": 4}]
    assert (tmp_path / "candidates-2" / "results.jsonl").is_file()
    again = configs.build(RunConfig, tmp_path / "config.yaml")
    assert runs.run(again, tmp_path) == summary and len(engine.calls) == 2


def test_labels_and_the_product(engine, tmp_path):
    assert labels(make("one.candidates=2", "one.candidates=4", sampler=["one", "two"]), tmp_path) == [
        "one candidates=2", "one candidates=4", "two",
    ]  # fmt: skip
    config = make("candidates=2", "candidates=4", "keep=1", "keep=5", cache="kept", tokens_per_step=[1, 2])
    assert labels(config, tmp_path) == [
        f"candidates={c} keep={k} K{pace}" for c in (2, 4) for k in (1, 5) for pace in (1, 2)
    ]
    runs.run(config.model_copy(update={"limit": 1, "autoregressive": []}), tmp_path)
    given = [(call["sampler_options"]["candidates"], call["cache_options"]["keep"]) for call in engine.calls]
    assert given == [(c, k) for c in (2, 4) for k in (1, 5) for _ in (1, 2)]


def test_a_list_in_yaml_is_a_sweep_and_flags_win(engine, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"task": "copy", "sampler": "one", "options": {"one": {"candidates": [2, 4]}}}))
    assert labels(configs.build(RunConfig, file), tmp_path) == ["candidates=2", "candidates=4"]
    assert labels(configs.build(RunConfig, file, {}, ["candidates=7"]), tmp_path) == ["one"]
    assert configs.build(RunConfig, file, {}, ["candidates=[3]"]).options["one"] == {"candidates": 3}


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        (["candidates=2", "candidates=2"], "option one.candidates: the same value twice"),
        (["candidates=2", "candidates=many"], "option one.candidates=many"),
        (["infill=true", "infill=false"], "option copy.infill: a run is of one task"),
        (["candidates=[]"], "option one.candidates="),
        ([f"candidates={n}" for n in range(1, 1100)], "more than 1000 combinations"),
    ],
)
def test_what_cannot_be_swept(engine, assignments, line):
    with pytest.raises(MdmError, match=line):
        make(*assignments)


def test_what_takes_a_list_is_not_swept():
    kinds = {
        list[int]: True, tuple[int, ...]: True, list: True, "int | list[int] | None": True, dict[str, int]: True,
        int: False, str: False, "int | None": False, 'int | Literal["all"]': False,
        "Annotated[int, Field(ge=1)]": False,
    }  # fmt: skip
    from typing import Annotated, Literal  # noqa: F401

    from pydantic import Field  # noqa: F401

    for kind, takes in kinds.items():
        assert plugin_options._takes_list(eval(kind) if isinstance(kind, str) else kind) is takes, kind


def test_one_arm_commands_refuse_several_values(engine, capsys):
    assert ended("generate", "x", "--sampler", "one", "-o", "candidates=2", "-o", "candidates=3") == 2
    assert "option candidates has several values: `mdm run` compares them" in capsys.readouterr().err


def test_compare_and_trace_tell_the_values_apart(tmp_path, capsys):
    out = str(tmp_path / "run")
    flags = ["--sampler", "info-gain", "--limit", "1", "--gen-length", "4", "-o", "mode=generate", "--out", out]
    assert ended("run", *flags, "-o", "candidates=2", "-o", "candidates=3", "--quiet") == 0
    assert "candidates" in capsys.readouterr().out
    assert ended("compare", out, "--json") == 0
    assert [record["label"] for record in json.loads(capsys.readouterr().out)] == [
        "info-gain candidates=2", "info-gain candidates=3",
    ]  # fmt: skip
    assert ended("trace", "view", out) == 0
    assert "candidates=3" in (tmp_path / "run" / "trace.html").read_text()


def test_a_tampered_sweep_is_a_line(engine, tmp_path):
    runs.run(make("candidates=2", "candidates=4", limit=1), tmp_path)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for changes, line in (
        ({"swept": {"one": ["keep"]}}, "swept names one.keep"),
        ({"swept": {"two": ["candidates"]}}, "swept names two.candidates"),
        ({"folders": {"candidates=2": "../../etc"}}, "folders"),
        ({"folders": {"candidates=2": "/etc"}}, "folders"),
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(written | changes))
        with pytest.raises(MdmError, match=line):
            configs.parse(RunConfig, tmp_path / "config.yaml")
