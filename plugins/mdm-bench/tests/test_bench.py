"""``mdm bench``: its counts follow from the arguments, and its times are ratios of real work."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from mdm.cli import cli, main
from mdm.models import compiled
from mdm.models.cuda_graphs import GraphCounts
from mdm.models.model import run
from mdm.scoring.tiles import TILE
from mdm_bench import overhead as overheads, sweep as sweeping
from mdm_bench.case import Case
from mdm_bench.overhead import Forward, Head
from mdm_bench.shapes import Shape, random_model
from mdm_testing.counters import counting

SIZES = ["--vocab", "64", "--hidden", "16", "--layers", "1", "--prompt-length", "6", "--gen-length", "8"]


def overhead(*more: str) -> list[dict]:
    done = CliRunner().invoke(
        cli, ["bench", "overhead", *SIZES, "--pairs", "1", "--json", *more], catch_exceptions=False
    )
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_overhead_reports_every_cache():
    found = overhead("--block-length", "4")
    assert [row["cache"] for row in found] == ["none", "prefix", "dual"]
    for row in found:
        ratios = ("total_over_replay", "total_over_whole_head", "total_over_minimal", "replay_over_minimal")
        assert all(row[name] > 0 for name in (*ratios, "operations_per_token", "syncs_per_step", "peak_bytes"))
        low, high = row["spread"]
        assert low == row["total_over_replay"] == high and row["pairs"] == 1
        assert row["steps"] == 8
    # A dual lookahead reads the block's masks only, the others all that are open; what is not read has no head row.
    assert found[2]["head_rows"] < found[0]["head_rows"]
    assert found[2]["row_tokens"] < found[1]["row_tokens"] < found[0]["row_tokens"]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_one_candidate_costs_one_call_a_step_and_reads_the_blocks_masks(cache):
    [row] = overhead("--cache", cache, "--candidates", "1", "--block-length", "8")
    assert row["forwards"] == row["rows"] == 8
    assert row["head_rows"] == sum(range(1, 9))
    whole, window = 14, {"none": 14, "prefix": 8, "dual": 8}[cache]
    assert row["row_tokens"] == whole + 7 * window


CALLS = Case(candidates=3, prompt_length=6, gen_length=8, block_length=4, batch=2)


@pytest.fixture(scope="module")
def wide():
    """A vocabulary of some of the head's tiles."""
    return random_model(Shape("llada", 3 * TILE + 7, 16, 1, 1, 1, 64), device="cpu")


