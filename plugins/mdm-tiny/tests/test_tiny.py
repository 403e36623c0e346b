"""The embedded models are small, whole, in LLaDA's format, and can be made again."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import mdm
import pytest
import torch
from click.testing import CliRunner
from mdm.protocols import Example
from mdm_planning.countdown import Countdown, CountdownOptions
from mdm_tiny import folder_of
from mdm_tiny.muon import orthogonal
from mdm_tiny.recipes import COUNTDOWN, RECIPES, TINY, Sequence, Source, begins_with_the_first_two
from mdm_tiny.train import batch, main
from safetensors.torch import load_file

EOS_ID, MASK_ID = TINY.eos_id, TINY.mask_id


@pytest.fixture(scope="module")
def model():
    return mdm.load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def countdown():
    return mdm.load_model("tiny-countdown", device="cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_small_and_holds_no_state_of_its_training(name):
    files = [p for p in folder_of(name).iterdir() if p.is_file()]
    assert {p.name for p in files} == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(p.stat().st_size for p in files) < 8 << 20


def test_every_character_has_its_token(model):
    ids = model.encode("".join(TINY.tokens))
    assert ids == list(range(len(TINY.tokens)))
    assert model.decode(ids) == "".join(TINY.tokens)
    assert (model.spec.mask_id, model.spec.eos_ids) == (MASK_ID, (EOS_ID,))
    assert model.decode([1, EOS_ID, 2]) == "1"
    with pytest.raises(mdm.MdmError, match="does not know some characters"):
        model.encode("Ü")


def test_it_knows_the_rules_of_sudoku(model):
    [result] = mdm.decode(model, ["1[MASK]34341[MASK]214343[MASK]1"], gen_length=0)
    assert result.sequence == model.encode("1234341221434321")


@pytest.mark.parametrize(
    "text", ["7,99,100,199:", "200,1005,31999,0,00,007", "12*34=408,408-9=399", "n:6,7,9,2", "a 1\n"]
)
def test_numbers_are_tokens_and_long_ones_several(countdown, text):
    ids = countdown.encode(text)
    assert ids == COUNTDOWN.encode(text) and countdown.decode(ids) == text
    assert countdown.spec.mask_id == COUNTDOWN.mask_id and countdown.spec.eos_ids == (COUNTDOWN.eos_id,)
    assert [len(COUNTDOWN.encode(str(number))) for number in (0, 9, 10, 99, 100, 199, 200)] == [1] * 6 + [2]


def test_most_of_countdown_is_solved(countdown):
    task = Countdown(CountdownOptions())
    problems = [example.inputs["puzzle"] for example in islice(task.examples(seed=11), 48)]
    done = mdm.decode(countdown, [f"{problem}:" for problem in problems], gen_length=24, sampler="confidence")
    solved = [
        task.grade(Example("", {"puzzle": p}, ""), r.text)["accuracy"] for p, r in zip(problems, done, strict=True)
    ]
    assert sum(solved) >= 0.6 * len(solved)


def test_one_of_several_solutions_is_learned():
    examples = list(islice(Countdown(CountdownOptions()).examples(seed=5), 300))
    kept = [example for example in examples if begins_with_the_first_two(example)]
    assert 80 < len(kept) < 160
    for example in examples:
        a, b, *_ = example.inputs["puzzle"].split(",")
        begins = sorted((a, b)) == sorted(re.split(r"[-+*/=]", example.reference)[:2])
        assert (example in kept) >= begins  # another one is kept only where none begins so
    answers = [
        COUNTDOWN.stream(Source("countdown", {}, 1, length=12), 0),
        COUNTDOWN.stream(Source("countdown", {}, 1), 0),
    ]
    assert [{len(row.ids) - row.first for row in islice(rows, 50)} for rows in answers] == [{12}, {24}]


def test_the_update_of_muon_is_close_to_orthogonal():
    made = orthogonal(torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0)))
    sizes = torch.linalg.svdvals(made)
    assert made.shape == (3, 12, 5) and sizes.min() > 0.6 and sizes.max() < 1.3


def test_only_responses_are_masked_and_asked_for():
    rows = [Sequence((1, 2, 3, 4, 5), 2), Sequence((6, 7, 8), 0)]
    tokens, targets, real = batch(TINY, rows, torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, name):
    train(tmp_path / "whole", "--model", name)
    train(tmp_path / "parts", "--model", name, "--stop-after", "4")
    assert "going on at step 4" in train(tmp_path / "parts", "--model", name)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    made = mdm.load_model(tmp_path / "parts", device="cpu")
    assert made.score_logits(torch.tensor([[1, made.spec.mask_id]])).isfinite().all()


def test_a_training_of_other_options_is_not_continued(tmp_path):
    train(tmp_path, "--stop-after", "2")
    done = CliRunner().invoke(main, ["--steps", "9", "--out", str(tmp_path)])
    assert done.exit_code == 1 and "of another run" in done.output
    assert json.loads((tmp_path / "training" / "state.json").read_text())["step"] == 2
