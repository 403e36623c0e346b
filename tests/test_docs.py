"""The site builds with no dead link; what is generated is fresh; the tutorial's plugin is what the tutorial says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from goldens import ROOT

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial" / "mdm-right-to-left"
SNIPPETS = [
    pytest.param(body, id=f"{page.name} {number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, body in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    if page.name in ("quickstart.md", "concepts.md")
]


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **env}
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_help_pages_are_fresh():
    spec = importlib.util.spec_from_file_location("cli_pages", DOCS / "site" / "cli.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert pages.PAGE.read_text() == pages.text(), "stale: run python docs/site/cli.py"


def test_the_site_builds_without_a_dead_link(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site's tools are not installed: tox -e docs")
    built = python("-m", "mkdocs", "build", "--strict", "-q", "-f", str(DOCS / "site/mkdocs.yml"), "-d", str(tmp_path))
    assert built.returncode == 0, built.stdout + built.stderr
    assert "RightToLeft" in (tmp_path / "tutorial/index.html").read_text()
    home = (tmp_path / "index.html").read_text()
    assert not re.findall(r"""<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//""", home)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    done = python("-c", snippet)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_tutorials_plugin_installs_conforms_and_runs(tmp_path):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    assert python(*install, str(TUTORIAL)).returncode == 0
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(TUTORIAL), PYTHONPATH=str(site))
    assert tested.returncode == 0, tested.stdout
    run = ["run", "--sampler", "right-to-left", "--sampler", "info-gain", "--task", "equations", "--limit", "2"]
    done = python("-m", "mdm", *run, "--out", str(tmp_path / "run"), PYTHONPATH=str(site))
    assert done.returncode == 0 and "right-to-left" in done.stdout, done.stderr
