"""The rows of a comparison follow from the run's configuration; what a checkpoint says is recorded in it once."""

from __future__ import annotations

import json
import shutil

import pytest
from mdm.errors import MdmError
from mdm.models import checkpoints
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import load_model
from mdm.runs.variants import autoregressive, pin_models, variants, without_policy
from tiny_families import save_causal

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def unreachable(monkeypatch):
    """Neither a checkpoint nor the hub may be asked."""

    def locate(*args, **kw):
        raise AssertionError("a checkpoint was looked for")

    monkeypatch.setattr(checkpoints, "locate", locate)


def labels(config, out):
    return [variant.label for variant in variants(config, out)]


def rows(config, out):
    return [(variant.label, variant.sampler, variant.results.folder.name) for variant in variants(config, out)]


def test_variants_ask_no_checkpoint(unreachable, tmp_path):
    config = RunConfig(
        model=["/far/away/ar", "org/diffusion"], sampler=["a", "b"], tokens_per_step=[1, 2],
        autoregressive=["/far/away/ar"],
    )  # fmt: skip
    assert labels(config, tmp_path) == [
        "ar autoregressive", *(f"org/diffusion {sampler} K{pace}" for sampler in "ab" for pace in (1, 2)),
    ]  # fmt: skip
    assert [variant.results.folder.name for variant in variants(config, tmp_path)][:2] == [
        "ar-autoregressive", "org-diffusion-a-K1",
    ]  # fmt: skip


def test_folders_of_one_name_keep_their_paths(tmp_path):
    assert labels(RunConfig(model=["/a/ck", "/b/ck", "tiny"]), tmp_path) == ["/a/ck", "/b/ck", "tiny"]


def test_a_run_records_which_models_are_autoregressive(tmp_path, monkeypatch):
    """A checkpoint that has moved since changes no label."""
    monkeypatch.chdir(tmp_path)
    save_causal(tmp_path / "ar")
    config = configs.build(
        RunConfig, None, {"model": ["tiny", "./ar"], "sampler": ["confidence"], "gen_length": 16, "limit": 1}
    )
    runs.run(config, tmp_path / "run")
    written = configs.parse(RunConfig, tmp_path / "run" / "config.yaml")
    assert written.model == ["tiny", str(tmp_path / "ar")] and written.autoregressive == [str(tmp_path / "ar")]
    before = rows(written, tmp_path / "run")
    assert before == [("tiny", "confidence", "tiny"), ("ar", "autoregressive", "ar")]
    shutil.move(tmp_path / "ar", tmp_path / "elsewhere")
    again = configs.parse(RunConfig, tmp_path / "run" / "config.yaml")
    assert rows(again, tmp_path / "run") == before
    assert all(variant.results.by_row for variant in variants(again, tmp_path / "run"))
    # The run is complete: taking it up again needs no checkpoint either.
    summary = runs.run(configs.build(RunConfig, tmp_path / "run" / "config.yaml"), tmp_path / "run")
    assert [row["sampler"] for row in summary["runs"]] == ["confidence", "autoregressive"]


def test_a_run_of_autoregressive_models_alone(tmp_path):
    folder = str(save_causal(tmp_path / "ar"))
    pinned = pin_models(
        RunConfig(model=[folder], options={"info-gain": {"a": 1}, "sudoku": {"b": 2}}), tmp_path / "new"
    )
    assert autoregressive(pinned) == [folder]
    bare = without_policy(pinned)
    assert (bare.sampler, bare.options) == ([], {"sudoku": {"b": 2}})
    assert labels(bare, tmp_path) == ["autoregressive"]
    for asked in ({"sampler": ["info-gain"]}, {"steps": 3}, {"stop_at_eos": True}, {"reuse_scores": False}):
        with pytest.raises(MdmError, match="does not apply to"):
            without_policy(RunConfig(model=[folder], **asked))


def test_no_sampler_is_a_mistake(tmp_path):
    with pytest.raises(MdmError, match="no sampler is named: give --sampler"):
        variants(RunConfig(sampler=[], autoregressive=[]), tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with one model at one commit; what was asked of it, and what it gives."""
    import huggingface_hub

    folder = tmp_path / "hub" / "models--org--model" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llada"}))
    asked = []

    def download(name, *, revision, **_):
        asked.append((name, revision))
        return str(folder.with_name(revision) if revision else folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_the_commit_of_a_hub_model_is_recorded_and_used_again(hub, tmp_path):
    pinned = pin_models(RunConfig(model=["org/model"]), tmp_path / "new")
    assert (pinned.revisions, pinned.autoregressive) == ({"org/model": COMMIT}, [])
    assert hub == [("org/model", None)]
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text(configs.to_yaml(pinned))
    assert pin_models(RunConfig(model=["org/model"]), out) == pinned  # what is recorded is not looked up
    reproduced = configs.build(RunConfig, out / "config.yaml")
    assert reproduced.revisions == pinned.revisions and len(hub) == 1
    with pytest.raises(MdmError, match="has no config.json"):
        load_model(reproduced.model_copy(update={"revisions": {"org/model": "f" * 40}}), "org/model")
    assert hub[-1] == ("org/model", "f" * 40)


def test_another_model_has_nothing_recorded(hub, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(configs.to_yaml(pin_models(RunConfig(model=["org/model"]), tmp_path / "new")))
    other = configs.build(RunConfig, file, {"model": ["tiny"]})
    assert (other.revisions, other.autoregressive) == ({}, None)


def test_a_folder_is_written_whole(tmp_path, monkeypatch):
    """So that its configuration means the same from elsewhere. What is no folder stays as it was typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ck").mkdir()
    assert RunConfig(model=["ck", "./gone", "org/model", "tiny"]).model == [
        str(tmp_path / "ck"), "./gone", "org/model", "tiny",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the same value twice"):
        RunConfig(model=["ck", "./ck"])
