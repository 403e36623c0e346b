"""``mdm chat``: a talk from a pipe and from a terminal (a pty), with what it forgets, refuses and survives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import mdm
import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import Message, StepEvent
from mdm_chat.command import check_style
from mdm_chat.commands import COMMANDS, HELP
from mdm_chat.options import LENGTH, Options
from mdm_chat.talk import Talk
from mdm_chat.view import LiveAnswer
from mdm_testing.toy import toy_model
from rich.console import Console
from tiny_families import save, save_bpe

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SHORT = ["--gen-length", "6", "--sampler", "confidence"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random model with a chat template, trained on up to 96 tokens."""
    folder = tmp_path_factory.mktemp("talker")
    first = save_bpe(folder, ["<|end|>", "<|mask|>"], whole=True, eos_token="<|end|>", chat_template=TEMPLATE)
    ids = {"eos_token_id": first, "mask_token_id": first + 1, "pad_token_id": first}
    return str(save(folder, "llada", vocab_size=288, embedding_size=288, max_sequence_length=96, **ids))


def talk(model, said, *flags):
    """What a talk from a pipe prints: exit code, stdout, stderr."""
    done = CliRunner().invoke(cli, ["chat", "--model", model, "--device", "cpu", *SHORT, *flags], input=said)
    if done.exception is not None and not isinstance(done.exception, MdmError | SystemExit):
        raise done.exception
    return done


def turns(model, said, *flags):
    """The turns of a talk, and what was told beside them."""
    done = talk(model, said, "--json", *flags)
    assert done.exit_code == 0, done.exception
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_from_a_pipe_each_line_is_a_message_and_answers_alone_are_printed(checkpoint):
    answers = talk(checkpoint, "hello\n\nwhat else?\n")
    told, stderr = turns(checkpoint, "hello\n\nwhat else?\n")
    assert answers.exit_code == 0 and answers.stderr == stderr == ""
    assert answers.stdout == "".join(turn["text"] + "\n" for turn in told)
    assert [turn["question"] for turn in told] == ["hello", "what else?"]

    model = mdm.load_model(checkpoint, device="cpu")
    said = []
    for turn in told:
        said.append({"role": "user", "content": turn["question"]})
        [result] = mdm.decode(model, [said], "confidence", gen_length=6)
        assert turn["text"] == result.text.strip() and turn["prompt_tokens"] == result.prompt_tokens
        assert turn["prompt_style"] == result.prompt_style == "chat"
        said.append({"role": "assistant", "content": turn["text"]})


def test_commands_change_what_the_model_is_shown(checkpoint):
    def shown(said, *flags):
        return [turn["prompt_tokens"] for turn in turns(checkpoint, said, *flags)[0]]

    [alone] = shown("b\n")
    assert shown("a\nb\n")[1] > alone
    assert shown("a\n/reset\nb\n")[1] == shown("a\n/undo\nb\n")[1] == alone
    [told] = shown("b\n", "--system", "hello")
    assert told > alone and shown("/system hello\nb\n") == [told]
    assert shown("/system hello\n/system -\nb\n/quit\nc\n") == [alone]


def test_a_retry_replaces_the_answer_by_one_of_other_draws(checkpoint):
    said, _ = turns(checkpoint, "a\n/retry\n/retry\nb\n", "--temperature", "1.5")
    assert len({turn["text"] for turn in said[:3]}) == 3
    assert len({turn["prompt_tokens"] for turn in said[:3]}) == 1
    assert turns(checkpoint, "a\n/retry\n", "--temperature", "1.5")[0][1]["text"] == said[1]["text"]
    [first, again], _ = turns(checkpoint, "a\n/retry\n")
    assert first["text"] == again["text"]


