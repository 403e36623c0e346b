"""``mdm judge`` against a server on loopback that speaks the OpenAI protocol."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mdm
import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st
from mdm.cli import cli
from mdm_writing.judging import win_rate
from mdm_writing.questions import Question

KEY = "sk-a-secret-that-must-not-leak"


class Judge(ThreadingHTTPServer):
    """Answers what ``reply`` makes of (prompt, number of the request); keeps what it was asked."""

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.asked, self.keys = reply, [], []
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with self.server.lock:
            self.server.asked.append(text)
            self.server.keys.append(self.headers["Authorization"])
            status, answer = self.server.reply(text, len(self.server.asked))
        if status == 200:
            message = {"role": "assistant", "content": answer}
            answer = {
                "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
            }  # fmt: skip
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    servers = []

    def start(reply):
        servers.append(Judge(reply))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def runs(tmp_path):
    """Two runs of five examples: ``b`` writes longer texts, and as the last example the same text."""

    def write(name, texts):
        lines = [
            {"id": f"w-{i}", "prompt": f"user: Write {i}.\nassistant: ", "completion": text, "index": i}
            for i, text in enumerate(texts)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(tmp_path / name)

    return write("a", ["short"] * 4 + ["same"]), write("b", ["much longer"] * 4 + ["same"])


def texts(prompt):
    return tuple(re.findall(r"<text_\d>\n(.*?)\n</text_\d>", prompt, re.S))


def longest(prompt, _):
    first, second = texts(prompt)
    return 200, f'Both have {{merits}}.\n{{"winner": {1 if len(first) > len(second) else 2}}}'


def call(server, *args):
    command = ["judge", *args, "--judge-model", "m", "--judge-base-url", server.url, "--json"]
    done = CliRunner().invoke(cli, command)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def test_both_orders_are_judged_and_the_better_run_wins(serve, runs):
    server = serve(longest)
    summary = call(server, *runs)
    [result] = summary["results"]
    assert (result["wins"], result["ties"], result["losses"]) == (4, 1, 0)  # the same text ties without being asked
    assert result["win_rate"] == 0.9 and result["agreement"] == 1
    assert result["win_rate_ci95"][0] < 0.9 < result["win_rate_ci95"][1] <= 1
    both = ("much longer", "short"), ("short", "much longer")
    assert sorted(map(texts, server.asked)) == [both[0]] * 4 + [both[1]] * 4
    assert "Write 2." in "".join(server.asked) and "user:" not in "".join(server.asked)


def test_a_judge_that_likes_the_first_place_makes_ties(serve, runs):
    [result] = call(serve(lambda *_: (200, '{"winner": 1}')), *runs)["results"]
    assert (result["wins"], result["ties"], result["losses"], result["win_rate"]) == (0, 5, 0, 0.5)
    assert result["agreement"] == pytest.approx(1 / 5) and result["first_shown_wins"] == pytest.approx(0.9)


def test_nothing_is_paid_twice_and_what_is_missing_is_asked(serve, runs, tmp_path):
    server = serve(longest)
    first = call(server, *runs, "--limit", "2", "--price-in", "2", "--price-out", "10")
    cost = pytest.approx(400 * 2e-6 + 28 * 10e-6)
    assert first["now"] == {"judgements": 4, "prompt_tokens": 400, "completion_tokens": 28, "cost": cost}
    log = tmp_path / "a" / "judgements.jsonl"
    log.write_bytes(log.read_bytes()[:-10])  # as a kill would leave it
    again = call(server, *runs)
    assert len(server.asked) == 4 + 1 + 4
    assert again["now"]["judgements"] == 5 and again["altogether"]["judgements"] == 8
    assert call(server, *runs)["now"]["judgements"] == 0 and len(server.asked) == 9
    assert json.loads((tmp_path / "a" / "judge.json").read_text())["results"] == again["results"]
    call(server, *runs, "--criteria", "brevity", "--limit", "1")
    assert len(server.asked) == 11  # another question is not the same judgement


@pytest.mark.parametrize("status", [429, 500])
def test_a_busy_endpoint_is_asked_again(serve, runs, status):
    server = serve(lambda text, n: longest(text, n) if n > 3 else (status, {"error": {"message": "busy"}}))
    summary = call(server, *runs, "--workers", "1")
    assert summary["complete"] and len(server.asked) == 8 + 3 and summary["now"]["judgements"] == 8


def test_an_endpoint_that_refuses_ends_it_and_what_was_bought_is_kept(serve, runs, tmp_path):
    refusal = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    server = serve(lambda text, n: longest(text, n) if n <= 3 else (401, refusal))
    with pytest.raises(mdm.MdmError, match=r"Incorrect API key provided: \*\*\*.*3 of 8 judgements are kept"):
        call(server, *runs, "--workers", "1")
    assert len((tmp_path / "a" / "judgements.jsonl").read_text().splitlines()) == 3
    server.reply = longest
    assert call(server, *runs)["now"]["judgements"] == 5


def test_an_interrupted_judge_keeps_what_was_asked_and_goes_on(serve, runs, tmp_path):
    def interrupt(text, n):
        if n == 3:
            judge.send_signal(signal.SIGINT)
        return longest(text, n)

    server = serve(interrupt)
    flags = ["--judge-model", "m", "--judge-base-url", server.url, "--workers", "1", "--json"]
    command = [sys.executable, "-m", "mdm", "judge", *runs, *flags]
    judge = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, complaint = judge.communicate(timeout=120)
    assert judge.returncode == 130 and "the same command goes on" in complaint and "Traceback" not in complaint
    kept = len((tmp_path / "a" / "judgements.jsonl").read_text().splitlines())
    assert 3 <= kept < 8, "what was under way has been paid for"
    assert json.loads(said)["now"]["judgements"] == kept and not json.loads(said)["complete"]
    server.reply = longest
    assert call(server, *runs)["now"]["judgements"] == 8 - kept and len(server.asked) == 8


@pytest.mark.parametrize("answer", ["no verdict", '{"winner": 3}', '{"winner": ', '{"score": 5}', ""])
def test_a_malformed_judgement_is_recorded_and_not_counted(serve, runs, tmp_path, answer):
    server = serve(lambda text, n: (200, answer) if n == 1 else longest(text, n))
    summary = call(server, *runs, "--workers", "1")
    [result] = summary["results"]
    assert summary["malformed"] == 1 and summary["complete"]
    assert (result["examples"], result["wins"], result["ties"]) == (4, 3, 1)
    records = [json.loads(line) for line in (tmp_path / "a" / "judgements.jsonl").read_text().splitlines()]
    assert [r["answer"] for r in records if r["verdict"] is None] == [answer]
    call(server, *runs)
    assert len(server.asked) == 8  # it was paid for: not asked again unless one says so
    assert call(server, *runs, "--retry-malformed")["results"][0]["examples"] == 5
    assert len(server.asked) == 9


def test_single_ratings(serve, runs):
    server = serve(lambda text, n: (200, f'{{"score": {9 if "longer" in text else 4}}}'))
    summary = call(server, *runs, "--mode", "single")
    assert [r["score"] for r in summary["results"]] == [4.0, pytest.approx((4 * 9 + 4) / 5)]
    low, high = summary["results"][1]["score_ci95"]
    assert low < 8 < high
    assert len(server.asked) == 9  # two of the texts are the same
    assert call(server, runs[0])["mode"] == "single"


@pytest.mark.parametrize(
    ("answer", "verdict"), [('{"score": 0}', None), ('{"score": true}', None), ('{"score": 7.5}', 7.5)]
)
def test_a_rating_is_a_number_from_1_to_10(answer, verdict):
    assert Question(("x", 0), "a", None, "").verdict(answer) == verdict


def test_the_key_is_sent_and_appears_nowhere(serve, runs, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server = serve(lambda text, n: (200, f"You said {KEY}. " + longest(text, n)[1]))
    summary = json.dumps(call(server, *runs))
    assert set(server.keys) == {f"Bearer {KEY}"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    seen = capfd.readouterr()
    assert "You said ***" in written
    assert KEY not in written + summary + caplog.text + seen.out + seen.err


def test_runs_that_do_not_fit_are_refused(serve, runs, tmp_path, monkeypatch):
    server = serve(longest)
    results = tmp_path / "b" / "results.jsonl"
    lines = results.read_text().splitlines()
    results.write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(mdm.MdmError, match="share 3 examples, and 2 are in one of them only: --intersect"):
        call(server, *runs)
    assert call(server, *runs, "--intersect")["results"][0]["examples"] == 3
    results.write_text(lines[0].replace("Write 0.", "Write 7.") + "\n")
    with pytest.raises(mdm.MdmError, match="different prompts as example w-0"):
        call(server, *runs, "--intersect")
    results.write_text('{"id": "w-0"}\n')
    with pytest.raises(mdm.MdmError, match="results.jsonl, line 1: prompt is missing"):
        call(server, *runs)
    results.unlink()
    with pytest.raises(mdm.MdmError, match=r"holds no results.jsonl"):
        call(server, *runs)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(mdm.MdmError, match="OPENAI_API_KEY holds no key"):
        cli.main(["judge", runs[0], "--judge-model", "m"], standalone_mode=False)


VERDICTS = st.sampled_from([0.0, 0.5, 1.0, None])


@given(st.lists(st.tuples(VERDICTS, VERDICTS), max_size=30))
def test_the_win_rate_is_fair(pairs):
    known = {}
    for i, (there, back) in enumerate(pairs):
        known[Question((str(i), 0), "a", "b", f"{i}a")] = there
        known[Question((str(i), 0), "b", "a", f"{i}b")] = back
    one, other = win_rate("a", "b", known), win_rate("b", "a", known)
    counted = [pair for pair in pairs if None not in pair]
    assert one["examples"] == len(counted) == one["wins"] + one["ties"] + one["losses"]
    assert (one["wins"], one["losses"]) == (other["losses"], other["wins"])
    low, high = one["win_rate_ci95"]
    if counted:
        assert low - 1e-12 <= one["win_rate"] <= high + 1e-12
        assert one["win_rate"] + other["win_rate"] == pytest.approx(1)
    assert [low, high] == pytest.approx([1 - x for x in reversed(other["win_rate_ci95"])])


def test_a_run_of_several_samplers_is_judged_among_itself(serve, tmp_path):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "a story."}\n{"prompt": "another one."}\n')
    command = ["run", "--task", "creative-writing", "--data", str(data), "--sampler", "confidence", "--sampler",
               "random", "--gen-length", "8", "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    summary = call(serve(longest), str(tmp_path / "run"))
    [result] = summary["results"]
    assert (result["baseline"], result["challenger"]) == ("run/confidence", "run/random")
    assert result["examples"] == 2
