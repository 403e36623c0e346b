"""The command line in processes of its own: quick, whatever is installed, and never a traceback."""

from __future__ import annotations

import json

import pytest

BROKEN = {
    "mdm.samplers": {"broken-sampler": "fake_broken:S"},
    "mdm.commands": {"broken-command": "fake_broken:c"},
    "mdm.hooks": {"broken-hook": "fake_broken:h"},
}
WHOLE = """
    from typing import Annotated, Literal
    import click
    from pydantic import BaseModel, Field

    from mdm.protocols import BaseSampler

    class Options(BaseModel):
        power: float = Field(0.5, description="How sharp.")
        count: Annotated[int, Field(ge=1)] | Literal["all"] | None = 8

    class Sampler(BaseSampler):
        '''Commits the sharpest.'''
        Options = Options
        def decide(self, *args): ...

    @click.command()
    @click.argument("name")
    def greet(name):
        "Greets by name. Or not."
        click.echo(f"hello {name}")
"""


@pytest.fixture(autouse=True)
def packages(site):
    site.package("fake-broken", BROKEN, "import no_such_module_", version="0.3")
    points = {"mdm.samplers": {"sharp": "fake_whole:Sampler"}, "mdm.commands": {"greet": "fake_whole:greet"}}
    site.package("fake-whole", points, WHOLE)


def refused(done, *said):
    """One line on stderr, nothing on stdout, exit code 2."""
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("mdm: ") and done.stderr.count("\n") == 1, done.stderr
    for words in said:
        assert words in done.stderr


@pytest.mark.parametrize("args", [["--help"], ["plugins"], ["run", "--help"], ["plugins", "--json"], ["--version"]])
def test_help_and_listing_import_nothing_heavy(site, args):
    code = f"""
import sys
from mdm.cli import main
try:
    main({args!r})
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "transformers", "accelerate", "numpy", "fake_whole", "fake_broken"}}
print("imported:", sorted(heavy & set(sys.modules)))
"""
    done = site.python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported: []\n") and not done.stderr


def test_help_lists_everybodys_commands(site):
    done = site.mdm("--help")
    for words in ("run ", "generate ", "plugins ", "doctor ", "greet ", "Greets by name.", "(from fake-broken 0.3)"):
        assert words in done.stdout
    assert site.mdm().stdout == done.stdout


def test_commands_of_others(site):
    assert site.mdm("greet", "you").stdout == "hello you\n"
    refused(site.mdm("broken-command"), "command 'broken-command' of package fake-broken 0.3 does not load: ModuleNot")


def test_plugins_lists_the_broken_too(site):
    done = site.mdm("plugins", "--json")
    listed = {(entry["kind"], entry["name"]): entry for entry in json.loads(done.stdout)}
    assert listed["sampler", "broken-sampler"]["dist"] == "fake-broken"
    assert listed["sampler", "sharp"]["version"] == "1.0"
    assert listed["hook", "broken-hook"]["value"] == "fake_broken:h"
    table = site.mdm("plugins").stdout
    assert all(name in table for _, name in listed)


def test_a_plugin_whose_source_is_gone_or_no_python_is_marked(site):
    site.package("fake-gone", {"mdm.samplers": {"gone": "fake_gone:Sampler"}})
    site.package("fake-typo", {"mdm.samplers": {"typo": "fake_typo:Sampler"}}, "class Sampler(:")
    table = site.mdm("plugins", "--kind", "sampler").stdout
    assert "sampler 'gone' of package fake-gone 1.0: its module fake_gone is gone: install it again" in table
    assert "line 1 of the source of fake_typo" in table


def test_plugins_check_names_what_broke(site):
    done = site.mdm("plugins", "--check")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.count("broken: ") == 3
    assert "sampler 'broken-sampler' of package fake-broken 0.3 does not load: ModuleNotFoundError" in done.stdout
    faults = {entry["name"]: entry["error"] for entry in json.loads(site.mdm("plugins", "--check", "--json").stdout)}
    assert faults["sharp"] is None and "no_such_module_" in faults["broken-hook"]
    assert site.mdm("plugins", "sharp", "--check").returncode == 0


def test_plugin_documents_its_options(site):
    done = site.mdm("plugins", "sharp")
    for words in ("sampler sharp (fake-whole 1.0", "Commits the sharpest.", "power: float = 0.5", "How sharp."):
        assert words in done.stdout
    (entry,) = json.loads(site.mdm("plugins", "sharp", "--json").stdout)
    assert entry["options"] == [
        {"name": "power", "type": "float", "default": 0.5, "description": "How sharp."},
        {"name": "count", "type": "int | 'all' | none", "default": 8, "description": ""},
    ]
    refused(site.mdm("plugins", "sharpp"), "no plugin 'sharpp' is installed. Did you mean 'sharp'?")
    refused(site.mdm("plugins", "broken-sampler"), "fake-broken 0.3 does not load")


