"""A finished run is read from its folder alone: its models may have moved, and the hub is not asked."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import yaml
from click.testing import CliRunner
from mdm.cli import cli
from mdm_report.compare import compare
from mdm_report.view import data
from tiny_families import save_causal

HUB = "GSAI-ML/LLaDA-8B-Instruct"


def mdm(*args: object) -> str:
    done = CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of a diffusion model and an autoregressive one whose folder has moved since; one and two samplers."""
    home = tmp_path_factory.mktemp("moved")
    save_causal(home / "ar")
    task = ["--task", "sudoku", "-o", "mode=generate", "--limit", "2", "--gen-length", "4", "--model", "tiny"]
    for name, samplers in (("one", ["confidence"]), ("two", ["confidence", "random"])):
        flags = [flag for sampler in samplers for flag in ("--sampler", sampler)]
        mdm("run", *task, "--model", home / "ar", *flags, "--out", home / name)
    (home / "ar").rename(home / "elsewhere")
    return home / "one", home / "two"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def refuse(name, **_):
        raise AssertionError(f"the hub is asked for {name}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


def test_a_moved_autoregressive_model_keeps_its_label(folders):
    one, two = folders
    records = json.loads(mdm("compare", one, "--json"))
    assert [record["sampler"] for record in records] == ["confidence", "autoregressive"]
    assert [record["label"].split()[-1] for record in records] == ["confidence", "autoregressive"]
    # With two samplers it has one row and not one for each sampler.
    assert [record["sampler"] for record in compare([two])] == ["confidence", "random", "autoregressive"]


def test_the_page_has_a_moved_autoregressive_model(folders):
    for folder, samplers in zip(folders, (1, 2), strict=True):
        page = data.load([folder])
        assert len(page["variants"]) == samplers + 1 and "ar" in page["variants"][-1]
        assert all(decoding for sample in page["samples"] for decoding in sample["variants"])
    assert "autoregressive" in page["variants"][-1]


def rewrite(folder, target, **changes):
    """A copy of a run with another configuration."""
    shutil.copytree(folder, target)
    path = target / "config.yaml"
    settings = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    return target


def test_the_hub_is_not_asked_for_its_models(folders, tmp_path):
    home = tmp_path / "run"
    mdm("run", "--sampler", "confidence", "--limit", "1", "--out", home)
    run = rewrite(home, tmp_path / "hub", model=[HUB], offline=False, autoregressive=None)
    [record] = compare([run])
    assert (record["model"], record["sampler"]) == (HUB, "confidence")
    assert data.load([run])["variants"] == ["confidence"]


def test_a_run_that_does_not_record_it_has_no_autoregressive_models(folders, tmp_path):
    run = rewrite(folders[0], tmp_path / "before", autoregressive=None)
    assert [record["sampler"] for record in compare([run])] == ["confidence", "confidence"]
