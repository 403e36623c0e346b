"""Runs of pictures: what is written, and what a kill leaves."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time

import mdm
import pytest
from mdm.errors import MdmError
from mdm.protocols import Prompt
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from PIL import Image
from tiny_families import save_painter

COUNT = 12


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painter")
    (folder / "prompts.txt").write_text("".join(f"a cube and {n} balls\n" for n in range(COUNT)))
    return folder, *save_painter(folder)


def asked(painter, *assignments, **flags):
    folder, model, tokenizer = painter
    flags = {
        "model": [str(model)], "image_tokenizer": str(tokenizer), "task": "prompts", "data": folder / "prompts.txt",
        "guidance": 2.0, "steps": 4, "temperature": 1.0,
    } | flags  # fmt: skip
    return configs.build(
        RunConfig, None, {name: value for name, value in flags.items() if value is not None}, assignments
    )


def results(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "images").iterdir()}


def test_each_picture_lies_beside_its_result(painter, tmp_path):
    summary = runs.run(asked(painter, limit=2, repeats=2), tmp_path / "out")
    assert summary["runs"][0]["accuracy"] is None and summary["runs"][0]["graded"] == 0 and summary["complete"]
    written = results(tmp_path / "out")
    assert {line["image"] for line in written} == {f"images/{line['row']}.png" for line in written}
    assert {line["row"] for line in written} == {0, 1, 10**9, 10**9 + 1}
    assert all(line["grid"] == [4, 4] and line["completion"] == "" for line in written)
    assert len(set(digests(tmp_path / "out").values())) == 4
    model = mdm.load_model(painter[1], device="cpu", image_tokenizer=painter[2])
    [drawn] = mdm.decode(
        model, [Prompt("a cube and 1 balls", kind="image")], guidance=2.0, steps=4, temperature=1.0, row_ids=[1]
    )
    with Image.open(tmp_path / "out" / "images" / "1.png") as image:
        assert image.tobytes() == drawn.image.tobytes()


@pytest.mark.parametrize("preset", ["mmada-t2i", "infogain-t2i"])
def test_published_settings_draw(painter, tmp_path, preset):
    summary = runs.run(asked(painter, limit=1, preset=preset, guidance=None, steps=None, temperature=None), tmp_path)
    [line] = results(tmp_path)
    assert line["forwards"] == {"mmada-t2i": 15, "infogain-t2i": 50}[preset] and summary["runs"][0]["errors"] == 0


def test_after_a_kill_no_picture_is_lost_or_made_twice(painter, tmp_path):
    whole = asked(painter, batch_size=2)
    runs.run(whole, tmp_path / "whole")
    out, file = tmp_path / "killed", tmp_path / "config.yaml"
    file.write_text(configs.to_yaml(whole))
    command = [sys.executable, "-m", "mdm", "run", "--config", str(file), "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and not ((out / "results.jsonl").exists() and results(out)):
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = {line["row"]: line for line in results(out)} if (out / "results.jsonl").exists() else {}
    times = {row: (out / "images" / f"{row}.png").stat().st_mtime_ns for row in before}
    assert all(line["image"] for line in before.values())
    runs.run(whole, out)
    after = results(out)
    assert sorted(line["row"] for line in after) == list(range(COUNT))
    assert digests(out) == digests(tmp_path / "whole")
    assert {row: (out / "images" / f"{row}.png").stat().st_mtime_ns for row in before} == times


def test_what_is_refused_before_anything_is_drawn(painter, tmp_path):
    with pytest.raises(MdmError, match=r"prompts, example .*: it asks for a picture: name .* --image-tokenizer"):
        runs.run(asked(painter, image_tokenizer=None), tmp_path / "a")
    with pytest.raises(MdmError, match="gen_length does not apply to pictures"):
        runs.run(asked(painter, gen_length=8), tmp_path / "b")
    with pytest.raises(MdmError, match="draws no pictures|a llada model has no pictures"):
        runs.run(asked(painter, model=["tiny"]), tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_picture_that_is_gone_is_made_again(painter, tmp_path):
    config = asked(painter, limit=3)
    runs.run(config, tmp_path)
    before = digests(tmp_path)
    (tmp_path / "images" / "1.png").unlink()
    summary = runs.run(config, tmp_path)
    assert digests(tmp_path) == before and summary["complete"]
    assert sorted(line["row"] for line in results(tmp_path)) == [0, 1, 2]