def test_an_option_is_set_within_a_talk(checkpoint):
    said, stderr = turns(checkpoint, "a\n/set gen-length=3\n/reset\na\n/set\n/set sampler=eb\n/set gamma=0.5\n/set\n")
    assert [turn["forwards"] for turn in said] == [6, 3]
    assert stderr.splitlines()[0].endswith("gen_length=3")
    assert "gamma=0.5" in stderr.splitlines()[-1] and "sampler=eb" in stderr.splitlines()[-1]


def test_a_change_that_is_refused_changes_nothing():
    options = Options({"sampler": ["info-gain"]}, ())
    assert options.config.gen_length == LENGTH and options.shown() == "sampler=['info-gain']"
    for text, said in {
        "temperature": "/set temperature: expected OPTION=VALUE, such as",
        "temprature=1": "/set temprature: there is no such option. Did you mean 'temperature'?",
        "candidats=1": "/set candidats=1: no option 'candidats'. Did you mean 'candidates'?",
        "temperature=-1": "/set temperature=-1: should be greater",
        "gen_length=[": "/set gen_length=[: ",
        "device=cpu": "/set device: this cannot be changed within a talk",
        "sampler=[info-gain, eb]": "a talk has one model and one sampler at one pace",
    }.items():
        before = options.config
        with pytest.raises(MdmError) as caught:
            options.change(text)
        assert said in str(caught.value) and options.config is before
    options.change("steps=8")
    options.change("tokens_per_step=2")
    assert (options.config.steps, options.config.tokens_per_step) == (None, [2])
    options.change("tokens-per-step=")
    assert options.config.tokens_per_step is None


def test_the_oldest_turns_are_left_out_where_the_talk_is_too_long(checkpoint):
    said, _ = turns(checkpoint, "hello\n" * 8)
    assert said[0]["left_out"] == 0 < said[-1]["left_out"] < 7
    assert all(turn["prompt_tokens"] + 6 <= 96 for turn in said)
    done = talk(checkpoint, "a\n" + "b" * 90 + "\n")
    assert isinstance(done.exception, MdmError) and "tokens, and " in str(done.exception)
    assert "was trained on 96: ask for less, or for a shorter answer" in str(done.exception)