def made_of(recording):
    """What each call was given, without the numbers."""
    return [
        (tuple(call.tokens.shape), call.positions.tolist(), call.cache is not None)
        if isinstance(call, Forward)
        else (tuple(call.states.shape), call.first, call.end)
        for call in recording.calls
    ]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_replay_makes_the_calls_of_the_decode(wide, cache, monkeypatch):
    monkeypatch.setattr("mdm.scoring.readout.PASS_ELEMENTS", 10 * TILE)  # tiles, and rows in more than one cut
    case = replace(CALLS, cache=cache)
    with counting(wide, operations=False) as decoded:
        case.decode(wide, trace=False)
    with overheads.recording(wide) as made:
        case.decode(wide)
    with torch.inference_mode():
        with counting(wide, operations=False) as replayed, overheads.recording(wide) as again:
            made.replay(wide)
        with counting(wide, operations=False) as yardstick:
            for forward in made.forwards():
                forward.plain(wide)
            for states in made.head_states():
                wide.head(states)
    assert made_of(again) == made_of(made)
    assert replayed == decoded and yardstick == decoded
    ranges = {(call.first, call.end) for call in made.calls if isinstance(call, Head)}
    assert {0, wide.spec.vocab_size} < {at for ends in ranges for at in ends}
    # One whole head for all that is read after a forward, though decoding cut it into rows and tiles.
    assert len(made.head_states()) < sum(isinstance(call, Head) and call.first == 0 for call in made.calls)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_a_replay_gives_the_hidden_states_that_the_decode_read(wide, cache, monkeypatch):
    """So what it meets of kept keys and values is what the decode met, and again so the second time."""
    real, seen = wide.hidden, []

    def kept(*args, **kwargs):
        seen.append(real(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(wide, "hidden", kept)
    with overheads.recording(wide) as made:
        replace(CALLS, cache=cache).decode(wide)
    decoded = list(seen)
    for _ in range(2):
        seen.clear()
        with torch.inference_mode():
            made.replay(wide)
        assert all(torch.equal(a, b) for a, b in zip(seen, decoded, strict=True))


def test_tiles_of_a_read_share_their_states(wide):
    with overheads.recording(wide) as made:
        CALLS.decode(wide)
    heads = [call for call in made.calls if isinstance(call, Head)]
    distinct = {call.states.untyped_storage().data_ptr() for call in heads}
    assert len(distinct) <= sum(call.first == 0 for call in heads) < len(heads)


def test_rounds_end_before_they_take_too_long_unless_their_number_is_given(wide, monkeypatch):
    clock = iter([3.0] * 5 * 10)
    monkeypatch.setattr(overheads, "seconds", lambda work, device: next(clock))  # a round takes 15 s
    case = replace(CALLS, candidates=1, batch=1, cache="dual")
    for limit, pairs, expected in ((44.0, None, 2), (10.0, None, 1), (10.0, 3, 3)):
        monkeypatch.setattr(overheads, "TIME_LIMIT", limit)
        ticks = []
        assert overheads.measure(wide, case, pairs, tick=ticks.append)["pairs"] == expected
        assert ticks == list(range(expected + 1))


def test_a_compiled_decode_is_replayed_with_compiled_forwards(wide, monkeypatch, compiler):
    ran = []

    def seen(body, tokens, *given):
        ran.append(tokens.shape)
        return run(body, tokens, *given)

    monkeypatch.setattr(compiled, "_forward", seen)
    case = replace(CALLS, cache="dual", compile=True)
    found = overheads.measure(wide, case, pairs=1)
    # Counted, recorded, and in a round: total, replay, forwards, plain; before it once for each shape.
    assert len(ran) == 6 * found["forwards"] + len(set(ran))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["overhead", "--device", "banana"], "device 'banana' is unknown"),
        (["overhead", "--hidden", "65"], "65: choose an even number below 128, or a multiple of 64"),
        (["overhead", "--hidden", "130"], "130: choose an even number"),
        (["overhead", "--hidden", "64000000"], "--hidden 64000000 --layers 4 in float32 has"),
        (["overhead", "--threads", "100000"], "100000: this machine has"),
        (["overhead", "--cache", "none", "--cache", "nune"], "unknown cache 'nune'"),
        (["sweep", "--cache", "none", "--cache", "nune"], "unknown cache 'nune'"),
        (["overhead", "--cache", "none", "--cache", "block"], "cache 'block' is for block-causal models"),
        (["sweep", "--cache", "none", "--cache", "block"], "use --cache dual"),
        (["sweep", "--sampler", "nune"], "unknown sampler 'nune'"),
        (["decode", "--bandwidth", "nan"], "nan is no number of GB/s"),
        (["sweep", "--csv", "no/such/folder/s.csv"], "cannot write no/such/folder/s.csv"),
        (["sweep", "--csv", "."], "Is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_said_in_one_line_before_anything_is(args, said, capsys, monkeypatch):
    monkeypatch.setattr("mdm_bench.overhead.measure", None)
    monkeypatch.setattr("mdm_bench.sweep.measure", None)
    monkeypatch.setattr("mdm_bench.decode.random_model", None)
    with pytest.raises(SystemExit) as stop:
        main(["bench", *args])
    heard = capsys.readouterr()
    assert stop.value.code == 2 and said in heard.err and heard.out == ""
    assert heard.err.splitlines()[-1].startswith("mdm: ") and "Traceback" not in heard.err


def test_a_row_names_what_was_measured_and_a_cache_is_measured_once():
    [row] = overhead("--block-length", "4", "--candidates", "3", "--batch", "2", "--cache", "dual", "--cache", "dual")
    given = {
        "cache": "dual", "vocab": 64, "hidden": 16, "layers": 1, "prompt_length": 6, "gen_length": 8,
        "block_length": 4, "candidates": 3, "batch_size": 2, "compile": False, "dtype": "float32",
    }  # fmt: skip
    assert given.items() <= row.items()
    assert row["device"].endswith(", 1 thread")


def test_an_error_leaves_what_is_measured(monkeypatch):
    measure = overheads.measure

    def broken(model, case, *more):
        if case.cache == "dual":
            raise ValueError("out of luck")
        return measure(model, case, *more)

    monkeypatch.setattr(overheads, "measure", broken)
    args = ["bench", "overhead", *SIZES, "--pairs", "1", "--json", "--cache", "none", "--cache", "dual"]
    done = CliRunner().invoke(cli, args)
    assert isinstance(done.exception, ValueError)
    assert [row["cache"] for row in json.loads(done.stdout)] == ["none"]


def test_ctrl_c_leaves_the_caches_that_are_done():
    args = [*SIZES, "--pairs", "30", "--cache", "none", "--cache", "dual", "--json"]
    mdm = subprocess.Popen(
        [sys.executable, "-m", "mdm", "bench", "overhead", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        next(line for line in mdm.stderr if "dual: timing" in line)
        mdm.send_signal(signal.SIGINT)
        out, said = mdm.communicate(timeout=60)
    finally:
        mdm.kill()
    assert mdm.returncode == 130 and "interrupted after 1 of 2 caches" in said and "Traceback" not in said
    [row] = json.loads(out)
    assert row["cache"] == "none" and row["pairs"] == 30


SHORT = ["--prompt-length", "6", "--gen-length", "8", "--device", "cpu", "--json", "--bandwidth", "10"]


def bench(*args: str) -> list[dict]:
    done = CliRunner().invoke(cli, ["bench", *args, *SHORT], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("pace", [1, 2])
def test_decode_reports_what_the_arguments_imply(pace):
    [row] = bench("decode", "--block-length", "8", "--batch-size", "3", "--tokens-per-step", str(pace))
    assert (row["cache"], row["forwards"], row["tokens_per_forward"]) == ("dual", 8 // pace, pace)
    assert (row["shape"], row["tokens_per_step"]) == ("tiny", pace)
    assert row["tokens_per_forward_without_eos"] <= row["tokens_per_forward"]
    assert row["rows"] >= 3 * row["forwards"]


def test_the_roofline_is_bytes_over_bandwidth():
    [row] = bench("decode", "--sampler", "confidence", "--block-length", "4", "--batch-size", "2")
    layers, width, mlp, vocabulary = 4, 64, 256, 512
    body = layers * (4 * width**2 + 3 * width * mlp + 2 * width) + width  # without the embeddings
    assert row["weight_bytes"] == 4 * (body + width * vocabulary)
    assert row["kept_bytes"] == 2 * 4 * layers * 2 * width * 14  # of two rows of 14 tokens
    assert row["forwards"] == 8 and row["row_tokens"] == 2 * (14 + 3 * 4) * 2
    moved = 8 * (row["weight_bytes"] + row["kept_bytes"])
    assert row["roofline_tokens_per_second"] == pytest.approx(16 * 10e9 / moved)
    assert row["share_of_roofline"] == pytest.approx(row["tokens_per_second"] / row["roofline_tokens_per_second"])
    assert row["tflops"] * 1e12 * row["seconds"] == pytest.approx(2 * (body * row["row_tokens"] + 40 * 512 * 64))


def test_a_shape_that_does_not_fit_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("mdm.engine.memory.free_bytes", lambda device: 10**9)
    monkeypatch.setattr("mdm_bench.decode.free_bytes", lambda device: 10**9)
    for args, said in (
        (
            ["--shape", "llada-8b", "--dtype", "bfloat16"],
            "llada-8b in bfloat16 has 16.0 GB of weights, and cpu has 1.0",
        ),
        (["--batch-size", "9999"], "beside tiny's weights the batch takes"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["bench", "decode", "--device", "cpu", *args])
        assert stop.value.code == 2 and said in capsys.readouterr().err


TWO_AND_ONE = ["--candidates", "2", "--candidates", "1"]
SWEEP = [
    "sweep",
    "--sampler",
    "confidence",
    "--cache",
    "none",
    "--cache",
    "dual",
    "--batch-size",
    "1",
    "--batch-size",
    "2",
]


def test_a_sweep_is_all_combinations_in_a_table(tmp_path):
    table = tmp_path / "s.csv"
    found = bench(*SWEEP, "--candidates", "1", "--csv", str(table))
    assert [(row["cache"], row["batch_size"]) for row in found] == [("none", 1), ("none", 2), ("dual", 1), ("dual", 2)]
    with table.open() as lines:
        assert [(row["cache"], float(row["seconds"])) for row in csv.DictReader(lines)] == [
            (row["cache"], row["seconds"]) for row in found
        ]


@pytest.mark.parametrize(("sampler", "counted"), [("info-gain", True), ("lookum", True), ("confidence", False)])
def test_candidates_are_an_option_of_the_samplers_that_have_one(sampler, counted):
    assert Case(sampler=sampler, candidates=5).options == ({"candidates": 5} if counted else {})
    rows = bench("sweep", "--sampler", sampler, "--cache", "none", "--batch-size", "1", *TWO_AND_ONE)
    assert [row["candidates"] for row in rows] == [2, 1]
    assert (rows[0]["rows"] > rows[1]["rows"]) == counted


def test_a_sampler_of_another_package_gets_its_candidates(site):
    code = """
        from mdm.protocols import BaseSampler, LookaheadOptions

        class Wide(BaseSampler):
            Options = LookaheadOptions

            def decide(self, state, scores, memory, draws): ...
    """
    site.package("fake-wide", {"mdm.samplers": {"wide": "fake_wide:Wide"}}, code)
    assert Case(sampler="wide", candidates=3).options == {"candidates": 3}


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), ValueError("out of luck")], ids=["ctrl-c", "error"])
def test_a_sweep_keeps_what_is_done_and_skips_what_finds_no_memory(tmp_path, monkeypatch, ending):
    measure, cases = sweeping.measure, []

    def stopped(model, case, speed, **settings):
        cases.append(case)
        if len(cases) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(cases) == 4:
            raise ending
        return measure(model, case, speed, **settings)

    monkeypatch.setattr(sweeping, "measure", stopped)
    table = tmp_path / "s.csv"
    done = CliRunner().invoke(
        cli, ["bench", *SWEEP, "--candidates", "1", "--csv", str(table), *SHORT], standalone_mode=False
    )
    if isinstance(ending, KeyboardInterrupt):
        assert done.return_value == 130 and "interrupted after 3 of 4 cases" in done.stderr
    else:
        assert done.exception is ending
    found = json.loads(done.stdout)
    assert [row.get("error") for row in found] == [None, "out of memory", None]
    with table.open() as lines:
        assert [row["error"] for row in csv.DictReader(lines)] == ["", "out of memory", ""]


def test_graphs_can_be_left_out():
    [row] = bench("decode", "--no-graphs")
    assert (row["graphs"], row["captures"], row["replays"], row["graph_bytes"]) == (False, 0, 0, 0)
    assert bench("sweep", "--cache", "none", "--candidates", "1", "--batch-size", "1")[0]["graphs"]
    assert not overhead("--cache", "none", "--no-graphs")[0]["graphs"]


def test_graphs_are_reported_where_there_are_any(monkeypatch):
    counts = iter([GraphCounts(0, 0, 0), GraphCounts(3, 120, 2_000_000), GraphCounts(3, 120, 2_000_000)])
    monkeypatch.setattr("mdm_bench.decode.graph_counts", lambda model: next(counts, GraphCounts(3, 120, 2_000_000)))
    args = ["bench", "decode", *(word for word in SHORT if word != "--json")]
    line = "dual, N 8, batch 1: 3 CUDA graphs captured, 120 replays; graphs hold 2.0 MB"
    assert line in CliRunner().invoke(cli, args, catch_exceptions=False).output
    assert "CUDA graphs" not in CliRunner().invoke(cli, args, catch_exceptions=False).output
