"""Help: options stand below headings, defaults are shown in one way, and every command and plugin has a line."""

from __future__ import annotations

import json
import re

import click
import pytest
from click.testing import CliRunner
from mdm import registry
from mdm.cli import FIRST, cli
from mdm.cli.descriptions import description, first_sentence
from mdm.cli.flags import HEADINGS, Grouped, heading
from mdm.cli.generate import generate
from mdm.cli.plugins import plugins
from mdm.cli.run import run


def options(command):
    return [param for param in command.params if isinstance(param, click.Option)]


@pytest.mark.parametrize("command", [run, generate], ids=["run", "generate"])
def test_every_option_has_a_heading_and_stands_below_it(command):
    assert isinstance(command, Grouped)
    assert [option.name for option in options(command) if heading(option.name) == "Options"] == []
    text = command.get_help(click.Context(command, info_name=command.name))
    parts = re.split(r"^(\S.*):$", text, flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(sections) == ["Options", *HEADINGS]
    for option in options(command):
        assert option.opts[0] in sections[heading(option.name)], option


def walk(command, path):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, f"{path} {name}")


def test_defaults_are_shown_in_one_way():
    """As click shows them, ``[default: x]``, whoever wrote the command."""
    for entry in registry.entries("command"):
        if entry.dist != "mdm-testing":  # imports torch
            for path, command in walk(registry.load(entry), entry.name):
                text = command.get_help(click.Context(command, info_name=path))
                assert "(default:" not in " ".join(text.split()), path
                assert not re.search(r"\.\s\[default", re.sub(r"\s*\n\s*", "  ", text)), path


def test_every_command_has_a_line_of_its_own_and_the_first_ones_come_first():
    text = " ".join(CliRunner().invoke(cli, ["--help"]).output.split())
    entries = registry.entries("command")
    for entry in entries:
        assert description(entry) and f" {entry.name} {description(entry)}" in text
    shown = [name for name in FIRST if name in registry.names("command")]
    at = [text.index(f" {name} {description(registry.find('command', name))}") for name in shown]
    assert at == sorted(at) and len(shown) > 8


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_plugin_of_ours_is_described(entry):
    (record,) = json.loads(
        CliRunner().invoke(plugins, [entry.name, "--kind", registry.WORDS[entry.kind], "--json"]).stdout
    ) if entry.kind == "preset" else ({"doc": "", "description": description(entry)},)  # fmt: skip
    said = first_sentence(record["doc"]) or record["description"]
    assert 3 < len(said) < 250 and "\n" not in said


def test_descriptions_follow_names_to_their_source_and_import_nothing(site):
    code = "import nothing_that_exists\nfrom .parts import Made\nfrom typing import TYPE_CHECKING\n" + (
        "if TYPE_CHECKING:\n    from fake_told.parts import Other as Lazy\nTHING = Made()\n"
        "def function():\n    '''Does it. And more.'''\nplain = 3\n"
    )
    names = {name: f"fake_told:{name}" for name in ("Made", "Lazy", "THING", "function", "plain", "missing")}
    site.package("fake-told", {"mdm.samplers": names | {"gone": "fake_gone:X", "torn": "fake_told.torn:X"}})
    package = site.path / "fake_told"
    package.mkdir()
    (package / "__init__.py").write_text(f"'''The module.'''\n{code}")
    (package / "parts.py").write_text("class Made:\n    '''Makes e.g. this. Long.'''\nclass Other:\n    'Other.'\n")
    (package / "torn.py").write_text("def (")
    told = {entry.name: description(entry) for entry in registry.entries("sampler") if entry.dist == "fake-told"}
    assert told == {
        "Made": "Makes e.g. this", "THING": "Makes e.g. this", "Lazy": "Other", "function": "Does it",
        "plain": "The module", "missing": "The module", "gone": "", "torn": "",
    }  # fmt: skip


def test_kinds_are_called_as_people_call_them():
    listed = CliRunner().invoke(plugins, ["--kind", "family"]).stdout
    assert " family" in listed and " llada " in listed and "\n sampler" not in listed
    assert "checkpoint" in CliRunner().invoke(plugins, ["--kind", "checkpoint"]).stdout
    assert CliRunner().invoke(plugins, ["llada"]).stdout.startswith("family llada (")
