"""The embedded model is small, whole, in LLaDA's format, and can be made again."""

from __future__ import annotations

import json
from pathlib import Path

import mdm
import pytest
import torch
from click.testing import CliRunner
from mdm_tiny import checkpoint
from mdm_tiny.train import CHARACTERS, EOS_ID, MASK_ID, Sequence, batch, main
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def model():
    return mdm.load_model("tiny", device="cpu")


def test_it_is_small_and_holds_no_state_of_its_training():
    files = [p for p in Path(checkpoint()).iterdir() if p.is_file()]
    assert {p.name for p in files} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(p.stat().st_size for p in files) < 8 << 20


def test_every_character_has_its_token(model):
    ids = model.encode(CHARACTERS)
    assert ids == list(range(len(CHARACTERS)))
    assert model.decode(ids) == CHARACTERS
    assert (model.spec.mask_id, model.spec.eos_ids) == (MASK_ID, (EOS_ID,))
    assert model.decode([1, EOS_ID, 2]) == "1"
    with pytest.raises(mdm.MdmError, match="does not know some characters"):
        model.encode("Ü")


def test_it_knows_the_rules_of_sudoku(model):
    [result] = mdm.decode(model, ["1[MASK]34341[MASK]214343[MASK]1"], gen_length=0)
    assert result.sequence == model.encode("1234341221434321")


def test_only_responses_are_masked_and_asked_for():
    rows = [Sequence((1, 2, 3, 4, 5), 2), Sequence((6, 7, 8), 0)]
    tokens, targets, real = batch(rows, torch.Generator().manual_seed(1))
    assert real.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    asked = targets != -100
    assert asked.any() and not asked[0, :2].any() and not asked[1, 3:].any()
    assert (tokens[asked] == MASK_ID).all()
    plain = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, EOS_ID, EOS_ID]])
    assert torch.equal(torch.where(asked, targets, tokens), plain)


def train(folder: Path, *more: str) -> str:
    options = ["--steps", "6", "--scale", "0.05", "--every", "2", "--threads", "1", "--out", str(folder), *more]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "parts", "--stop-after", "4")
    assert "going on at step 4" in train(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    made = mdm.load_model(tmp_path / "parts", device="cpu")
    assert made.score_logits(torch.tensor([[1, MASK_ID]])).isfinite().all()


def test_a_training_of_other_options_is_not_continued(tmp_path):
    train(tmp_path, "--stop-after", "2")
    done = CliRunner().invoke(main, ["--steps", "9", "--out", str(tmp_path)])
    assert done.exit_code == 1 and "of another run" in done.output
    assert json.loads((tmp_path / "training" / "state.json").read_text())["step"] == 2
