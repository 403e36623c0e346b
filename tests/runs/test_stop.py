"""Where a run's completions end: at the task's own texts, the configuration's and the end tokens."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from mdm import registry
from mdm.cli import cli
from mdm.protocols import Example, Message, Prompt
from mdm.runs.config import DecodeConfig
from mdm.runs.decode_args import completion
from mdm_testing.toy import EOS, MASK, toy_model


@pytest.mark.parametrize(
    ("answer", "written", "stop", "asked", "text"),
    [
        ("", "18\n\nQuestion: 2", ("Question:",), [], "18\n\n"),
        ("", "18\n\nQuestion: 2", (), [], "18\n\nQuestion: 2"),
        ("", "18\n\nQuestion: 2", (), ["\n\n"], "18"),
        ("", "18\n\nQuestion: 2", ("Question:",), ["8"], "1"),
        ("", "Question: 2", ("Question:",), [], ""),
        ("```\n", "x\n```\ny", ("```",), [], "```\nx\n"),
        ("a```[MASK]", "", ("```",), [], "a```b"),  # what was given ends nothing
        ("", "question: 2", ("Question:",), [], "question: 2"),
    ],
)
def test_a_completion(answer, written, stop, asked, text):
    model, prompt = toy_model(), Prompt("Question: 1\nAnswer: ", answer, 8, stop)
    layout = model.lay_out(prompt)
    ids, context = layout.tokens, layout.context
    [b] = model.encode("b")
    sequence = [b if i == MASK else i for i in ids] + model.encode(written)
    assert completion(DecodeConfig(stop=asked), model, sequence, layout, prompt.stop) == text
    ended = [*sequence[: context + 1], EOS, *sequence[context + 1 :]]
    assert completion(DecodeConfig(), model, ended, layout) == model.decode(sequence[context : context + 1])


def test_what_a_context_names_makes_no_hole():
    model = toy_model()
    for context in ("what is [MASK]?", (Message("user", "what is [MASK]?"),)):
        ids = model.lay_out(Prompt(context, "", 4)).tokens
        assert MASK not in ids and "[MASK]" in model.tokenizer.decode(ids)


def test_tasks_of_questions_end_at_the_next_one():
    inputs = {"question": "1 + 1?", "answer": "2", "choices": ["a", "b", "c", "d"]}
    for name in ("gsm8k", "math500", "gpqa"):
        plugin = registry.resolve("task", name)
        task = plugin(plugin.Options())
        compact, chat = (task.prompt(Example("x", inputs, "2"), style) for style in ("compact", "chat"))
        assert (compact.stop, chat.stop) == (("Question:",), ())


def test_generate_stops_where_it_is_told():
    def text(*flags: str) -> str:
        command = ["generate", "--no-chat", "12+30=", "--gen-length", "2", "--sampler", "confidence", *flags]
        return CliRunner().invoke(cli, command).stdout.rstrip("\n")

    first, second = text()
    assert text("--stop", second) == first == text("--stop", "x", "--stop", second) and text("--stop", first) == ""