def test_a_saved_talk_is_a_prompt(checkpoint, tmp_path):
    file = tmp_path / "talk.json"
    said, _ = turns(checkpoint, f"a\nb\n/save {file}\n", "--system", "c")
    saved = json.loads(file.read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", *["user", "assistant"] * 2]
    assert saved["messages"][-1]["content"] == said[-1]["text"]
    model = mdm.load_model(checkpoint, device="cpu")
    [result] = mdm.decode(model, [saved["messages"][:-1]], "confidence", gen_length=6)
    assert result.prompt_tokens == said[-1]["prompt_tokens"]


@pytest.mark.parametrize(
    ("flags", "typed", "said"),
    [
        ([], "/rest\n", "there is no command /rest. Did you mean '/reset'? /help lists them"),
        ([], "/undo now\n", "/undo takes nothing behind it"),
        ([], "/undo\n", "/undo: nothing has been said yet"),
        ([], "/retry\n", "/retry: nothing has been asked yet"),
        ([], "/save\n", "/save FILE: name the file"),
        ([], "/save /nowhere/at/all\n", "cannot write /nowhere/at/all"),
        (["--sampler", "eb"], "a\n", "a talk has one model and one sampler at one pace"),
        (["--trace", "full"], "a\n", "--trace does not apply to a talk"),
        (["--no-chat", "--system", "b"], "a\n", "--system belongs to a chat, and "),
        (["--no-chat"], "/system b\n", "is asked in plain text, without a chat"),
    ],
)
def test_what_is_refused_is_one_line(checkpoint, flags, typed, said):
    done = talk(checkpoint, typed, *flags)
    assert isinstance(done.exception, MdmError) and said in str(done.exception)


def test_in_plain_text_each_question_stands_by_itself(tmp_path):
    first = save_bpe(tmp_path, ["<|end|>", "<|mask|>"], whole=True, eos_token="<|end|>")
    model = str(save(tmp_path, "dream", eos_token_id=first, mask_token_id=first + 1, vocab_size=288))
    plain, _ = turns(model, "hello\nhello\n", "--no-chat")
    assert plain[0]["text"] == plain[1]["text"] and plain[0]["prompt_style"] == "raw"


def test_a_model_that_cannot_be_talked_to():
    toy = toy_model()
    plain = Model(toy.spec, toy.body, toy.lm_head, toy.tokenizer, name="plain")
    with pytest.raises(MdmError) as caught:
        check_style(plain, "chat", None)
    assert str(caught.value).startswith("plain cannot be asked in a chat (plain has no chat template")
    assert str(caught.value).endswith("mdm chat --no-chat and mdm generate --no-chat take plain text")
    check_style(plain, "compact", None)
    reader = Model(replace(toy.spec, attention="causal"), toy.body, toy.lm_head, toy.tokenizer, name="reader")
    with pytest.raises(MdmError, match="reader is autoregressive: `mdm chat` is for diffusion models"):
        check_style(reader, "compact", None)


def test_help_names_all_that_there_is(checkpoint):
    done = talk(checkpoint, "/help\n")
    assert done.stdout == "" and all(usage in done.stderr for usage in COMMANDS)
    assert max(map(len, HELP.splitlines())) <= 112


def test_a_watched_talk_in_a_log_has_a_line_a_step(checkpoint):
    done = talk(checkpoint, "hello\n", "--live")
    assert len(re.findall(r"^confidence #1 step \d, commit: ", done.stderr, re.M)) == 6


def test_the_canvas_of_an_answer_dissolves_without_its_question():
    model = toy_model()
    layout, _ = Talk(model, "chat", turns=[("a", "b")]).lay_out("hello", 8)
    assert layout.tokens == model.encode_chat(
        [Message("user", "a"), Message("assistant", "b"), Message("user", "hello")]
    )
    view = LiveAnswer(model, layout, Console(width=40, height=10, force_terminal=True))
    assert view.render().plain == "░" * 8
    shown = []
    for step in mdm.steps(model, [layout], "info-gain", trace="full"):
        view.on_step(StepEvent(step.lines))
        shown.append(view.render().plain)
    assert all("user" not in text and "hello" not in text for text in shown)
    masks = [text.count("░") + text.count("▒") for text in shown]
    assert masks[-1] == 0 and all(one > other for one, other in pairwise(masks))


class Terminal:
    """A process at a pseudo-terminal."""

    def __init__(self, *args):
        import pty

        self.fd, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "HF_HUB_OFFLINE": "1"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mdm", *args], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text):
        """What is shown up to ``text``, without colours."""
        end = time.monotonic() + 120
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            try:
                new = os.read(self.fd, 4096)
            except OSError:  # the other end is closed
                new = b""
            assert new, self.seen
            self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", new.decode(errors="replace"))
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """The exit code."""
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass
        os.close(self.fd)
        return self.process.wait(60)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_at_a_terminal_ctrl_c_stops_the_answer_and_the_talk_goes_on():
    terminal = Terminal("chat", "--model", "tiny", "--gen-length", "24")
    try:
        assert "<mdm model 'tiny': family llada, 870k parameters" in terminal.until("each line is continued by itself")
        terminal.until("> ")
        terminal.type("/set gen_length=240\n")
        terminal.until("gen_length=240")
        terminal.until("> ")
        terminal.type("82,59:\n")
        terminal.until("░░░░")
        terminal.process.send_signal(signal.SIGINT)
        assert "tokens/s" not in terminal.until("stopped: the question is forgotten; /retry asks it again")
        terminal.until("> ")
        terminal.type("/set gen_length=24\n/rest\n")
        terminal.until("there is no command /rest. Did you mean '/reset'? /help lists them")
        terminal.type("/retry\n")
        answer = terminal.until(" tokens, ")
        assert re.search(r"82-\d+=\d+", answer) and "░" in answer
        terminal.until(" tokens/s, 24 forwards")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
