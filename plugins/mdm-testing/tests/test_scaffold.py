"""``mdm new``: one package of each kind is generated, installed and found to conform; mistakes are one line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import mdm
import pytest
from click.testing import CliRunner
from mdm import registry
from mdm.errors import MdmError
from mdm_testing import run, subject, toy_model
from mdm_testing.new_command import KINDS, new
from mdm_testing.scaffold import create

CPU = {"device": "cpu", "dtype": "float32"}
NASTY = (
    "none", "true", "commit", "evaluate", "example", "prompt", "plan", "state", "llama", "random", "no-options",
    "scores", "watched", "base-sampler", "model-spec", "class",
)  # fmt: skip
"""Names that a keyword of Python, or something that a template imports, has as well."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the four generated packages, and one on the path that they are installed into."""
    made, site = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("site")
    for kind in KINDS:
        create(kind, f"my-{kind}", made)
    packages = [str(made / f"mdm-my-{kind}") for kind in KINDS]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(site))
    yield made, site
    sys.path.remove(str(site))
    for kind in KINDS:
        sys.modules.pop(f"mdm_my_{kind}", None)


@pytest.mark.parametrize("kind", KINDS)
def test_it_conforms_at_once(installed, kind):
    name = f"my-{kind}"
    entry = registry.find(kind, name)
    assert (entry.dist, entry.version) == (f"mdm-{name}", "0.1.0")
    failed = [(o.check, o.detail) for o in run(subject(kind, name)) if not o.ok]
    assert failed == []


def test_its_own_tests_pass(installed):
    made, site = installed
    tests = [str(made / f"mdm-my-{kind}" / "tests") for kind in KINDS]
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    # The conformance of all four is tested above, in this process; here two suffice to see that the tests do it too.
    which = "not test_conforms or my-task or my-cache"
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "--rootdir", str(made), "-k", which]
    got = subprocess.run([sys.executable, "-c", code, *options, *tests], capture_output=True, text=True, cwd=made)
    assert got.returncode == 0, got.stdout
    assert "passed" in got.stdout


def test_what_is_installed_has_its_licence(installed):
    for kind in KINDS:
        assert list(installed[1].glob(f"mdm_my_{kind}-*.dist-info/licenses/LICENSE"))


def test_it_says_what_to_do_next(tmp_path):
    got = CliRunner().invoke(new, ["sampler", "boldest", "--into", str(tmp_path)], standalone_mode=False)
    assert got.exception is None
    assert f"pip install -e {tmp_path / 'mdm-boldest'}" in got.stdout and "mdm check boldest" in got.stdout
    files = {str(p.relative_to(tmp_path / "mdm-boldest")) for p in (tmp_path / "mdm-boldest").rglob("*") if p.is_file()}
    assert files == {
        "pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/test.yml",
        "src/mdm_boldest/__init__.py", "tests/test_boldest.py",
    }  # fmt: skip
    for file in files:
        assert "{{ " not in (tmp_path / "mdm-boldest" / file).read_text().replace("${{ matrix.python }}", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Bold", "small letters"),
        ("two words", "small letters"),
        ("../escape", "small letters"),
        ("mdm-bold", "small letters"),
        ("9lives", "small letters"),
        ("confidence", r"sampler 'confidence' is taken: mdm-greedy .* brings a sampler of that name"),
        ("sudoku", "mdm-planning .* brings a task of that name"),
        ("none", "mdm-core .* brings a cache of that name"),
        ("core", "mdm-core-revise .* brings a sampler of that name"),
        ("planning", "would be the package mdm-planning, which exists already"),
        ("there", "is there already"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, name, said):
    (tmp_path / "mdm-there").mkdir()
    with pytest.raises(MdmError, match=said) as caught:
        create("sampler", name, tmp_path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["mdm-there"]
    assert not list((tmp_path / "mdm-there").iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MdmError, match="is not a folder"):
        create("task", "rhymes", tmp_path / "absent")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NASTY)
def test_a_name_that_means_something_else_is_written_so_that_it_works(tmp_path, monkeypatch, kind, name):
    with monkeypatch.context() as patch:
        patch.setattr(registry, "entries", lambda: [])  # some of the names are installed here
        create(kind, name, tmp_path)
    package, module = tmp_path / f"mdm-{name}", f"mdm_{name.replace('-', '_')}"
    for path in package.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
    spec = importlib.util.spec_from_file_location(module, package / "src" / module / "__init__.py")
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    entry = next(line for line in (package / "pyproject.toml").read_text().splitlines() if f'"{module}:' in line)
    plugin = getattr(written, entry.partition(":")[2].strip('"'))
    if kind == "model":
        plugin.example(tmp_path)
        model = plugin.load(str(tmp_path), json.loads((tmp_path / "config.json").read_text()), **CPU)
        [result] = mdm.decode(model, [[1, 2, 3]], "confidence", gen_length=2)
    elif kind == "task":
        task = plugin(plugin.Options())
        example = next(iter(task.examples(seed=0)))
        assert task.grade(example, example.reference) == {"accuracy": 1.0} and task.prompt(example, "chat").gen_length
        return
    else:
        given = {"sampler": "confidence", kind: plugin(plugin.Options())}
        [result] = mdm.decode(toy_model(), ["hello"], **given, gen_length=2)
    assert len(result.tokens) == 2
