"""The check of a GPU, tried on a CPU: every part runs, and what fails, hangs or is not reached is a line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from mdm import registry
from mdm_bench.gpu import page, parity, runner, speed, targets
from mdm_bench.gpu.parts import Options
from mdm_testing.probe import essence

CHECK = [sys.executable, "-m", "mdm_bench.gpu"]
NO_COMPILER = {**os.environ, "CXX": "no-such-compiler", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
"""So that compiled cells are refused at once: compiling takes long, and has tests of its own."""


def check(*args: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CHECK, *args], env=NO_COMPILER, capture_output=True, text=True, timeout=400, **more)


def said_of(report, part):
    return report["parts"][part]["cells"]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The page and the JSON of a whole check of a small model."""
    out = tmp_path_factory.mktemp("gpu") / "cpu.json"
    done = check("--device", "cpu", "--shape", "tiny", "--minutes", "6", "--out", str(out))
    assert done.returncode in (0, 1), done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.mark.wide
def test_every_part_runs_and_tells_of_every_cell(checked):
    _, report = checked
    assert list(report["parts"]) == ["device", "parity", "kernels", "speed:tiny"]
    for name, part in report["parts"].items():
        assert part["cells"] and "error" not in part, name
        assert not any("not_reached" in cell for cell in part["cells"].values()), name
    assert said_of(report, "device")["versions"]["torch"] and not report["interrupted"]


@pytest.mark.wide
def test_decodes_are_held_against_the_cpu_in_every_mode(checked):
    _, report = checked
    cells = said_of(report, "parity")
    assert cells["info-gain dual"] == {
        "same": ["eager", "graphs", "temperature", "top-p", "guidance"],
        "differs": {},
        "failed": {},
        "replays": 0,
    }
    assert "compiler" in cells["confidence none compile"]["failed"]["compile"]
    for name in ("info-gain block", "confidence prefix", "confidence none"):
        assert len(cells[name]["same"]) == 5, name


@pytest.mark.wide
def test_kernels_are_right_and_the_pass_is_timed(checked):
    cells = said_of(checked[1], "kernels")
    assert all(cell["right"] for name, cell in cells.items() if not name.startswith("time"))
    assert cells["time 2 rows"]["ms"] > 0 and cells["time 2 rows"]["device_ms"] is None


@pytest.mark.wide
def test_a_cell_of_speed_is_a_block_and_what_cannot_run_is_a_line(checked):
    text, report = checked
    cells = said_of(report, "speed:tiny")
    eager = cells["dual b1 info-gain eager"]
    assert (eager["steps"], eager["tokens"], eager["captures"], eager["peak_bytes"]) == (4, 4, 0, None)
    assert cells["dual b16 info-gain eager"]["tokens"] == 64
    assert eager["tokens_per_second"] == pytest.approx(1e3 * 4 / 4 / eager["ms_per_step"])
    refused = "MdmError: compile needs a C++ compiler and no-such-compiler is not there"
    assert cells["dual b1 info-gain compiled"]["error"].startswith(refused)
    [line] = [line for line in text.splitlines() if line.startswith(f"- speed:tiny: {refused}")]
    assert "dual b1 info-gain compiled, dual b1 confidence compiled" in line
    row = next(line for line in text.splitlines() if line.startswith("| dual b1 N 8 eager"))
    assert f"{eager['ms_per_step']:.2f}" in row


@pytest.mark.wide
def test_the_page_is_narrow_and_judges_the_targets(checked):
    text, report = checked
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables and max(map(len, tables)) <= 110  # wide figures make wide columns
    assert {one["verdict"] for one in report["targets"][:-1]} == {"not reached"}  # they are of an 8B shape
    assert "## Against the CPU, in float32" in text and "## What is missing" in text


