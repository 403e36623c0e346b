"""Runs with a stand-in for the engine: what is asked of it, what is written, and how a run is taken up again."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import pytest
import torch
from mdm.cli import main
from mdm.errors import MdmError
from mdm.protocols import ModelSpec
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.watch import Interrupted, RunObserver
from stand_in_engine import engine as engine, lines, make, timeless


def test_what_a_run_writes(engine, tmp_path):
    summary = runs.run(make(), tmp_path)
    [row] = summary["runs"]
    assert row["examples"] == 5 and summary["complete"] and row["accuracy"] == 4 / 5
    assert row["metrics"] == {"right": 0.8, "tried": 1.0} and row["cumulative_entropy"] == pytest.approx(0.2)
    assert (row["forwards"], row["rows"], row["tokens"]) == (10, 90, 10)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    rows = sorted(lines(tmp_path / "results.jsonl"), key=lambda row: row["index"])
    assert [row["id"] for row in rows] == [f"copy-{i}" for i in range(5)]
    first = {key: value for key, value in rows[1].items() if key not in ("seconds", "digest")}
    assert first == {
        "id": "copy-1", "index": 1, "repeat": 0, "row": 1, "prompt": "say b:", "completion": "bb", "tokens": 2,
        "forwards": 2, "metrics": {"right": 1.0, "tried": 1.0}, "cumulative_entropy": 0.1, "rows": 18,
        "canvas": list("say b:"), "texts": {"98": "b"}, "tokens_until_eos": 2, "block_steps": [2],
    }  # fmt: skip
    assert sorted(line["row"] for line in lines(tmp_path / "trace.jsonl")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    written = configs.parse(RunConfig, tmp_path / "config.yaml")
    assert written.limit == 5 and written.options == {
        "one": {"candidates": 8},
        "copy": {"infill": False, "fragile": False},
    }
    assert json.loads((tmp_path / "environment.json").read_text())["versions"]["fake-run"] == "1.0"


def test_what_the_engine_is_asked(engine, tmp_path):
    config = make(
        "candidates=4",
        "keep=1",
        cache="kept",
        temperature=0.5,
        steps=3,
        seed=7,
        batch_size=2,
        limit=20,
        stop_at_eos=True,
        allowed_tokens=["3:9", [20, 30]],
        suppressed_tokens=[4],
        quantization="bnb-8bit",
        device_map="auto",
        attn_implementation="eager",
        offline=True,
    )
    runs.run(config, tmp_path)
    first, second = engine.calls
    assert first["sampler_options"] == {"candidates": 4} and first["cache_options"] == {"keep": 1}
    assert (first["sampler"], first["cache"], first["block_length"]) == ("one", "kept", None)
    assert (first["steps"], first["seed"], first["temperature"], first["stop_at_eos"]) == (3, 7, 0.5, True)
    assert first["row_ids"] == list(range(16)) and second["row_ids"] == [16, 17, 18, 19]
    assert first["gen_length"] == [2] * 16
    assert (first["allowed_tokens"], first["suppressed_tokens"]) == ([(3, 9), (20, 30)], [4])
    placed = {"device": "auto", "device_map": "auto", "quantization": "bnb-8bit", "attn_implementation": "eager"}
    loaded = {"dtype": "auto", "adapter": None, "adapter_weights": None, "merge_adapter": None, "offline": True}
    others = {"image_tokenizer": None, "image_size": None, "threads": "auto"}
    assert engine.loads == [("tiny", {**placed, **loaded, **others, "revision": None})]


def test_sizes_that_are_not_given_are_what_fits(engine, tmp_path, monkeypatch):
    notes = []
    observer = RunObserver()
    observer.on_note = notes.append
    monkeypatch.setattr("mdm.engine.memory.free_bytes", lambda device: 10**9)
    runs.run(make(limit=20, batch_size="auto"), tmp_path / "auto", observer)
    fits = engine.calls[0]["batch_size"], engine.calls[0]["max_rows"]
    assert fits[0] == 20 and 0 < fits[1] < 10**5 and len(engine.calls[0]["prompts"]) == 20
    assert f"one: batch size 20, at most {fits[1]:,} rows in a forward (1.0 GB free)" in notes
    runs.run(make(limit=20, batch_size=4, max_rows=3), tmp_path / "given")
    assert [(c["batch_size"], c["max_rows"]) for c in engine.calls[1:]] == [(4, 3)]


def test_out_of_memory_halves_the_batch_and_blames_no_example(engine, tmp_path):
    decode = engine.decode

    def greedy(model, prompts, *, batch_size, **settings):
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, prompts, batch_size=batch_size, **settings)

    engine.decode = greedy
    summary = runs.run(make(limit=20, batch_size=16), tmp_path)
    assert (summary["runs"][0]["examples"], summary["runs"][0]["errors"]) == (20, 0)
    assert sorted(engine.decoded) == list(range(20)) and engine.calls[0]["batch_size"] == 2
    engine.decode = lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    assert runs.run(make(limit=3), tmp_path / "none")["runs"][0]["errors"] == 3  # each alone does not fit


def test_prompts_become_canvases(engine, tmp_path):
    runs.run(make(limit=1), tmp_path / "a")
    runs.run(make("infill=true", limit=1), tmp_path / "b")
    engine.model.spec = ModelSpec("fake", 256, 0, eos_ids=(1,), prompt_style="chat", block_length=8)
    runs.run(make(limit=1, gen_length=3), tmp_path / "c")
    runs.run(make(limit=1, prompt_style="compact"), tmp_path / "d")
    say = [ord(letter) for letter in "say a:"]
    assert [call["prompts"][0] for call in engine.calls] == [say, [*say, 0, 0], [2, *say], say]
    assert [call["gen_length"] for call in engine.calls] == [[2], [0], [3], [2]]
    assert [lines(tmp_path / name / "results.jsonl")[0]["completion"] for name in "abcd"] == ["aa", "aa", "aaa", "aa"]


def test_data_without_limit_is_every_row(engine, tmp_path):
    data = tmp_path / "letters.txt"
    data.write_text("q r s t u v w")
    assert runs.run(make(data=data), tmp_path / "out")["runs"][0]["examples"] == 7
    data.write_text("")
    with pytest.raises(MdmError, match="letters.txt: no examples"):
        runs.run(make(data=data), tmp_path / "empty")


@pytest.mark.parametrize("stop", [0, 1, 7, 16, 19])
def test_interrupted_and_taken_up(engine, tmp_path, stop):
    config = make(limit=20, batch_size=1)
    whole = runs.run(config, tmp_path / "whole")
    engine.decoded.clear()
    engine.stop_after = stop
    with pytest.raises(Interrupted) as caught:
        runs.run(config, tmp_path / "cut")
    assert caught.value.summary["runs"][0]["examples"] == stop and not caught.value.summary["complete"]
    engine.stop_after = None
    resumed = runs.run(config, tmp_path / "cut")
    assert sorted(engine.decoded) == list(range(20))  # none lost, none twice
    assert timeless(resumed) == timeless(whole)
    assert len(lines(tmp_path / "cut" / "results.jsonl")) == 20 and len(lines(tmp_path / "cut" / "trace.jsonl")) == 40


def test_a_finished_run_does_not_load_the_model_again(engine, tmp_path):
    whole = runs.run(make(), tmp_path)
    assert runs.run(make(), tmp_path) == whole
    assert len(engine.loads) == 1


def test_grading_that_fails_is_recorded(engine, tmp_path):
    summary = runs.run(make("fragile=true", limit=6), tmp_path)
    assert (summary["runs"][0]["errors"], summary["runs"][0]["examples"], summary["runs"][0]["accuracy"]) == (
        2,
        6,
        pytest.approx(4 / 6),
    )
    failed = [line for line in lines(tmp_path / "results.jsonl") if "error" in line]
    assert sorted(line["index"] for line in failed) == [2, 5]
    assert {line["error"] for line in failed} == {"ZeroDivisionError: oops"}
    assert runs.run(make("fragile=true", limit=6), tmp_path) == summary


def test_decoding_that_fails_is_recorded_and_the_rest_goes_on(engine, tmp_path):
    engine.cannot = {row: RuntimeError("too odd") for row in (0, 7, 8, 19)}
    summary = runs.run(make(limit=20), tmp_path)
    assert (summary["runs"][0]["errors"], summary["runs"][0]["examples"], summary["complete"]) == (4, 20, True)
    assert sorted(engine.decoded) == [row for row in range(20) if row not in engine.cannot]  # none twice
    failed = [line for line in lines(tmp_path / "results.jsonl") if "error" in line]
    assert sorted(line["index"] for line in failed) == [0, 7, 8, 19]
    assert {(line["error"], line["forwards"]) for line in failed} == {("RuntimeError: too odd", 0)}
    assert runs.run(make(limit=20), tmp_path) == summary and len(engine.loads) == 1


def test_what_was_asked_wrongly_is_no_examples_fault(engine, tmp_path):
    engine.cannot = {3: MdmError("cache 'kept' needs keys and values")}
    with pytest.raises(MdmError, match="needs keys and values"):
        runs.run(make(), tmp_path / "out")


@pytest.mark.parametrize("kind", ["decoded", "graded"])
def test_fail_fast(engine, tmp_path, kind):
    engine.cannot = {2: RuntimeError("too odd")} if kind == "decoded" else {}
    config = make("fragile=true", limit=4)
    with pytest.raises(MdmError, match=f"example copy-2 could not be {kind}: "):
        runs.run(config, tmp_path, fail_fast=True)
    assert 2 not in [line["index"] for line in lines(tmp_path / "results.jsonl")]
    engine.cannot.clear()
    assert runs.run(config, tmp_path)["runs"][0]["examples"] == 4  # left to be done


def test_repeats(engine, tmp_path):
    once = runs.run(make(), tmp_path / "once")
    engine.calls.clear()
    summary = runs.run(make(repeats=3), tmp_path / "thrice")
    assert (summary["runs"][0]["examples"], summary["runs"][0]["repeats"], summary["complete"]) == (5, 3, True)
    assert (
        summary["runs"][0]["accuracy"] == once["runs"][0]["accuracy"]
        and summary["runs"][0]["forwards"] == 3 * once["runs"][0]["forwards"]
    )
    assert summary["runs"][0]["accuracy_se"] == 0.0 and once["runs"][0]["accuracy_se"] is None
    rows = [row for call in engine.calls for row in call["row_ids"]]
    assert rows[:5] == [0, 1, 2, 3, 4] and len(set(rows)) == 15  # the first as without repeats, the others their own

    def facts(folder, repeat=0):
        found = [line for line in lines(tmp_path / folder / "results.jsonl") if line["repeat"] == repeat]
        return sorted((line["row"], line["id"], line["digest"], line["completion"]) for line in found)

    assert facts("thrice") == facts("once")
    assert [row % 10**9 for row, *_ in facts("thrice", 2)] == list(range(5))
    engine.stop_after = len(engine.decoded) + 8
    with pytest.raises(Interrupted) as caught:
        runs.run(make(repeats=3, batch_size=1), tmp_path / "cut")
    assert not caught.value.summary["complete"]
    engine.stop_after = None
    assert timeless(runs.run(make(repeats=3, batch_size=1), tmp_path / "cut")) == timeless(summary)


def test_grading_beside_decoding(engine, tmp_path):
    summary = runs.run(make("hold=10", task="slow", repeats=2, batch_size=1), tmp_path)
    assert (summary["runs"][0]["examples"], summary["runs"][0]["accuracy"]) == (5, 0.8)
    assert summary["runs"][0]["metrics"] == {"right": 0.8, "tried": 1.0, "both": 0.8}
    assert len(lines(tmp_path / "results.jsonl")) == 10 and len(lines(tmp_path / "trace.jsonl")) == 20
    [task] = sys.modules["fake_run"].started
    assert task.closed == 1


def test_ctrl_c_waits_for_the_grades_of_what_is_decoded(engine, tmp_path):
    engine.stop_after = 3
    with pytest.raises(Interrupted) as caught:
        runs.run(make("hold=3", task="slow"), tmp_path)
    assert caught.value.summary["runs"][0]["examples"] == 3


def test_paces_are_an_axis(engine, tmp_path):
    summary = runs.run(make(sampler=["one", "two"], tokens_per_step=[1, 2], limit=3), tmp_path)
    assert [(row["sampler"], row["tokens_per_step"]) for row in summary["runs"]] == [
        ("one", 1), ("one", 2), ("two", 1), ("two", 2),
    ]  # fmt: skip
    assert [call["tokens_per_step"] for call in engine.calls] == [1, 2, 1, 2]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"one-K1", "one-K2", "two-K1", "two-K2"}
    assert len(engine.loads) == 1
    runs.run(make(tokens_per_step=2, limit=1), tmp_path / "single")
    assert engine.calls[-1]["tokens_per_step"] == 2 and (tmp_path / "single" / "results.jsonl").exists()


def test_comparison(engine, tmp_path):
    summary = runs.run(make(sampler=["one", "two"], limit=3), tmp_path)
    assert [row["sampler"] for row in summary["runs"]] == ["one", "two"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary and summary["complete"]
    assert len(engine.loads) == 1
    runs.run(make(model=["tiny", "/m/other"], limit=3), tmp_path / "models")
    assert {path.name for path in (tmp_path / "models").iterdir() if path.is_dir()} == {"tiny", "other"}


def test_nothing_to_decode_is_said_before_decoding(engine, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(MdmError, match="boring, example copy-0: nothing to decode: gen_length is 0"):
        runs.run(make(task="boring"), out)
    assert not engine.calls and not out.exists()


def test_a_mistake_of_a_later_model_keeps_what_was_done(engine, tmp_path, monkeypatch):
    load = engine.load_model

    def fussy(name, **kw):
        if name == "none":
            raise MdmError("no such model")
        return load(name, **kw)

    monkeypatch.setattr(engine, "load_model", fussy)
    with pytest.raises(MdmError, match="no such model"):
        runs.run(make(model=["tiny", "none"]), tmp_path / "out")
    assert len(lines(tmp_path / "out" / "tiny" / "results.jsonl")) == 5
    with pytest.raises(MdmError, match="no such model"):
        runs.run(make(model=["none"]), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_hooks_see_each_result(engine, site, tmp_path):
    source = """
        from mdm.protocols import hookimpl
        seen = []
        @hookimpl
        def on_finish(result):
            seen.append(result)
    """
    site.package("fake-hook", {"mdm.hooks": {"watcher": "fake_hook"}}, source)
    site.package("fake-hook-b", {"mdm.hooks": {"torn": "fake_hook_b"}}, "import no_such_module_")
    runs.run(make(), tmp_path)
    assert len(sys.modules["fake_hook"].seen) == 5


def command(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, *capsys.readouterr()


def test_hooks_that_fail_are_named(engine, site, tmp_path):
    source = """
        from mdm.protocols import hookimpl
        @hookimpl
        def on_finish(result):
            raise ValueError("upset")
    """
    site.package("fake-hook-c", {"mdm.hooks": {"upset": "fake_hook_c"}}, source)
    with pytest.raises(MdmError, match="hook 'upset' of package fake-hook-c 1.0 failed in on_finish: ValueError: ups"):
        runs.run(make(), tmp_path)


@pytest.mark.parametrize("callback", ["on_begin", "on_step", "on_note", "on_progress"])
def test_a_failed_observer_stops_the_run_and_is_no_examples_fault(engine, tmp_path, callback):
    class Faulty(RunObserver):
        sees_steps = True

    def fail(self, *args):
        if callback != "on_progress" or args[1] == 3:
            raise KeyError("a fault of the observer")

    setattr(Faulty, callback, fail)
    with pytest.raises(MdmError, match=f"the observer Faulty failed in {callback}: KeyError: 'a fault of the obs"):
        runs.run(make(), tmp_path, Faulty())
    written = lines(tmp_path / "results.jsonl") if callback == "on_progress" else []
    assert len(written) == 3 * (callback == "on_progress") and not any("error" in line for line in written)
    assert runs.run(make(), tmp_path)["runs"][0]["errors"] == 0
    assert sorted(engine.decoded)[-1] == 4


def test_a_failed_on_step_hook_is_no_examples_fault(engine, site, tmp_path):
    source = """
        from mdm.protocols import hookimpl
        @hookimpl
        def on_step(event):
            raise ValueError("upset")
    """
    site.package("fake-hook-d", {"mdm.hooks": {"upset": "fake_hook_d"}}, source)
    with pytest.raises(MdmError, match="hook 'upset' of package fake-hook-d 1.0 failed in on_step: ValueError: upset"):
        runs.run(make(), tmp_path / "out")
    assert not (tmp_path / "out").exists()  # refused before its first result


def test_a_misspelt_hook_is_named(engine, site, tmp_path, caplog):
    source = """
        from mdm.protocols import hookimpl
        @hookimpl
        def on_finsh(result): ...
    """
    site.package("fake-hook-e", {"mdm.hooks": {"watcher": "fake_hook_e"}}, source)
    assert runs.run(make(), tmp_path)["complete"]
    [warning] = [record.getMessage() for record in caplog.records if record.name == "mdm"]
    assert warning == (
        "mdm: left out: hook 'watcher' of package fake-hook-e 1.0: there is no hook 'on_finsh'. "
        "Did you mean 'on_finish'?"
    )


FINISHED = """
    from mdm.protocols import hookimpl
    finished = []
    @hookimpl
    def on_finish(result, example):
        finished.append((example.row, result is not None, dict(example.metrics), example.error))
