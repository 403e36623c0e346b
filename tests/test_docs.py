"""The site builds with no dead link; what is generated is fresh; the tutorial's plugin is what the tutorial says."""

from __future__ import annotations

import re
import shutil
from importlib import metadata

import pytest
from goldens import ROOT
from mdm import registry
from pages import DOCS, python
from stranger import stranger as stranger  # a fixture

TUTORIAL = DOCS / "tutorial" / "mdm-right-to-left"
FAMILY = DOCS / "tutorial" / "mdm-tessera"
SITE = ("mkdocs", "material", "mkdocstrings")
"""The modules of the tools that build the site."""
SNIPPETS = [
    pytest.param(body, id=f"{page.name} {number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, body in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    if page.name in ("quickstart.md", "concepts.md", "images.md", "proteins.md")
]


def test_the_help_pages_are_fresh(tmp_path):
    # In a process of its own: click keeps a command's help option from its first use, whoever used it.
    written = python("docs/site/cli.py", str(tmp_path / "cli.md"))
    assert written.returncode == 0, written.stderr
    assert (DOCS / "cli.md").read_text() == (tmp_path / "cli.md").read_text(), "stale: run python docs/site/cli.py"


def test_the_table_of_options_is_fresh(tmp_path):
    written = python("docs/site/options.py", str(tmp_path / "reference.md"))
    assert written.returncode == 0, written.stderr
    fresh = (tmp_path / "reference.md").read_text()
    assert (DOCS / "reference.md").read_text() == fresh, "stale: run python docs/site/options.py"
    assert "| `temperature` | 0 | yes |" in fresh


def test_the_tables_of_presets_are_fresh(tmp_path):
    named = set(re.findall(r"^### `(.*)`$", (DOCS / "recipes.md").read_text(), re.M))
    if named - set(registry.names("preset")):
        pytest.skip("not all presets are installed")
    written = python("docs/site/recipes.py", str(tmp_path / "recipes.md"))
    assert written.returncode == 0, written.stderr
    fresh = (tmp_path / "recipes.md").read_text()
    assert (DOCS / "recipes.md").read_text() == fresh, "stale: run python docs/site/recipes.py"
    assert "| gsm8k | gen_length 256, steps 256, block_length 8, shots 0 | 78.6 accuracy |" in fresh


def test_the_site_builds_without_a_dead_link(tmp_path):
    for module in SITE:
        pytest.importorskip(module, reason="the site's tools are not installed: tox -e docs")
    built = python("-m", "mkdocs", "build", "--strict", "-f", str(DOCS / "site/mkdocs.yml"), "-d", str(tmp_path))
    assert built.returncode == 0, built.stdout + built.stderr
    assert "RightToLeft" in (tmp_path / "tutorial/index.html").read_text()
    home = (tmp_path / "index.html").read_text()
    assert not re.findall(r"""<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//""", home)


def test_docstrings_name_parameters_that_there_are(caplog):
    """Also of what stands on no page."""
    griffe = pytest.importorskip("griffe", reason="the site's tools are not installed: tox -e docs")
    for source in sorted(
        {path.parent for path in ROOT.glob("*/src/*/__init__.py")}
        | {path.parent for path in ROOT.glob("*/*/src/*/__init__.py")}
    ):
        package = griffe.load(
            source.name, search_paths=[source.parent], docstring_parser="google", allow_inspection=False
        )
        left = [package]
        while left:
            found = left.pop()
            if not found.is_alias:
                _ = found.docstring and found.docstring.parsed  # which warns of what it does not understand
                left += found.members.values()
    broken = [record.getMessage() for record in caplog.records if "No type or annotation" not in record.getMessage()]
    assert not broken, broken


@pytest.mark.wide
def test_a_broken_docstring_fails_the_site(tmp_path):
    for module in SITE:
        pytest.importorskip(module, reason="the site's tools are not installed: tox -e docs")
    for folder in ("docs/site", "core/src/mdm"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs/reference.md").write_text("# Reference\n\n::: mdm.api.decode\n")
    (tmp_path / "docs/index.md").write_text("# mdm\n")
    build = ("-m", "mkdocs", "build", "--strict", "-f", str(tmp_path / "docs/site/mkdocs.yml"), "-d")
    whole = python(*build, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    api = tmp_path / "core/src/mdm/api.py"
    for right, wrong, said in (
        ("        prompts: each", "        promts: each", "'promts' does not appear in the function signature"),
        ('"""Decode prompts', '"""Decode as [it][mdm.api.decoed] does, prompts', "mdm.api.decoed"),
    ):
        text = api.read_text()
        assert right in text
        api.write_text(text.replace(right, wrong, 1))
        broken = python(*build, str(tmp_path / "broken"))
        api.write_text(text)
        assert broken.returncode != 0 and said in broken.stdout + broken.stderr, broken.stdout + broken.stderr


def test_the_sites_tools_are_pinned():
    """What builds the site: its tools and all of what they need that exists for sites only."""
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    asked = [
        line.strip()
        for line in (ROOT / "tox.ini").read_text().splitlines()
        if "mkdocs" in line and " " not in line.strip()
    ]
    left, seen = [re.split(r"[\[<>=;]", line)[0] for line in asked], set()
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in seen or not re.match("mkdocs|griffe|markdown|pymdown|pygments|properdocs", name):
            continue
        seen.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            pytest.skip("the site's tools are not installed: tox -e docs")
        left += [
            re.split(r"[\s\[<>=!~;(]", need)[0] for need in needs if "extra" not in need or 'extra == "python"' in need
        ]
    assert {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python", "griffelib"} <= seen
    assert seen <= pinned, f"pin in constraints.txt: {sorted(seen - pinned)}"


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    done = python("-c", snippet)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_tutorial_can_be_typed(stranger):
    home, types = stranger
    page = (DOCS / "tutorial.md").read_text()
    first, beside, publish = re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)
    verdict = re.compile(r"^sampler right-to-left: (\d+) of \1 checks pass, 0 fail$", re.M)
    assert "\nsampler right-to-left: … of … checks pass, 0 fail\n" in page
    for line in first.splitlines():
        said = types(line)
    assert verdict.search(said)

    made = home / TUTORIAL.name
    for page in ("README.md", "pyproject.toml", "src/mdm_right_to_left/__init__.py", "tests/test_right_to_left.py"):
        assert (made / page).is_file(), "what the tutorial edits is what `mdm new` wrote"
        shutil.copy(TUTORIAL / page, made / page)
    types(f"pytest -q -p no:cacheprovider {made}")
    check, compare, live = [types(line) for line in beside.splitlines()]
    assert verdict.search(check)
    assert [row.split()[0] for row in compare.splitlines() if "%" in row and row.startswith(" ")][-2:] == [
        "right-to-left",
        "info-gain",
    ]
    assert "commit: 15" in live, "the first commit is the last cell of the puzzle"
    assert "twine check --strict" in publish


def test_the_page_on_families_can_be_typed(stranger):
    home, types = stranger
    page = (DOCS / "new-family.md").read_text()
    begin, decode = re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)
    for line in begin.splitlines():
        types(line)
    made = home / FAMILY.name
    for pattern in ("*.toml", "*.md", "src/*/*.py", "tests/*.py"):
        for path in FAMILY.glob(pattern):
            shutil.copy(path, made / path.relative_to(FAMILY))
    assert re.search(r"\d+ passed", types(decode.strip()))
