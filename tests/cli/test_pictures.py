"""``mdm generate --image`` and ``--look``, on a tiny random MMaDA."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from mdm.cli.generate import generate
from mdm.errors import MdmError
from PIL import Image
from tiny_families import save_painter


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    model, tokenizer = save_painter(tmp_path_factory.mktemp("painter"))
    return ["--model", str(model), "--image-tokenizer", str(tokenizer)]


def run(*command):
    done = CliRunner().invoke(generate, [*map(str, command)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_a_picture_is_drawn_and_costs_are_said(painter, tmp_path):
    file = tmp_path / "out.png"
    done = run("a red cube", *painter, "--image", file, "--steps", 4)
    assert done.stdout == f"{file}\n" and "4 forwards" in done.stderr
    assert pixels(file).shape == (16, 16, 3) and len(np.unique(pixels(file))) > 10
    again = run("a red cube", *painter, "--image", tmp_path / "again.png", "--steps", 4, "--guidance", 3.5, "--json")
    assert json.loads(again.stdout)["pictures"][0]["forwards"] == 4
    assert (pixels(tmp_path / "again.png") == pixels(file)).all()  # 3.5 is what holds for a picture
    run("a red cube", *painter, "--image", tmp_path / "free.png", "--steps", 4, "--guidance", 0)
    assert (pixels(tmp_path / "free.png") != pixels(file)).any()


def test_several_are_one_sheet(painter, tmp_path):
    file = tmp_path / "sheet.jpg"
    done = run("a", *painter, "--image", file, "-n", 3, "--temperature", 1, "--candidates", 3, "--json", "--steps", 5)
    drawn = json.loads(done.stdout)["pictures"]
    assert pixels(file).shape == (40, 40, 3) and len({tuple(one["tokens"]) for one in drawn}) > 1
    assert all(one["rows"] > 2 * one["forwards"] for one in drawn)
    same = run("a", *painter, "--image", tmp_path / "same.png", "-n", 2, "--sampler", "confidence", "--steps", 4)
    assert "the pictures are all the same" in same.stderr and pixels(tmp_path / "same.png").shape == (16, 40, 3)


def test_a_negative_prompt(painter, tmp_path):
    options = ["a red cube", *painter, "--steps", 4, "--json", "--image", tmp_path / "out.png"]
    plain, negative = (json.loads(run(*options, *more).stdout) for more in ([], ["--unconditional", "blurry"]))
    assert plain["pictures"][0]["tokens"] != negative["pictures"][0]["tokens"]
    with pytest.raises(MdmError, match="the unconditional prompt has 16 tokens and the prompt 14: it cannot be longer"):
        run(*options, "--unconditional", "blurry, dark")


def test_a_size_of_ones_own(painter, tmp_path):
    run("a", *painter, "--image", tmp_path / "out.png", "--image-size", 8, "--steps", 2)
    assert pixels(tmp_path / "out.png").shape == (8, 8, 3)


def test_a_picture_is_looked_at(painter, tmp_path):
    for name, shade in (("dark.png", 10), ("light.webp", 200)):
        Image.fromarray(np.full((9, 21, 3), shade, np.uint8)).save(tmp_path / name)
    answers = {run("What?", *painter, "--look", tmp_path / name, "--gen-length", 12).stdout
               for name in ("dark.png", "light.webp")}  # fmt: skip
    assert len(answers) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--image", "out.gif"], "--image out.gif: the name should end in one of .png, .jpg"),
        (["--image", "nowhere/out.png"], "cannot write nowhere/out.png"),
        (["--image", "out.png", "--infill"], "--infill does not apply to --image"),
        (["--image", "out.png", "--chat"], "--chat does not apply to --image"),
        (["--image", "out.png", "--no-chat"], "--no-chat does not apply to --image"),
        (["--image", "out.png", "--look", "a.png"], "--look does not apply to --image"),
        (["--image", "out.png", "--gen-length", "5"], "--gen-length does not apply to --image"),
        (["--image", "out.png", "--stop-at-eos"], "stop_at_eos does not apply to pictures"),
        (["--image", "out.png", "--allowed-tokens", "3:9"], "a picture holds image codes alone, which are 107:171"),
        (["--image", "out.png", "--cache", "block"], "is for block-causal models"),
        (["-n", "3"], "-n is how many pictures are drawn: give --image too"),
        (["--look", "a.png"], "a.png: there is no such file"),
        (["--look", "a.png", "--infill"], "--infill does not apply to --look"),
        (["--look", "a.png", "--no-chat"], "--no-chat does not apply to --look"),
    ],
)
def test_what_is_refused(painter, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MdmError) as caught:
        run("a red cube", *painter, *options)
    assert said in str(caught.value) and not [*tmp_path.iterdir()]


def test_without_what_draws(painter, tmp_path):
    with pytest.raises(MdmError, match="--image needs what turns pictures into codes and back: --image-tokenizer"):
        run("a", *painter[:2], "--image", tmp_path / "out.png")
    with pytest.raises(MdmError, match="a llada model has no pictures"):
        run("a", *painter[2:], "--image", tmp_path / "out.png")
