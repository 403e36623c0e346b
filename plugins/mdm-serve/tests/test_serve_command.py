"""``mdm serve`` as a command: what it refuses, and a life of it from its first line to its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import openai
import pytest
from mdm.errors import MdmError
from mdm_serve import command

KEY = "a-key-of-ours"


def serve(*flags: str, monkeypatch, key: str | None = None) -> str:
    """The line by which the command refuses its flags."""
    if key is None:
        monkeypatch.delenv(command.KEY, raising=False)
    else:
        monkeypatch.setenv(command.KEY, key)
    with pytest.raises(MdmError) as refused:
        command.serve.main(["--port", "0", *flags], standalone_mode=False)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_flags_that_are_refused(monkeypatch, tmp_path, served):
    (empty := tmp_path / "empty").write_text("\n")
    (two := tmp_path / "two").write_text("one key\n")
    (good := tmp_path / "good").write_text(f"{KEY}\n")
    for flags, word in [
        (["--host", "0.0.0.0"], "give a key"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
        (["--port", str(served.port)], "cannot listen"),
        (["--api-key-file", str(empty)], "holds no key"),
        (["--api-key-file", str(two)], "holds no key"),
        (["--api-key-file", str(tmp_path / "none")], "no such file"),
        (["--api-key-file", str(good), "--no-api-key"], "give one of them"),
        (["--trace", "full"], "mdm_trace"),
        (["--image-tokenizer", "x"], "pictures are not served"),
        (["--sampler", "confidence", "--sampler", "margin"], "one --sampler"),
        (["--model", "tiny", "--model", "other"], "one --model"),
        (["--sampler", "confidenc"], "'confidence'"),
        (["-o", "candidate=3"], "candidate"),
        (["--cache", "no-such"], "no-such"),
        (["--top-p", "0.5"], "temperature 0"),
        (["--allowed-tokens", "60:70"], "vocabulary"),
    ]:
        assert word in serve(*flags, monkeypatch=monkeypatch), flags
    assert "holds no key" in serve(monkeypatch=monkeypatch, key="\xe4")


@pytest.mark.wide
def test_from_the_first_line_to_the_exit_status(tmp_path):
    flags = ["--port", "0", "--json", "--log-prompts", "--sampler", "confidence", "--name", "mine", "--steps", "64"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", command.KEY: KEY}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "mdm", "serve", *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=env
        ) as process,
    ):
        giving_up = threading.Timer(120, process.kill)
        giving_up.start()
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["model"] == "mine"
            with openai.OpenAI(base_url=f"{said['url']}/v1", api_key=KEY, max_retries=0) as client:
                stream = client.completions.create(
                    model="mine", prompt="2+3=", max_tokens=96, stream=True, extra_body={"mdm_trace": True}
                )
                steps = sum(1 for _ in zip(range(4), stream, strict=False))
                process.send_signal(signal.SIGTERM)
                last = list(stream)[-1]
                assert steps == 4 and last.choices[0].finish_reason in ("stop", "length")
                assert last.mdm["steps"] == 96, "the server's pace, at the request's length"
            assert process.wait() == 0
        finally:
            giving_up.cancel()
            process.kill()
    lines = (tmp_path / "log").read_text()
    assert "2+3=" in lines and "POST /v1/completions 200" in lines and KEY not in lines and "Traceback" not in lines
