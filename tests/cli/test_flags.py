"""A decoding option is defined once: its flag, its configuration key and its keyword follow from the field."""

from __future__ import annotations

import inspect

import click
import mdm
import pytest
from click.testing import CliRunner
from mdm.cli.flags import SIZE, flags_of, used
from mdm.cli.generate import generate
from mdm.cli.run import run
from mdm.protocols.settings import Settings, default_text, documented
from mdm.runs import config
from mdm.runs.config import RECORDED, DecodeConfig, RunConfig


def options(command):
    return {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_an_option_is_a_flag_a_key_and_a_keyword(name, tmp_path):
    spelled = f"--{name.replace('_', '-')}"
    for command in (run, generate):
        flag = options(command)[name]
        assert spelled in flag.opts
        assert Settings.model_fields[name].description.split(".")[0] in flag.help or name == "seed"
    assert name in DecodeConfig.model_fields and name in RunConfig.model_fields
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(RunConfig()))
    assert f"\n{name}:" in file.read_text() and config.parse(RunConfig, file) == RunConfig()
    assert name in inspect.signature(mdm.decode).parameters


def test_every_field_has_a_flag_and_help():
    flags = options(run)
    for name, field in RunConfig.model_fields.items():
        assert field.description, f"{name} has no description"
        assert (name in flags) == (name not in RECORDED)
        if name in flags:
            assert default_text(field) == (flags[name].show_default or "")


class Made(Settings):
    """Settings with options that nobody else knows."""

    warmth: float = documented(0.5, "How warm.", scope="row", ge=0)
    colder: bool = documented(True, "Whether to cool.", scope="row")
    shade: str | None = documented(None, "Which shade.", scope="row", unset="none of them", metavar="SHADE")


def test_a_new_field_is_a_new_flag():
    received = {}

    @click.command()
    def command(**flags):
        received.update(used(flags))

    for flag in flags_of(Made, Settings.model_fields):
        command = flag(command)
    text = CliRunner().invoke(command, ["--help"]).output
    text = " ".join(text.split())
    assert "How warm. [default: 0.5; x>=0]" in text and "--colder / --no-colder" in text
    assert "--shade SHADE" in text and "Which shade. [default: none of them]" in text
    assert CliRunner().invoke(command, ["--warmth", "2", "--no-colder"]).exit_code == 0
    assert received == {"warmth": 2.0, "colder": False}
    assert "-1.0 is not in the range x>=0" in CliRunner().invoke(command, ["--warmth", "-1"]).output


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gen_length", click.IntRange), ("seed", click.types.IntParamType), ("temperature", click.FloatRange),
        ("guidance", click.types.FloatParamType), ("schedule", click.Choice), ("tokens_per_step", click.IntRange),
        ("suppressed_tokens", click.IntRange), ("dtype", click.Choice), ("device_map", click.Choice),
        ("data", click.Path), ("batch_size", type(SIZE)), ("max_rows", type(SIZE)),
        ("model", click.types.StringParamType),
    ],
)  # fmt: skip
def test_types(name, kind):
    assert type(options(run)[name].type) is kind


def test_lists_are_repeated_and_flags_stay_unset():
    flags = options(run)
    assert {name for name, flag in flags.items() if flag.multiple} == {
        "model", "sampler", "tokens_per_step", "allowed_tokens", "suppressed_tokens", "stop", "assignments",
    }  # fmt: skip
    parsed = run.make_context("run", []).params
    assert used({name: value for name, value in parsed.items() if name in RunConfig.model_fields}) == {}
    assert used({"a": None, "b": (), "c": (1,), "d": False}) == {"c": [1], "d": False}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "many"], "'many' is neither auto nor a number from 1."),
        (["--batch-size", "0"], "'0' is neither auto nor a number from 1."),
        (["--steps", "0"], "0 is not in the range x>=1"),
        (["--schedule", "evn"], "'evn' is not one of"),
    ],
)
def test_mistakes(arguments, said):
    assert said in CliRunner().invoke(run, arguments).output
