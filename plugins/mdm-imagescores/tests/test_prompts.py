"""The task `prompts`: which prompts a file gives, and what is refused."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest
from mdm.errors import MdmError
from mdm.protocols import Prompt
from mdm.protocols.options import check_options
from mdm_imagescores.prompts import Prompts, PromptsOptions


def task(**options):
    return Prompts(check_options("prompts", PromptsOptions, options))


def examples(path, **options):
    return [(e.id, e.inputs["prompt"]) for e in task(**options).examples(seed=0, data=path)]


def test_lines_of_a_text(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufefftench\r\n\n  goldfish \ntench\nMäusebussard {x}".encode())
    assert examples(path, template="a photo of a {}") == [
        ("prompt-labels-1", "a photo of a tench"), ("prompt-labels-3", "a photo of a goldfish"),
        ("prompt-labels-4", "a photo of a tench"), ("prompt-labels-5", "a photo of a Mäusebussard {x}"),
    ]  # fmt: skip
    with gzip.open(tmp_path / "labels.txt.gz", "wb") as packed:
        packed.write(path.read_bytes())
    assert examples(tmp_path / "labels.txt.gz") == examples(path)


def test_json_lines_and_csv(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": " a cat ", "tag": "x"}\n\n{"prompt": "a dog"}\n')
    assert examples(tmp_path / "p.jsonl") == [("prompt-p-1", "a cat"), ("prompt-p-3", "a dog")]
    (tmp_path / "p.csv").write_text("n,label\n1,cat\n2,dog\n")
    assert [text for _, text in examples(tmp_path / "p.csv", key="label", template="a {}")] == ["a cat", "a dog"]


def test_a_picture_is_asked_for_and_not_graded(tmp_path):
    (tmp_path / "p.txt").write_text("a red cube")
    asked = task()
    [example] = asked.examples(seed=0, data=tmp_path / "p.txt")
    assert asked.prompt(example, "chat") == asked.prompt(example, "compact") == Prompt("a red cube", kind="image")
    assert asked.answers == "image" and asked.grade_image(example, tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.txt", b"fine\n" + b"x" * 2001, {}, "p.txt, line 2: more than 2,000 characters"),
        ("p.txt", b"x" * 10**6, {}, "p.txt, line 1: more than 2,000 characters"),
        ("p.txt", b"fine\n\xe4h\n", {}, r"p.txt, line 2: not UTF-8 \(invalid continuation byte\): save it as UTF-8"),
        ("p.txt", b"\n \n", {}, "p.txt holds no prompt"),
        ("p.txt", b"", {}, "p.txt holds no prompt"),
        ("p.txt", b"a cat", {"key": "label"}, "option prompts.key=label is of JSON lines, and .*p.txt is plain text"),
        ("p.txt.gz", b"a cat", {}, "p.txt.gz cannot be read: Not a gzipped file"),
        ("p.jsonl", b'{"label": "x"}', {}, "p.jsonl, line 1: prompt is missing"),
        ("p.jsonl", b'{"prompt": "x"}\n{"prompt": " "}', {}, "p.jsonl, line 2: prompt=: .*at least 1 character"),
        ("p.jsonl", b'{"prompt": "%s"}' % (b"x" * 2001), {}, "line 1: prompt=x.*at most 2000 characters"),
        ("p.jsonl", b"a cat", {}, "line 1: not JSON"),
    ],
)
def test_a_bad_file_is_one_line(name, content, options, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MdmError, match=message):
        examples(tmp_path / name, **options)


def test_no_file_and_bad_templates(tmp_path):
    with pytest.raises(MdmError, match="the task prompts draws what a file says: give --data FILE"):
        examples(None)
    with pytest.raises(MdmError, match="absent.txt: there is no such data file"):
        examples(tmp_path / "absent.txt")
    for template in ("a photo", "{} and {}"):
        with pytest.raises(MdmError, match="option prompts.template=.* should hold {} exactly once"):
            task(template=template)


def test_the_task_and_the_commands_help_import_no_torch():
    code = "import mdm_imagescores.prompts, mdm_imagescores.fid_command, mdm_imagescores.clip_command, sys; "
    subprocess.run([sys.executable, "-c", code + "assert not {'torch', 'scipy', 'PIL'} & set(sys.modules)"], check=True)
