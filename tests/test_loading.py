"""A checkpoint that cannot be used is refused in one line, by its culprit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import mdm
import mdm_tiny
import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(mdm_tiny.checkpoint(), folder, ignore=shutil.ignore_patterns("training"))
    return folder


def refused(folder, *args: str) -> str:
    command = [sys.executable, "-m", "mdm", "generate", "1+1=", "--model", str(folder), *args]
    got = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert got.returncode == 2, got
    assert got.stdout == "" and "Traceback" not in got.stderr
    lines = [line for line in got.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, got.stderr
    return lines[0]


def configure(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_truncated_weights(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "weights cannot be read" in refused(checkpoint)


def test_another_architecture(checkpoint):
    configure(checkpoint, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    assert "gpt2" in refused(checkpoint)


def test_a_config_key_that_selects_other_code(checkpoint):
    configure(checkpoint, alibi=True)
    assert "'alibi'" in refused(checkpoint)


def test_a_config_without_a_needed_key(checkpoint):
    configure(checkpoint, n_heads=None)
    assert "n_heads" in refused(checkpoint)


def test_a_weight_of_the_wrong_shape(checkpoint):
    configure(checkpoint, mlp_hidden_size=256)
    assert "wrong shape" in refused(checkpoint)


@pytest.mark.parametrize(("change", "word"), [("drop", "no weight"), ("add", "surplus")])
def test_a_missing_or_surplus_weight(checkpoint, change, word):
    weights = load_file(checkpoint / "model.safetensors")
    name = "model.transformer.blocks.1.q_proj.weight"
    if change == "drop":
        del weights[name]
    else:
        weights["model.transformer.blocks.9.q_proj.weight"] = weights[name].clone()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert word in refused(checkpoint)


def test_pickled_weights(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "pickle" in refused(checkpoint)


def test_no_such_model(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_a_device_that_is_not_there(checkpoint):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "no usable CUDA GPU" in refused(checkpoint, "--device", "cuda")


def test_every_weight_is_in_its_place(checkpoint):
    model = mdm.load_model(checkpoint, device="cpu")
    weights = load_file(checkpoint / "model.safetensors")
    assert model.lm_head.weight.equal(weights["model.transformer.ff_out.weight"])
    mlp = model.body.layers[2].mlp
    assert mlp.gate_proj.weight.equal(weights["model.transformer.blocks.2.ff_proj.weight"])
    assert mlp.down_proj.weight.equal(weights["model.transformer.blocks.2.ff_out.weight"])


def test_a_folder_called_like_a_named_checkpoint_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert mdm.load_model("tiny", device="cpu").spec.family == "llada"
    with pytest.raises(mdm.MdmError, match="no config.json"):
        mdm.load_model("./tiny", device="cpu")
