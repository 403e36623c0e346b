"""Runs whose examples are decoded in shares, without Ray: what a worker gives, and what becomes of it in the folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mdm.errors import MdmError
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.watch import RunObserver
from mdm_ray.cluster import Devices, check_device, connected
from mdm_ray.run import Cluster
from mdm_ray.worker import Worker
from tiny_families import save_painter


class Here(Cluster):
    """Decodes in this process, last share first; ``stop_after`` so many as a killed driver does."""

    stop_after: int | None = None

    def decode(self, run, model, shares):
        worker = Worker(run.config, model, run.fail_fast)
        for share in list(reversed(shares))[: self.stop_after]:
            yield worker.decode(share)
        if self.stop_after is not None:
            raise KeyboardInterrupt


class Heard(RunObserver):
    def __init__(self):
        self.warnings, self.progress = [], []

    def on_warning(self, text):
        self.warnings.append(text)

    def on_progress(self, label, done, total, accuracy):
        self.progress.append((label, done, total))


def config(*assignments, **flags):
    return configs.build(RunConfig, None, {"sampler": ["confidence"], "limit": 5, "batch_size": 1} | flags, assignments)


def run(settled, out, observer=None, *, stop_after=None, fail_fast=False, share=2):
    cluster = Here(2, Devices(), share)
    cluster.stop_after = stop_after
    return runs.run(settled, out, observer, fail_fast=fail_fast, decode_left=cluster.decode_left)


def lines(folder: Path, name: str) -> list[str]:
    """The lines of a log by their row, times aside, each row's in their order."""
    records = [json.loads(line) for path in folder.rglob(f"{name}.jsonl") for line in path.read_text().splitlines()]
    return sorted((json.dumps(record | {"seconds": 0}) for record in records), key=lambda line: json.loads(line)["row"])


def check_same(one, other):
    for name in ("results", "trace"):
        assert lines(one, name) == lines(other, name) != []
    assert (one / "config.yaml").read_bytes() == (other / "config.yaml").read_bytes()
    assert (one / "environment.json").read_bytes() == (other / "environment.json").read_bytes()
    assert {path.relative_to(one) for path in one.rglob("*")} == {path.relative_to(other) for path in other.rglob("*")}


def test_shares_give_the_folder_of_one_process(tmp_path):
    settled = config(sampler=["confidence", "random"], tokens_per_step=[2, 4], repeats=2, limit=2, trace="full")
    whole = runs.run(settled, tmp_path / "one")
    summary = run(settled, tmp_path / "shares", heard := Heard())
    check_same(tmp_path / "one", tmp_path / "shares")
    timed = {"seconds", "tokens_per_second", "tokens_per_second_until_eos"}
    assert [
        {key: value for key, value in row.items() if key not in timed} for row in summary["runs"]
    ] == [{key: value for key, value in row.items() if key not in timed} for row in whole["runs"]]  # fmt: skip
    assert heard.progress[-1][1:] == (4, 4) and {label for label, *_ in heard.progress} == {
        "confidence K2", "confidence K4", "random K2", "random K4",
    }  # fmt: skip


def test_what_was_stopped_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(config(), tmp_path / "cut", stop_after=1)
    assert len(lines(tmp_path / "cut", "results")) == 1  # the last share has one example
    assert run(config(), tmp_path / "cut", heard := Heard())["complete"]
    assert heard.progress[0][1:] == (1, 5)
    runs.run(config(), tmp_path / "one")
    check_same(tmp_path / "one", tmp_path / "cut")
    assert run(config(), tmp_path / "cut", stop_after=0)["complete"]  # nothing is left: no worker is asked


def test_a_run_in_one_process_goes_on_in_shares(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(config(), tmp_path / "cut", stop_after=2)
    assert runs.run(config(), tmp_path / "cut")["complete"]
    runs.run(config(), tmp_path / "one")
    check_same(tmp_path / "one", tmp_path / "cut")


def test_what_a_worker_refuses_is_the_runs_line_and_leaves_no_folder(tmp_path):
    with pytest.raises(MdmError, match="nowhere/at-all"):
        run(config(model=["nowhere/at-all"], offline=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(MdmError, match="steps 4,000,000 are too many"):
        run(config(steps=4_000_000), tmp_path / "out")


def test_a_warning_of_many_shares_is_said_once(tmp_path):
    run(config(steps=1, block_length=4, task="countdown"), tmp_path / "out", heard := Heard(), share=1)
    assert len(heard.warnings) == 1 and "blocks take at least" in heard.warnings[0]


def test_pictures_come_back(tmp_path):
    model, tokenizer = save_painter(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cube\ntwo balls\na cone\n")
    settled = config(
        model=[str(model)], image_tokenizer=str(tokenizer), task="prompts", data=tmp_path / "prompts.txt",
        guidance=2.0, steps=4, limit=3,
    )  # fmt: skip
    runs.run(settled, tmp_path / "one")
    run(settled, tmp_path / "shares")
    check_same(tmp_path / "one", tmp_path / "shares")
    one, other = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name / "images").iterdir()}
        for name in ("one", "shares")
    )
    assert one == other and len(one) == 3


@pytest.mark.parametrize(
    ("device", "gpus", "why"),
    [("cuda:1", None, "each gets its own"), ("mps", None, "use auto, cuda or cpu"), ("cpu", 1, "--gpus 1 contradicts"),
     ("cuda", 0, "--gpus 0 contradicts")],
)  # fmt: skip
def test_devices_that_ray_does_not_hand_out_are_refused(device, gpus, why):
    with pytest.raises(MdmError, match=why.replace("each gets", "each worker gets")):
        check_device(config(device=device), gpus)


def test_an_address_where_nobody_listens_is_refused_at_once():
    pytest.importorskip("ray")
    with (
        pytest.raises(MdmError, match="Ray cannot be reached at 127.0.0.1:1: Connection refused"),
        connected("127.0.0.1:1"),
    ):
        pass


def command(*args, code="", **env):
    """``mdm ray-run`` in a process of its own, in which ``code`` ran first."""
    import os

    program = f"import sys\n{code}\nfrom mdm.cli import main\nmain(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", program, "ray-run", *map(str, args)], capture_output=True, text=True, timeout=120,
        env=os.environ | env,
    )  # fmt: skip


def test_without_ray_the_command_says_what_to_install(tmp_path):
    (tmp_path / "run.yaml").write_text("limit: 1\n")
    asked = tmp_path / "run.yaml", "--out", tmp_path / "out"
    got = command(*asked, code="sys.modules['ray'] = None")
    assert (got.returncode, got.stdout) == (2, "")
    assert got.stderr == "mdm: this needs ray, which is not installed: pip install 'mdm-ray[ray]'\n"
    assert not (tmp_path / "out").exists()
    got = command(*asked, WORLD_SIZE="2")
    assert got.returncode == 2 and got.stderr == "mdm: mdm ray-run starts its own workers: run it without a launcher\n"