def test_without_a_card_it_is_one_line():
    done = check("--device", "cuda:77")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("mdm: there is no GPU 'cuda:77'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--part", "bogus"], "there are device, parity, kernels"),
        (["--device", "mps"], "it is cuda, cuda:1 and so on, or cpu"),
        (["--minutes", "nan"], "no number of minutes"),
        (["--skip", "a cell"], "name it with --part"),
        (["--part", "device", "--device", "cpu", "--skip", "nosuch"], "device has no such cell"),
    ],
)
def test_what_does_not_apply_is_refused_by_name(flags, said):
    done = subprocess.run(
        [sys.executable, "-m", "mdm_bench.gpu", *flags], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_refused_first():
    done = check("--device", "cpu", "--out", "no/such/folder/x.json")
    assert done.returncode == 2 and "cannot write no/such/folder/x.json" in done.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_what_is_reached_is_kept_when_it_is_interrupted(tmp_path, ending):
    out = tmp_path / "cpu.json"
    args = [*CHECK, "--device", "cpu", "--shape", "tiny", "--out", str(out), "--json"]
    running = subprocess.Popen(args, env=NO_COMPILER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        next(line for line in running.stderr if line.startswith("mdm: parity: at most"))
        running.send_signal(ending)
        text, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130 and "Traceback" not in errors
    report = json.loads(out.read_text())
    assert report == json.loads(text) and report["interrupted"]
    assert said_of(report, "device")["copy"]["bytes_per_second"] > 0
    assert [part["state"] for part in report["parts"].values()] == ["done", "interrupted", "not reached", "not reached"]


def job(code: str, name: str = "planted", weight: float = 1.0, limit: float = 1.5) -> runner.Job:
    """A part whose process runs ``code``, in which ``say`` reports and ``skip`` are the cells not to be measured."""
    start = f"""
        import json, os, sys, time
        skip = [word for word in sys.argv[1:] if word != "--skip"]
        def say(**line):
            print(json.dumps(line), flush=True)
        say(plan=["a", "b", "c"], limit={limit})
        say(begin=None)
        say(prepared={{}})
    """
    return runner.Job(name, [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)], weight)


def ran(*jobs: runner.Job, seconds: float = 60.0):
    report: dict = {}
    saved: list[str] = []
    runner.run_all(jobs, seconds, report, lambda: saved.append(json.dumps(report)), lambda line: None)
    assert saved[-1] == json.dumps(report)
    return report["parts"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("time.sleep(600)", "ended: it took more than 2 s"),
        ("os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("sys.exit('CUDA error: an illegal memory access')", "CUDA error: an illegal memory access"),
    ],
    ids=["hangs", "crashes", "gives up"],
)
def test_a_cell_that_ends_its_process_is_a_line_and_the_next_ones_are_measured(fault, said):
    code = f"""
        for cell in "abc":
            if cell not in skip:
                say(begin=cell)
                if cell == "b":
                    {fault}
                say(cell=cell, value=1)
    """
    part = ran(job(code))["planted"]
    assert part["cells"] == {"a": {"value": 1}, "b": {"error": said}, "c": {"value": 1}}
    assert (part["state"], part["starts"]) == ("in part", 2)


def test_a_part_over_its_time_is_ended_and_the_next_one_runs():
    slow = """
        say(begin="a")
        say(cell="a", value=1)
        say(begin="b")
        time.sleep(600)
    """
    quick = """
        for cell in "abc":
            say(cell=cell, value=2)
    """
    parts = ran(job(slow, "slow", limit=600), job(quick, "quick", weight=2.0), seconds=24.0)
    over = {"error": "ended: the time of its part was over"}
    assert parts["slow"]["cells"] == {"a": {"value": 1}, "b": over, "c": {"not_reached": True}}
    assert 7 < parts["slow"]["seconds"] < 12 and parts["quick"]["state"] == "done"


def test_a_part_that_cannot_be_prepared_is_a_line():
    done = ran(runner.Job("planted", [*CHECK, "--child", "--part", "speed:tiny", "--device", "nowhere"], 1.0))[
        "planted"
    ]
    assert done["state"] == "failed" and "nowhere" in done["error"]
    assert all("not_reached" in cell for cell in done["cells"].values())


def test_parts_that_are_not_reached_have_their_lines():
    parts = ran(job(""), seconds=0.5)
    assert parts == {"planted": {"state": "not reached", "cells": {}}}


def test_what_differs_is_named_by_its_step():
    ours = [[(0, [1], [5], "commit"), (1, [2], [6], "commit")], [(0, [1], [7], "commit")]]
    assert parity.first_difference(ours, ours) is None
    theirs = [ours[0], [*ours[1], (1, [3], [8], "commit")]]
    found = parity.first_difference(ours, theirs)
    assert found == {"row": 1, "step": 1, "cpu": None, "device": (1, [3], [8], "commit")}


def test_a_block_costs_the_mean_of_a_decode():
    sizes = speed.Lengths(256, 256, 32)
    windows = [256 - 32 * block for block in range(8)]
    prompt, gen = sizes.of_one_block("prefix")
    assert prompt + gen == 512 and gen == sum(windows) / len(windows)
    assert speed.Lengths(256, 256, 32).of_one_block("block") == (384, 128)


def test_a_block_of_a_decode_is_the_beginning_of_a_whole_one():
    from mdm_bench.case import Case
    from mdm_bench.shapes import SHAPES, random_model

    model = random_model(SHAPES["tiny"])
    case = Case(cache="dual", prompt_length=16, gen_length=8, block_length=4, candidates=2)
    lines: list = []

    class Kept(speed.Steps):
        def __call__(self, event):
            lines.extend(event.lines)
            super().__call__(event)

    steps = Kept(4)
    assert speed.decode(model, case, steps) > 0
    assert (steps.steps, steps.tokens) == (4, 4)
    [whole] = case.decode(model)
    assert [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in lines] == essence(whole)[:4]


def test_the_cells_begin_with_what_the_targets_are_of():
    names = [cell.name for cell in speed.cells("llada-8b", full=False)]
    assert names[:2] == ["dual b1 info-gain graphs", "dual b1 info-gain compiled"]
    everything = [cell.name for cell in speed.cells("llada-8b", full=True)]
    assert everything[: len(names)] == names and len(set(everything)) == len(everything) == 24
    assert [cell.cache for cell in speed.cells("sdar-8b", full=True)].count("block") == 12


def test_targets_are_met_or_not_or_not_reached():
    cells = {
        "dual b1 info-gain graphs": {"tokens_per_second": 90.0, "whole_tokens_per_second": 74.0, "first_seconds": 2.5},
        "dual b1 info-gain compiled": {"tokens_per_second": 121.0},
        "none b1 info-gain graphs": {"tokens_per_second": 20.0},
        "none b1 info-gain eager": {"tokens_per_second": 19.0},
        "prefix b1 info-gain compiled": {"error": "out of memory"},
    }
    report = {"parts": {
        "speed:llada-8b": {"cells": cells},
        "parity": {"cells": {"x": {"same": ["eager"], "differs": {"graphs": {"step": 3, "row": 0}}, "failed": {}}}},
    }}  # fmt: skip
    found = {one["target"]: (one["value"], one["verdict"]) for one in targets.judged(report)}
    assert found["dual, N 8, batch 1, graphs"] == (74.0, "not met")  # the whole decode is what counts
    assert found["dual, N 8, batch 1, compiled"] == (121.0, "met")
    assert found["none, N 8, batch 1, graphs / eager"][1] == "met"
    assert found["prefix, N 8, batch 1, compiled"] == (None, "not reached")
    assert found["first decode, graphs"] == (2.5, "met")
    assert found["decodes that are the CPU's"] == (50.0, "not met")
    text = page.page({"device": "cuda", "started": "today", "seconds": 1.0} | {
        "parts": {name: part | {"state": "done"} for name, part in report["parts"].items()}
    })  # fmt: skip
    assert "- x, graphs: differs at step 3 of row 0" in text
    assert "- speed:llada-8b: out of memory: prefix b1 info-gain compiled" in text


def test_a_profile_is_read_per_step():
    events = [
        ("gemm", "DeviceType.CUDA", 0.0, 3000.0),
        ("norm", "DeviceType.CUDA", 2000.0, 4000.0),  # beside the one before: the device is busy once
        ("Memcpy DtoH (Device -> Pinned)", "DeviceType.CUDA", 6000.0, 6500.0),
        ("cudaLaunchKernel", "DeviceType.CPU", 0.0, 5.0),
        ("cudaGraphLaunch", "DeviceType.CPU", 0.0, 5.0),
        ("cudaStreamSynchronize", "DeviceType.CPU", 0.0, 5.0),
    ]
    assert speed.in_a_step(events, 2) == {
        "device_ms": 2.25, "kernels": 1.0, "launches": 1.0, "copies_to_host": 0.5, "copies_to_device": 0.0,
    }  # fmt: skip
    assert speed.in_a_step(events[3:], 2)["device_ms"] is None


def test_a_profile_that_sees_no_kernel_says_so():
    """On a CPU torch's profiler has none: what is left is how it is driven."""
    from mdm_bench.case import Case
    from mdm_bench.shapes import SHAPES, random_model

    case = Case(cache="dual", prompt_length=16, gen_length=32, block_length=16, candidates=2)
    assert speed.profile(random_model(SHAPES["tiny"]), case)["device_ms"] is None


def test_each_kind_of_sampler_is_compared_once_and_all_in_full():
    few = {name.split()[0] for name in parity.part(Options("cuda")).cells}
    every = {name.split()[0] for name in parity.part(Options("cpu", full=True)).cells}
    assert few < every == set(registry.names("sampler"))
    kinds = [parity._kind(name) for name in sorted(few)]
    assert len(set(kinds)) == len(kinds) and set(kinds) == {parity._kind(name) for name in every}


def test_a_mixture_of_experts_is_read_as_far_as_tokens_choose_it():
    from mdm_bench.decode import _experts_used, _weights
    from mdm_bench.shapes import SHAPES, Experts, Shape, random_model, weight_bytes

    assert 32e9 < weight_bytes(SHAPES["llada2-mini"], "bfloat16") < 33e9  # the published 16B
    shape = Shape("llada2", 512, 64, 3, 4, 2, 96, head_dim=16, experts=Experts(8, 2, 32, 4, 2, dense_layers=1))
    model = random_model(shape)
    assert _weights(model)["experts"] == 2 * 8 * 3 * 64 * 32 * 4
    assert _experts_used(model, 1) == 0.25 and 0.99 < _experts_used(model, 32) < 1
    assert _experts_used(random_model(SHAPES["tiny"]), 1) == 1