def test_doctor(site):
    done = site.mdm("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1 and found["torch"]["ok"] and found["python"]["ok"] and found["mdm-core"]["ok"]
    assert "3 of" in found["plugins"]["detail"] and "fake-broken 0.3" in found["plugins"]["detail"]
    site.package("mdm-core", {}, version="0.2.0")
    assert "wrong  mdm-core: 0.2.0 is the unrelated package" in site.mdm("doctor").stdout


FINDINGS = """
def well(): return True, "two cards"
def ill(): return False, "no card"
def raising(): raise ValueError("two\\nlines")
def leaving(): raise SystemExit(0)
def nothing(): pass
def odd(): return True, object()
text = "no function"
"""


@pytest.mark.attack("plugins: findings of mdm doctor")
def test_doctor_says_what_packages_find_and_no_package_breaks_it(site):
    names = ("well", "ill", "raising", "leaving", "nothing", "odd", "text", "missing")
    site.package("fake-finding", {"mdm.findings": {name: f"fake_finding:{name}" for name in names}}, FINDINGS)
    site.package("fake-finding-b", {"mdm.findings": {"torn": "fake_finding_b:f"}}, "1 / 0")
    done = site.mdm("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {name: found[name]["ok"] for name in (*names, "torn")} == {name: name == "well" for name in (*names, "torn")}
    assert found["well"]["detail"] == "two cards" and found["ill"]["detail"] == "no card" and done.stderr == ""
    assert "fake-finding 1.0 cannot say: ValueError" in found["raising"]["detail"]
    assert all("\n" not in finding["detail"] for finding in found.values())


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("5.16.9", "wrong  transformers: 5.16.9: mdm-core needs >=5.17"),
        ("5.99.1", "ok     transformers: 5.99.1, newer than what is tested (up to 5."),
    ],
)
def test_doctor_says_what_lies_outside_of_what_is_declared_and_tested(site, version, said):
    site.package("transformers", {}, version=version)
    assert said in site.mdm("doctor").stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rnu"], "unknown command 'rnu'. Did you mean 'run'? Installed: "),
        (["run", "--smapler", "x"], "--sampler"),
        (["run", "--sampler", "shrap"], "unknown sampler 'shrap'. Did you mean 'sharp'? Installed: "),
        (["run", "--sampler", "broken-sampler"], "fake-broken 0.3 does not load: ModuleNotFoundError"),
        (["run", "--sampler", "sharp", "--cache", "nnoe"], "unknown cache 'nnoe'. Did you mean 'none'?"),
        (["run", "--sampler", "sharp", "--task", "x"], "unknown task 'x'."),
        (["run", "--limit", "0"], "'--limit'"),
        (["run", "--data", "none.csv"], "'none.csv' does not exist"),
        (["run", "--config", "none.yaml"], "'none.yaml' does not exist"),
        (["run", "--steps", "3", "--tokens-per-step", "2"], "give either steps or tokens_per_step, not both"),
        (["generate"], "Missing argument 'TEXT'"),
        (["generate", "x", "--sampler", "sharp", "-o", "pwoer=1"], "no option 'pwoer'. Did you mean 'power'?"),
        (
            ["generate", "x", "--sampler", "sharp", "--gen-length", "0"],
            "--gen-length is 0 and the text holds no [MASK]",
        ),
        (["generate", "x", "--sampler", "sharp", "--infill"], "--gen-length is 0 and the text holds no [MASK]"),
        (["generate", "x", "--sampler", "sharp", "--sampler", "broken-sampler"], "does not load"),
    ],
)
def test_mistakes_are_one_line(site, args, said):
    refused(site.mdm(*args), said)


def test_an_unknown_command_names_the_package_that_brings_it(monkeypatch):
    from mdm import registry
    from mdm.cli import cli
    from mdm.errors import MdmError

    entries = registry.entries

    def without_bench(kind=None):
        return [entry for entry in entries(kind) if entry.dist != "mdm-bench"]

    monkeypatch.setattr(registry, "entries", without_bench)
    with pytest.raises(MdmError, match="^command 'bench' comes with the package mdm-bench, which is not installed$"):
        cli.main(["bench"], standalone_mode=False)
    with pytest.raises(MdmError, match="^unknown command 'bnch'. Did you mean 'bench'"):
        cli.main(["bnch"], standalone_mode=False)
