"""Plugins that are broken, twice there, odd or hanging harm nobody who did not ask for them, and are named."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import mdm
import pytest
from click.testing import CliRunner
from mdm import registry
from mdm.cli import cli, main
from mdm.errors import MdmError, MdmWarning, printable
from mdm.models import checkpoints
from mdm.protocols import BaseSampler
from mdm.runs.hooks import RunHooks

FRESH = itertools.count()
LLADA = {"model_type": "llada", "architectures": ["LLaDAModelLM"]}
FAMILY = """
import time
from mdm.models import BaseFamily
class Family(BaseFamily):
    name = "odd"
    def claims(self, config): {claims}
    def load(self, *args, **more): raise RuntimeError("loaded")
FAMILY = Family()
"""


def install(site, kind, source, name="odd", value="X", **more):
    """A package of one plugin under a name of its own, so that each trial imports it afresh."""
    package = f"fake-hostile-{next(FRESH)}"
    module = package.replace("-", "_")
    site.package(package, {registry.KINDS[kind]: {name: f"{module}:{value}"}}, source, **more)
    return package


def invoke(*args):
    done = CliRunner().invoke(cli, list(args))
    assert done.exception is None or isinstance(done.exception, (MdmError, SystemExit)), done.exception
    return done


CLAIMS = {
    "raises": ("raise ValueError('no')", "failed in claims: ValueError: no"),
    "raises BaseException": ("raise BaseException('no')", "failed in claims: BaseException: no"),
    "raises StopIteration": ("raise StopIteration(True)", "failed in claims: StopIteration: True"),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", "failed in claims: KeyboardInterrupt"),
    "raises GeneratorExit": ("raise GeneratorExit", "failed in claims: GeneratorExit"),
    "raises TimeoutError": ("raise TimeoutError", "failed in claims: TimeoutError"),
    "leaves": ("import sys; sys.exit(0)", "failed in claims: SystemExit: 0"),
    "recurses": ("return self.claims(config)", "failed in claims: RecursionError"),
    "hangs": ("time.sleep(1000)", "does not say in time whether it takes"),
    "answers None": ("return None", "answered with NoneType, which is neither True nor False"),
    "answers a text": ("return 'no'", "answered with str"),
    "answers 1": ("return 1", "answered with int"),
    "answers what has no truth": ("return NotImplemented", "answered with NotImplementedType"),
    "raises escape codes": ("raise ValueError('\\x1b[2J')", r"ValueError: \x1b[2J"),
    "raises what cannot be said": (
        "raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})()", "failed in claims: Mute"
    ),
}  # fmt: skip


@pytest.mark.attack("plugins: claims")
@pytest.mark.parametrize("name", CLAIMS)
def test_a_family_that_cannot_answer_is_set_aside_and_named(site, monkeypatch, name):
    claims, says = CLAIMS[name]
    package = install(site, "model", FAMILY.format(claims=claims), value="FAMILY")
    if "time" in says:  # the others answer, on a busy machine too
        monkeypatch.setattr(registry, "PATIENCE", 0.2)
        monkeypatch.setattr(checkpoints, "MORE_PATIENCE", 0.2)
    registry.resolve("model", "llada")
    with pytest.warns(MdmWarning, match="set aside") as warned:
        assert checkpoints.find_family(LLADA, None, Path("x")).name == "llada"
    assert f"family 'odd' of package {package} 1.0" in str(warned[0].message) and says in str(warned[0].message)
    with pytest.raises(MdmError) as caught, pytest.warns(MdmWarning):
        checkpoints.find_family({"model_type": "new"}, None, Path("x"))
    assert says in str(caught.value) and str(caught.value).isprintable()
    listed = invoke("plugins", "--check", "odd", "--json")
    assert listed.exit_code == 0 and says in json.loads(listed.stdout)[0]["error"]


@pytest.mark.attack("plugins: claims")
def test_a_family_cannot_change_what_others_are_asked(site):
    install(site, "model", FAMILY.format(claims="config.clear(); return False"), name="aaa", value="FAMILY")
    config = dict(LLADA)
    assert checkpoints.find_family(config, None, Path("x")).name == "llada" and config == LLADA


@pytest.mark.attack("plugins: claims")
def test_a_family_that_claims_everything_is_named(site):
    install(site, "model", FAMILY.format(claims="return True"), value="FAMILY")
    with pytest.raises(MdmError, match="claimed by llada and odd: choose one with --adapter"):
        checkpoints.find_family(LLADA, None, Path("x"))
    assert "claims every checkpoint" in invoke("plugins", "--check", "odd").stdout


IMPORTS = {
    "BaseException": "raise BaseException('no')", "SystemExit": "import sys; sys.exit(0)", "NUL": "x = '\0'",
    "GeneratorExit": "raise GeneratorExit", "StopIteration": "raise StopIteration", "deep": "def f(): f()\nf()",
    "of its own": "class Stop(BaseException): pass\nraise Stop('no')", "no syntax": "def",
    "cancelled": "import asyncio\nraise asyncio.CancelledError",
    "mute": "raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})()",
}  # fmt: skip


@pytest.mark.attack("plugins: import")
@pytest.mark.parametrize("kind", ["model", "sampler"])
@pytest.mark.parametrize("name", IMPORTS)
def test_what_raises_at_import_harms_nobody(site, name, kind):
    package = install(site, kind, IMPORTS[name])
    if kind == "model":
        with pytest.warns(MdmWarning, match=f"{package} 1.0 does not load: "):
            assert checkpoints.find_family(LLADA, None, Path("x")).name == "llada"
    with pytest.raises(
        MdmError, match=f"{registry.WORDS[kind]} 'odd' of package {package} 1.0 does not load: "
    ) as caught:
        registry.resolve(kind, "odd")
    assert "\n" not in str(caught.value)
    assert "odd" in [entry.name for entry, fault in registry.check() if fault]


@pytest.mark.attack("plugins: checkpoints")
@pytest.mark.parametrize("source", [
    "def X(): raise StopIteration", "def X(): raise ValueError('no')", "def X(): return 'odd'", "X = 5",
    "def X(): return None", "def X(): return '\\0'", "def X(a): ...",
])  # fmt: skip
def test_a_broken_checkpoint_is_one_line(site, source):
    install(site, "checkpoint", source)
    with pytest.raises(MdmError, match="odd|None|x00") as caught:
        checkpoints.locate("odd", offline=True)
    assert str(caught.value).isprintable()


@pytest.mark.attack("plugins: twins")
@pytest.mark.parametrize("kind", [kind for kind in registry.KINDS if kind != "hook"])
def test_two_of_a_name_are_refused_by_name(site, kind):
    first, second = install(site, kind, "X = 1", name="twin"), install(site, kind, "X = 2", name="twin")
    twins = f"{registry.WORDS[kind]} 'twin' is brought by several packages"
    says = f"{twins}, {first} 1.0 and {second} 1.0: uninstall all but one"
    with pytest.raises(MdmError, match=says):
        registry.resolve(kind, "twin")
    assert [fault for entry, fault in registry.check() if entry.name == "twin"] == [says, says]


@pytest.mark.attack("plugins: twins")
def test_a_family_of_a_taken_name_is_not_used_in_its_place(site):
    package = install(site, "model", FAMILY.format(claims="return True"), name="llada", value="FAMILY")
    says = f"set aside: family 'llada' is brought by several packages, {package} 1.0 and mdm-llada"
    with pytest.raises(MdmError, match=says), pytest.warns(MdmWarning):
        checkpoints.find_family(LLADA, None, Path("x"))


@pytest.mark.attack("plugins: twins")
@pytest.mark.parametrize(("kind", "name"), [("command", "run"), ("command", "plugins"), ("cache", "none")])
def test_the_core_keeps_its_own_names(site, kind, name):
    package = install(site, kind, "raise RuntimeError('imported')", name=name)
    says = f"{kind} {name!r} of package {package} 1.0 is set aside: mdm-core itself has a {kind} of that name"
    with pytest.warns(MdmWarning, match=says):
        assert registry.find(kind, name).dist == "mdm-core"
    assert says in [fault for entry, fault in registry.check() if entry.name == name]


@pytest.mark.attack("plugins: twins")
def test_two_hooks_of_one_name_and_package_are_left_out(site, caplog):
    site.package("fake-two-hooks", {"mdm.hooks": {"same": "fake_two_hooks:A"}}, "A = B = 1")
    info = site.path / "fake_two_hooks-1.0.dist-info" / "entry_points.txt"
    info.write_text("[mdm.hooks]\nsame = fake_two_hooks:A\nsame = fake_two_hooks:B\n")
    RunHooks()
    assert "left out: hook 'same' is brought by several packages, fake-two-hooks 1.0 and fake-two-hooks" in caplog.text


NAMES = ["two words", "\x1b[2J", "-x", "a/b", ".hidden", "a,b", "q'uote", "\u202eback", "a\x9bb"]


@pytest.mark.attack("plugins: names")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_written_is_refused(site, name):
    install(site, "sampler", "X = 1", name=name)
    assert name not in registry.names("sampler")
    with pytest.raises(MdmError, match="a name is made of letters, digits and") as caught:
        registry.resolve("sampler", name)
    assert str(caught.value).isprintable()
    listed = invoke("plugins", "--check")
    assert "a name is made of" in listed.stdout and printable(listed.stdout) == listed.stdout


@pytest.mark.attack("plugins: names")
@pytest.mark.parametrize(
    "value", ["", ":", ":X", "no module:X", "a b c", "fake_x:", "..:X", "fake_x:X.__class__.nope", "1:1"]
)
def test_an_odd_entry_point_is_one_line(site, value):
    site.package(f"fake-value-{next(FRESH)}", {"mdm.samplers": {"odd": value}}, "X = 1")
    with pytest.raises(MdmError, match="sampler 'odd'"):
        registry.resolve("sampler", "odd")


METADATA = {
    "no METADATA": lambda info: (info / "METADATA").unlink(),
    "no version": lambda info: (info / "METADATA").write_text("Name: fake\n"),
    "no name": lambda info: (info / "METADATA").write_text("Version: 1\n"),
    "METADATA in no UTF-8": lambda info: (info / "METADATA").write_bytes(b"Name: \xff\nVersion: \xff\n"),
    "requirements of nobody": lambda info: (info / "METADATA").write_text("Name: f\nVersion: 1\nRequires-Dist: @@\n"),
    "entry points in no UTF-8": lambda info: (info / "entry_points.txt").write_bytes(b"[mdm.samplers]\n\xff = \xff\n"),
    "entry points without =": lambda info: (info / "entry_points.txt").write_text("[mdm.samplers]\nhello\n"),
    "no section": lambda info: (info / "entry_points.txt").write_text("mdm.x = y\n"),
    "NUL": lambda info: (info / "entry_points.txt").write_bytes(b"[mdm.samplers]\n\0 = \0\n"),
    "a folder": lambda info: ((info / "entry_points.txt").unlink(), (info / "entry_points.txt").mkdir()),
}


@pytest.mark.attack("plugins: metadata")
@pytest.mark.parametrize("name", METADATA)
def test_broken_metadata_harm_nobody(site, name):
    package = install(site, "sampler", "X = 1")
    METADATA[name](site.path / f"{package.replace('-', '_')}-1.0.dist-info")
    assert "info-gain" in registry.names("sampler") and all(registry.check())
    if "UTF-8" in name:
        assert any(package.replace("-", "_") in path for path in registry.unreadable())
        assert "the metadata of " in invoke("plugins", "--check").stdout


SAMPLER = """
from mdm.protocols import BaseSampler, BaseTask, BaseCache
class X(BaseSampler):
    {line}
    def decide(self, *args): ...