"""


def test_on_finish_comes_after_the_grades(engine, site, tmp_path):
    site.package("fake-hook-f", {"mdm.hooks": {"watcher": "fake_hook_f"}}, FINISHED)
    runs.run(make("hold=5", task="slow"), tmp_path)
    finished = sys.modules["fake_hook_f"].finished
    assert sorted(row for row, *_ in finished) == [0, 1, 2, 3, 4]
    assert all(result and metrics["tried"] == 1.0 for _, result, metrics, _ in finished)


def test_on_finish_sees_examples_that_failed(engine, site, tmp_path):
    site.package("fake-hook-g", {"mdm.hooks": {"watcher": "fake_hook_g"}}, FINISHED)
    engine.cannot = {1: RuntimeError("too odd")}
    runs.run(make("fragile=true"), tmp_path)
    finished = {row: rest for row, *rest in sys.modules["fake_hook_g"].finished}
    assert len(finished) == 5
    assert finished[1] == [False, {}, "RuntimeError: too odd"]  # not decoded
    assert finished[2] == [True, {}, "ZeroDivisionError: oops"]  # not graded


def test_tokens_are_those_that_were_decoded(engine, tmp_path):
    engine.cannot = {1: RuntimeError("too odd")}
    decode = engine.decode

    def short(*args, on_finish, **settings):
        def finish(index, result):
            del result.tokens[1:]
            on_finish(index, result)

        return decode(*args, on_finish=finish, **settings)

    engine.decode = short
    assert (
        runs.run(make(), tmp_path)["runs"][0]["tokens"] == 4
    )  # of ten that were asked for, one of five examples failing


@pytest.mark.parametrize("end", ["whole", "no examples", "a broken file", "another run's folder", "no model"])
def test_a_task_is_closed_however_the_run_ends(engine, tmp_path, monkeypatch, end):
    data = tmp_path / "letters.txt"
    data.write_text("" if end == "no examples" else "a b")
    config = make("hold=1", task="slow", data=data)
    if end == "another run's folder":
        runs.run(config, tmp_path / "out")
        config = make("hold=1", task="slow", data=data, seed=3)
    task = sys.modules["fake_run"].Slow
    if end == "a broken file":
        monkeypatch.setattr(task, "examples", lambda *_, **__: (_ for _ in ()).throw(MdmError("broken")))
    if end == "no model":
        monkeypatch.setattr(engine, "load_model", lambda *_, **__: (_ for _ in ()).throw(MdmError("no such model")))
    sys.modules["fake_run"].started.clear()
    if end == "whole":
        runs.run(config, tmp_path / "out")
    else:
        with pytest.raises(MdmError):
            runs.run(config, tmp_path / "out")
    [started] = sys.modules["fake_run"].started
    assert started.closed == 1


def test_run_command(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mdm.cli.progress.PATIENCE", 1e9)  # a slow machine has more to say
    out = tmp_path / "out"
    args = ["run", "--sampler", "one", "--sampler", "two", "--task", "copy", "--out", str(out)]
    code, text, errors = command(capsys, *args)
    assert (code, errors) == (0, "") and f"results: {out}" in text
    assert all(
        words in text for words in ("sampler", "right", "95% interval", "one ", "two ", "80.0%", "37.6% to 96.4%")
    )
    code, text, errors = command(capsys, *args, "--json")
    assert (code, errors) == (0, "") and len(json.loads(text)["runs"]) == 2
    code, text, errors = command(capsys, *args, "--seed", "4")
    assert (code, text) == (2, "") and "holds another run: seed is 0 there, 4 here" in errors
    again = tmp_path / "again"
    code, *_ = command(capsys, "run", "--config", str(out / "config.yaml"), "--out", str(again))
    assert code == 0 and (again / "config.yaml").read_text() == (out / "config.yaml").read_text()


def test_default_folder(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert command(capsys, "run", "--sampler", "one", "--task", "copy")[0] == 0
    assert len(list((tmp_path / "runs").glob("copy-2*"))) == 2


def test_ctrl_c_says_how_to_go_on(engine, tmp_path, capsys):
    engine.stop_after = 3
    out = tmp_path / "with space"
    code, text, errors = command(capsys, "run", "--sampler", "one", "--task", "copy", "--out", str(out))
    assert code == 130 and "one" in text
    assert f"mdm: interrupted; to go on: mdm run --config '{out}/config.yaml' --out '{out}'" in errors
    engine.stop_after = None
    assert command(capsys, "run", "--config", f"{out}/config.yaml", "--out", str(out))[0] == 0
    assert sorted(engine.decoded) == [0, 1, 2, 3, 4]


def test_generate_command(engine, capsys):
    code, text, errors = command(capsys, "generate", "say k:", "--sampler", "one", "--gen-length", "3")
    assert (code, text) == (0, "kkk\n") and "3 forwards, 27 rows" in errors
    code, text, _ = command(capsys, "generate", "__ says k:", "--infill", "--mask", "_", "--sampler", "one")
    assert (code, text) == (0, "kk says k:\n")
    code, text, errors = command(capsys, "generate", "say k:", "--sampler", "one", "--chat", "--json")
    answer = json.loads(text)
    assert (code, errors) == (0, "") and len(answer["tokens"]) == 64 and answer["sequence"][0] == 2
    code, text, errors = command(capsys, "generate", "x", "--sampler", "one", "--sampler", "two")
    assert (code, text) == (2, "") and "one --model and one --sampler" in errors


def test_code_runs_only_where_it_is_allowed(engine, tmp_path):
    with pytest.raises(MdmError, match=r"^code runs the code that the model writes: .* --allow-code-execution$"):
        runs.run(make(task="code"), tmp_path / "a")
    assert not (tmp_path / "a").exists() and not engine.loads
    allowed = make(task="code", allow_code_execution=True)
    assert runs.run(allowed, tmp_path / "b")["runs"][0]["examples"] == 1  # no default limit: all there are
    written = configs.parse(RunConfig, tmp_path / "b" / "config.yaml")
    assert written == allowed.model_copy(update={"autoregressive": []})


def test_work_is_told_between_examples(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("mdm.runs.decode_examples.WorkMeter.EVERY", 0.0)
    heard = []
    observer = RunObserver()
    observer.on_work = lambda label, work: heard.append((label, work))
    runs.run(make(limit=5, batch_size=2), tmp_path, observer)
    counts = [(work.steps, work.tokens, work.tokens_left) for _, work in heard]
    assert counts == [
        (i + 1, 2 * i + 2, 8 - 2 * i) for i in range(5)
    ]  # each of five rows takes one step, of two tokens
    assert {label for label, _ in heard} == {"one"} and all(work.rows == 0 for _, work in heard)  # none is left open
    assert all(a.seconds <= b.seconds for (_, a), (_, b) in pairwise(heard))


def test_work_of_a_real_decode_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm.runs.decode_examples.WorkMeter.EVERY", 0.0)
    heard = []
    observer = RunObserver()
    observer.on_work = lambda _, work: heard.append(work)
    flags = {"task": "sudoku", "sampler": ["confidence"], "limit": 3, "gen_length": 4, "batch_size": 2}
    runs.run(configs.build(RunConfig, None, flags, ["mode=generate"]), tmp_path, observer)
    assert all(work.tokens + work.tokens_left == 12 for work in heard) and max(work.rows for work in heard) == 2
    assert [work.tokens for work in heard] == sorted(work.tokens for work in heard)
    assert heard[-1].steps == len(heard) == 8 and heard[-1].tokens == 12
