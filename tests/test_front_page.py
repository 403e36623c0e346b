"""What the front page says is so: names, counts, figures, the picture. It says the same in both languages."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from goldens import ROOT
from mdm import registry
from pages import DOCS, python

README, CHINESE, START = ROOT / "README.md", ROOT / "README.zh-CN.md", DOCS / "index.md"
ROWS = {"models.md": "model", "samplers.md": "sampler", "caches.md": "cache", "evaluation.md": "task"}
"""The page that a row of the table of what runs names first, and the kind of plugin."""
OURS = {
    re.sub(r"\[.*|.*/", "", line.strip()) for line in (ROOT / "requirements.txt").read_text().splitlines()
} | {"mdm-core"}  # fmt: skip


@pytest.mark.parametrize("page", [README, CHINESE, START], ids=lambda page: page.name)
def test_the_table_of_what_runs_is_what_is_installed(page):
    said = {
        ROWS[where]: (int(count), re.findall(r"`(.+?)`", names))
        for where, count, names in re.findall(
            r"^\| \[.*?\]\((?:docs/)?(\w+\.md)\) \| (\d+) \| (.*) \|$", page.read_text(), re.M
        )
    }
    for kind in ROWS.values():
        there = sorted(entry.name for entry in registry.entries(kind) if entry.dist in OURS)
        count, names = said[kind]
        assert sorted(names) == there and count == len(there), kind


def fences(page: Path) -> list[str]:
    return re.findall(r"^```.*?^```$", page.read_text(), re.M | re.S)


def test_both_languages_show_the_same_commands_and_code():
    assert fences(CHINESE) == fences(README)
    assert "(README.zh-CN.md)" in README.read_text()[:200] and "(README.md)" in CHINESE.read_text()[:200]


def test_both_languages_show_the_same_figures():
    first = [page.read_text().partition("```")[0] for page in (README, CHINESE)]
    english, chinese = [re.findall(r"\d+\.\d+", text) for text in first]
    assert english == chinese and {"58.2", "75.5", "93.3", "15.0"} <= set(english)


def test_the_figures_of_speed_were_measured():
    check = json.loads((DOCS / "gpu/nvidia-h100-80gb-hbm3.json").read_text())
    cells = check["parts"]["speed:llada-8b"]["cells"]
    measured = re.findall(r'tokens_per_second": ([\d.]+)', json.dumps(cells))
    for page in (README, START):
        text = page.read_text()
        assert check["parts"]["device"]["cells"]["device"]["name"].removeprefix("NVIDIA ") in text
        for figure in ("58.2", "75.5", "93.3"):
            assert figure in text and figure in {f"{float(value):.1f}" for value in measured}
        [published] = re.findall(
            r"^\| dual, N 8 \|.*?\| ([\d.]+) \(66\.7\) \|", (DOCS / "benchmarks.md").read_text(), re.M
        )
        assert published in text


def test_the_figures_of_accuracy_are_those_of_the_results():
    pages = {page: page.read_text() for page in (README, START)}
    results = (DOCS / "results.md").read_text()
    equations, sudoku = [
        results.partition(f"\n## {task} on tiny")[2].partition("\n## ")[0] for task in ("Equations", "Sudoku")
    ]
    for sampler, figure in {"info-gain": "23.0%", "confidence": "18.0%"}.items():
        assert f"| {sampler} | 1 | {figure} |" in equations
        assert all(
            f"`{sampler}` solves {figure}" in text or f"`{sampler}` {figure}" in text.replace("\n", " ")
            for text in pages.values()
        )
    for sampler, figure in {"confidence": "91.3%", "info-gain": "99.0%"}.items():
        assert f"| {sampler} | 2 | {figure} |" in sudoku and f"`{sampler}` | {figure} |" in pages[START]


def test_the_picture_of_a_decode_is_fresh_and_says_what_happened():
    made = runpy.run_path(str(DOCS / "make_decode_picture.py"))["svg"]()
    assert (DOCS / "images/decode.svg").read_text() == made, "stale: run python docs/make_decode_picture.py"
    assert "✗ 73 × 60 is 4380" in made and "✓ 70 × 64 = 4480" in made
    assert "prefers-color-scheme: dark" in made and "prefers-reduced-motion" in made


@pytest.mark.parametrize("picture", sorted(DOCS.glob("images/*.svg")), ids=lambda path: path.name)
def test_pictures_bring_all_they_need(picture):
    """A page shows an SVG as an image, which may fetch nothing."""
    text = picture.read_text()
    linked = re.findall(r"""(?:href|src)=["'](?!#)([^"']*)|url\((?!['"]?#)([^)]*)\)|@import""", text)
    assert not linked and "<script" not in text


def test_the_tables_of_keys_are_fresh(tmp_path):
    written = python("docs/site/keys.py", str(tmp_path / "configuration.md"))
    assert written.returncode == 0, written.stderr
    fresh = (tmp_path / "configuration.md").read_text()
    assert (DOCS / "configuration.md").read_text() == fresh, "stale: run python docs/site/keys.py"
    assert "| `limit` | all of --data, or a few |" in fresh


def test_every_translation_names_options_that_there_are():
    """Flags and options in the last columns of docs/from-infogain.md are those of our commands and plugins."""
    from mdm.cli import cli

    flags = {
        flag
        for entry in registry.entries("command")
        for option in registry.resolve("command", entry.name).params
        for flag in (*option.opts, *option.secondary_opts)
    }
    options = {
        name
        for kind in ("sampler", "cache", "task")
        for entry in registry.entries(kind)
        for name in registry.load(entry).Options.model_fields
    }
    assert cli.commands is not None
    page = (DOCS / "from-infogain.md").read_text()
    ours = [cell for row in re.findall(r"^\| (.*) \|$", page, re.M) for cell in re.split(r"(?<!\\)\| ", row)[1:]]
    ours += [line for body in re.findall(r"^```\w+\n(mdm .*?)^```", page, re.M | re.S) for line in body.splitlines()]
    named = re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", "\n".join(ours))
    given = re.findall(r"-o \"?(?:[a-z-]+\.)?([a-z_]+)=", "\n".join(ours))
    assert len(named) > 40 and set(named) <= flags, set(named) - flags
    assert len(given) > 15 and set(given) <= options, set(given) - options


@pytest.mark.parametrize("recipe", sorted(DOCS.glob("containers/*")), ids=lambda path: path.name)
def test_what_a_container_copies_is_there(recipe):
    commands = re.sub(r"\\\n", " ", recipe.read_text()).splitlines()
    steps = [line.split() for line in commands if line and not line.startswith("#")]
    assert steps[0][0] == "FROM" and ["ENTRYPOINT", '["mdm"]'] in steps
    copied = [source for step in steps if step[0] == "COPY" for source in step[1:-1]]
    assert all((ROOT / source).exists() for source in copied)
    needed = {
        Path(path).parts[0] for path in re.findall(r"^-e \./([^\[\n]+)", (ROOT / "requirements.txt").read_text(), re.M)
    }
    assert needed <= set(copied), "every package of requirements.txt lies in a folder that is copied"
    assert any(step[:1] == ["USER"] and step[1] not in ("root", "0") for step in steps)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_no_page_begins_with_how_it_is_made(page):
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.S)
    first = next(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    assert not re.search(r"do not edit|generated|written by `", first, re.I), first