"""


@pytest.mark.attack("plugins: types")
@pytest.mark.parametrize("line", [
    "Options = 5", "Options = int", "Options = None", "works_on = 'chair'", "works_on = ['block']", "reads = b'masked'",
    "budgets = None", "keeps_logits = 'no'", "ranks_by_certainty = 1", "begin = 5", "expected_failures = []",
])  # fmt: skip
def test_attributes_of_other_types_are_named(site, line):
    package = install(site, "sampler", SAMPLER.format(line=line))
    says = f"sampler 'odd' of package {package} 1.0: its {line.split()[0]} is "
    with pytest.raises(MdmError, match=says):
        registry.resolve("sampler", "odd")
    assert says in invoke("plugins", "--check").stdout


TASK = """
from pydantic import field_validator
from mdm.protocols import BaseTask, Example, Prompt, NoOptions
class Strict(NoOptions):
    n: int = 1
    @field_validator("n")
    @classmethod
    def check(cls, n): raise StopIteration("validator")
class X(BaseTask):
    def examples(self, *, seed, data=None): yield Example("one", {{}}, "")
    def prompt(self, example, style): return Prompt("1+1=", "", 2)
    def grade(self, example, completion): return {{"accuracy": 1.0}}
    {line}
"""
TASKS = {
    "def examples(self, **more): raise ValueError('no')": "failed in examples: ValueError: no",
    "def examples(self, **more): return None": "failed in examples: TypeError",
    "def examples(self, **more): return 5": "failed in examples: TypeError",
    "def examples(self, **more): raise StopIteration('x')": "failed in examples: StopIteration: x",
    "def examples(self, **more): import sys; sys.exit(0)": "failed in examples: SystemExit: 0",
    "def examples(self, **more): yield 5": "5 is no Example",
    "def examples(self, **more): yield None": "None is no Example",
    "def examples(self, **more): yield Example(5, {}, '')": "is no Example whose id is a text",
    "def examples(self, **more): yield Example('a\\ud800', {}, '')": "holds half a character",
    "def prompt(self, *args): raise ValueError('no')": "example one: it has no prompt: ValueError: no",
    "def prompt(self, *args): return None": "example one: its prompt is None, which is no Prompt",
    "def prompt(self, *args): return '1+1='": "which is no Prompt",
    "def prompt(self, *args): return Prompt(5, '', 2)": "example one: its prompt cannot be encoded",
    "def prompt(self, *args): return Prompt('x', None, 2)": "example one: ",
    "def prompt(self, *args): raise StopIteration": "example one: it has no prompt: StopIteration",
    "def prompt(self, *args): raise GeneratorExit": "example one: it has no prompt: GeneratorExit",
    "def __init__(self, options): raise ValueError('no')": "cannot be made: ValueError: no",
    "def __init__(self): pass": "cannot be made: TypeError",
    "def aggregate(self, grades): raise StopIteration": "cannot aggregate its grades: StopIteration",
    "def aggregate(self, grades): return None": "cannot aggregate its grades: TypeError",
    "def close(self): raise ValueError('no')": "failed in close: ValueError: no",
    "metric = 5": "its metric is 5",
    "default_limit = 'all'": "its default_limit is 'all'",
    "Options = dict": "its Options is ",
    "answers = 'a song'": "its answers is 'a song'",
    "Options = Strict": "",
}


@pytest.mark.attack("plugins: tasks that raise")
@pytest.mark.parametrize("line", TASKS)
def test_a_task_that_fails_is_one_line_with_its_name(site, tmp_path, line):
    install(site, "task", TASK.format(line=line), name="odd-task")
    flags = ["-o", "n=2"] if "Strict" in line else []
    done = invoke("run", "--task", "odd-task", "--sampler", "confidence", "--out", str(tmp_path / "run"), *flags)
    assert done.exit_code != 0 and "odd-task" in str(done.exception) and TASKS[line] in str(done.exception)
    assert str(done.exception).isprintable()


@pytest.fixture(scope="module")
def tiny():
    return mdm.load_model("tiny")


ENDS = [StopIteration, GeneratorExit]


class Ends(BaseSampler):
    def decide(self, state, scores, memory, draws):
        raise self.options


@pytest.mark.attack("plugins: StopIteration")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("sampler", ["info-gain", "confidence"])
@pytest.mark.parametrize("place", ["on_step", "on_finish", "processor"])
def test_nobody_ends_a_decode(tiny, end, sampler, place):
    def hostile(*args):
        raise end("x")

    given = {"logits_processors": [hostile]} if place == "processor" else {place: hostile}
    with pytest.raises(MdmError, match=rf"hostile.* {end.__name__}: x|failed: {end.__name__}: x"):
        mdm.decode(tiny, ["1+1="], sampler, gen_length=4, **given)


@pytest.mark.attack("plugins: StopIteration")
@pytest.mark.parametrize("end", ENDS)
def test_a_sampler_does_not_end_a_decode(tiny, end):
    with pytest.raises(MdmError, match=rf"Ends.* {end.__name__}: x"):
        mdm.decode(tiny, ["1+1="], Ends(end("x")), gen_length=4)


@pytest.mark.attack("plugins: StopIteration")
@pytest.mark.parametrize("end", [StopIteration, GeneratorExit, SystemExit, ValueError])
@pytest.mark.parametrize("hook", ["on_step", "on_finish"])
def test_a_hook_does_not_end_a_run(site, tmp_path, end, hook):
    arguments = "self, event" if hook == "on_step" else "self, result, example"
    method = f"  @hookimpl\n  def {hook}({arguments}): raise {end.__name__}('x')"
    source = f"from mdm.protocols import hookimpl\nclass Hook:\n{method}\nX = Hook()"
    package = install(site, "hook", source)
    done = invoke("run", "--task", "sudoku", "--limit", "1", "--sampler", "confidence", "--out", str(tmp_path / "run"))
    assert f"hook 'odd' of package {package} 1.0 failed in {hook}: {end.__name__}: x" in str(done.exception)


@pytest.mark.attack("plugins: arguments")
@pytest.mark.parametrize("args", [
    ["generate", "\udcff"], ["run", "--task", "\udcff"], ["plugins", "\udcff"], ["\udcff"], ["run", "--out", "a\udc80"],
    ["generate", "x", "-o", "a=\udcff"],
])  # fmt: skip
def test_arguments_that_are_no_text_are_one_line(args, capsys):
    with pytest.raises(SystemExit) as left:
        main(args)
    said = capsys.readouterr()
    assert left.value.code == 2 and said.err.count("\n") == 1 and "is not in UTF-8" in said.err and not said.out


@pytest.mark.attack("plugins: escape codes")
@pytest.mark.parametrize("args", [
    ["\x1b[2J"], ["plugins", "\x1b[2J"], ["run", "--task", "\x9b2J"], ["run", "--\x1b]0;x\x07"], ["grade", "\x1b[2J"],
    ["generate", "x", "--sampler", "\x1b[2J"],
])  # fmt: skip
def test_escape_codes_in_an_error_line_are_shown(args, capsys):
    with pytest.raises(SystemExit) as left:
        main(args)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1 and said.strip().isprintable()


@pytest.mark.attack("plugins: escape codes")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_completion_is_shown_on_a_terminal_and_raw_in_a_pipe(monkeypatch, capsys, terminal):
    monkeypatch.setattr("mdm.runs.decode_args.completion", lambda *args: "\x1b[2Ja\tb\nc\x9b")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    cli.main(["generate", "1+1=", "--gen-length", "2", "--sampler", "confidence"], standalone_mode=False)
    shown = "\\x1b[2Ja\tb\nc\\x9b\n" if terminal else "\x1b[2Ja\tb\nc\x9b\n"
    assert capsys.readouterr().out == shown


LISTED = {
    "hangs": "import time; time.sleep(99)",
    "is interrupted": "raise KeyboardInterrupt",
    "exits": "import sys; sys.exit(0)",
    "is looked at in vain": "class M(type):\n def __getattribute__(s, n): 1 / 0\nclass X(metaclass=M): pass",
}


@pytest.mark.attack("plugins: import")
@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("kind", ["sampler", "preset"])
def test_a_list_goes_on_where_a_plugin_does_not(site, monkeypatch, kind, name):
    package = install(site, kind, LISTED[name])
    monkeypatch.setattr(registry, "PATIENCE", 0.2)
    faults = {entry.dist: fault for entry, fault in registry.check() if entry.kind == kind and entry.name == "odd"}
    assert faults[package] and str(faults[package]).count("\n") == 0
    done = invoke("plugins", "--json")
    assert len(json.loads(done.output)) > 20 and "Traceback" not in done.output
