"""Fuzzed configurations, checkpoints and replies of judges: read, or refused in one line.

The corpus beside it holds what is changed, and what once went wrong (``found-…``); a text that fails is added to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mdm
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from mdm.errors import printable
from mdm.runs.config import RunConfig, build, to_yaml
from mdm_writing.endpoint import Endpoint
from mdm_writing.judging import Judgement
from mdm_writing.questions import Question
from tiny_families import save

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("MDM_FUZZ_EXAMPLES", 0))
"""How many texts of each kind, drawn at random; by default a few hundred, the same ones each time."""
TOKENS = [
    "", " ", "\n", ",", ":", "[", "]", "{", "}", '"', "'", "null", "~", "true", "NaN", ".nan", "-1", "0", "1e999",
    "9" * 30,     "&a ", "*a", "<<: ", "!!str ", "- ", "? ", "| ", "%",
    "\t", "\\ud800", "\x00", "\xa0", "é", "#", "---", "@", "[[", "{{", "\ufeff",
]  # fmt: skip


def corpus(kind: str) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((CORPUS / kind).iterdir())]


@st.composite
def changed(draw: st.DrawFn, kind: str) -> str:
    """A text of the corpus with a few parts left out, doubled, moved, or replaced by something else."""
    texts = corpus(kind)
    text = draw(st.sampled_from(texts))
    words = st.sampled_from(TOKENS) | st.sampled_from(texts).flatmap(lambda t: st.sampled_from(t.split()))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 12)))
        part = draw(words | st.text(max_size=3) | st.just(text[start:stop] * 2))
        text = text[:start] + part + text[stop:]
    return text


def held(kind: str, text: str, read: Callable[[str], object]) -> None:
    """``read`` takes the text, or refuses it in one line."""
    try:
        read(text)
    except mdm.MdmError as error:
        if "\n" not in str(error) and len(str(error)) < 2000:
            return
        keep(kind, text)
        raise AssertionError(str(error)) from error
    except BaseException:
        keep(kind, text)
        raise


def keep(kind: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    (CORPUS / kind / f"found-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def read_configuration(folder: Path) -> Callable[[str], object]:
    def read(text: str) -> None:
        path = folder / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        config = build(RunConfig, path)
        path.write_text(to_yaml(config), encoding="utf-8")
        assert build(RunConfig, path) == config

    return read


def read_checkpoint(folder: Path, name: str) -> Callable[[str], object]:
    def read(text: str) -> None:
        for left in folder.glob("*.json"):
            left.unlink()
        shutil.copy(CORPUS / "checkpoint" / "llada.json", folder / "config.json")
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        mdm.load_model(folder, device="cpu")

    return read


@pytest.mark.attack("yaml: fuzzed configurations")
def test_configurations(tmp_path, record_property):
    read, trials = read_configuration(tmp_path), []

    @fuzz(1200)
    @given(changed("configuration"))
    def run(text: str) -> None:
        trials.append(held("configuration", text, read))

    run()
    record_property("trials", len(trials))


@pytest.mark.attack("checkpoints: fuzzed JSON")
@pytest.mark.parametrize(
    ("name", "examples"), [("config.json", 700), ("generation_config.json", 150), ("model.safetensors.index.json", 150)]
)
def test_checkpoints(name, examples, tmp_path, record_property):
    folder = save(tmp_path / "checkpoint", "llada")
    if "index" in name:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    read, trials = read_checkpoint(folder, name), []

    @fuzz(examples)
    @given(changed("checkpoint"))
    def run(text: str) -> None:
        trials.append(held("checkpoint", text, read))

    run()
    record_property("trials", len(trials))


def read_reply() -> Callable[[str], object]:
    endpoint = Endpoint("m", "http://127.0.0.1:9")
    questions = [Question(("e", 0), "a", "b", "Which?"), Question(("e", 0), "a", None, "How good?")]

    def read(text: str) -> None:
        answer = endpoint._read(text.encode("utf-8", "surrogatepass"))
        for question in questions:
            judgement = Judgement.of("k", question, answer)
            assert question.allows(judgement.verdict)
            assert Judgement.model_validate_json(judgement.model_dump_json()) == judgement
            assert printable(judgement.answer) == judgement.answer

    return read


@pytest.mark.attack("judge: fuzzed replies")
def test_replies(record_property):
    read, trials = read_reply(), []

    @fuzz(800)
    @given(changed("judge"))
    def run(text: str) -> None:
        trials.append(held("judge", text, read))

    run()
    record_property("trials", len(trials))


@pytest.mark.attack("judge: fuzzed replies")
@pytest.mark.parametrize("path", sorted((CORPUS / "judge").iterdir()), ids=lambda path: path.name)
def test_the_corpus_of_replies(path):
    held("judge", path.read_text(encoding="utf-8"), read_reply())


@pytest.mark.attack("yaml: fuzzed configurations")
@pytest.mark.parametrize("path", sorted((CORPUS / "configuration").iterdir()), ids=lambda path: path.name)
def test_the_corpus_of_configurations(path, tmp_path):
    held("configuration", path.read_text(encoding="utf-8"), read_configuration(tmp_path))


@pytest.mark.attack("checkpoints: fuzzed JSON")
@pytest.mark.parametrize("path", sorted((CORPUS / "checkpoint").iterdir()), ids=lambda path: path.name)
def test_the_corpus_of_checkpoints(path, tmp_path):
    folder = save(tmp_path / "checkpoint", "llada")
    held("checkpoint", path.read_text(encoding="utf-8"), read_checkpoint(folder, "config.json"))
