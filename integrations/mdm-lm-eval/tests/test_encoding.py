"""lm-eval's texts as ids: pairs whose tokens merge, special tokens in what users wrote, the chat template's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mdm
import pytest
import torch
from mdm_lm_eval.encoding import Encoder
from mdm_lm_eval.likelihood import log_likelihoods
from safetensors.torch import load_file, save_file
from tiny_families import save, save_bpe

SPECIAL = ["<|endoftext|>", "<|mdm_mask|>", "<|eot_id|>", "<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>"]
TURN = "<|eot_id|>"
needs_lm_eval = pytest.mark.skipif(
    not any(dist.name == "lm_eval" for dist in metadata.distributions()),
    reason="lm-eval is not installed (tox -e lm-eval has it)",
)


def checkpoint(folder: Path, family: str = "llada", **config) -> Path:
    """A random checkpoint whose tokenizer merges he, ll, hell, hello."""
    folder.mkdir(parents=True)
    first = save_bpe(folder, SPECIAL, whole=True, eos_token=TURN, **config)
    return save(
        folder,
        family,
        vocab_size=288,
        embedding_size=288,
        eos_token_id=first,
        mask_token_id=first + 1,
        pad_token_id=first,
    )


def sure_of(folder: Path, chances: dict[str, float]) -> Path:
    """A checkpoint that gives each masked position these chances, whatever it sees, and all other tokens the rest."""
    path = checkpoint(folder) / "model.safetensors"
    model = mdm.load_model(folder, device="cpu")
    weights = load_file(path)
    for name, weight in weights.items():
        if "attn_out" in name or name.endswith("blocks.0.ff_out.weight") or name.endswith("blocks.1.ff_out.weight"):
            weight.zero_()
    table, head = weights["model.transformer.wte.weight"], weights["model.transformer.ff_out.weight"]
    table.zero_()
    table[:, 0] = 1.0
    head.zero_()
    scale = weights["model.transformer.ln_f.weight"][0] * table.shape[1] ** 0.5  # the first hidden number, normed
    least = (1 - sum(chances.values())) / (len(head) - len(chances) - 1)
    head[:, 0] = torch.tensor(least).log() / scale
    for text, chance in chances.items():
        [token] = model.encode(text)
        head[token, 0] = torch.tensor(chance).log() / scale
    save_file(weights, path, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(checkpoint(tmp_path_factory.mktemp("lm") / "llada"), device="cpu")


def split(model, *pairs):
    """The texts of each pair's prefix and target."""
    text = lambda ids: "".join(model.token_texts(ids))  # noqa: E731
    return [(text(answer.prefix), text(answer.target)) for answer in Encoder(model).answers(pairs)]


@pytest.mark.parametrize(
    ("context", "continuation", "prefix", "target"),
    [
        ("It is", " hello", "It is", " hello"),
        ("It is ", "hello", "It is", " hello"),
        ("It is\n\n", "hello", "It is", "\n\nhello"),
        ("", "hello", "", "hello"),
        ("  ", "hello", "", "  hello"),
        ("say hell", "o", "say ", "hello"),
        ("h", "ello", "", "hello"),
        ("hell", "o there", "", "hello there"),
        ("what is <|mdm_mask|>", "?", "what is <|mdm_mask|>", "?"),
        ("a [MASK] b", " c", "a [MASK] b", " c"),
        (f"a{TURN}", f"b{TURN}", f"a{TURN}", f"b{TURN}"),
        ("hello", "", "hello", ""),
    ],
)
def test_a_pair(model, context, continuation, prefix, target):
    assert split(model, (context, continuation)) == [(prefix, target)]
    [answer] = Encoder(model).answers([(context, continuation)])
    assert not set(range(260, 266)) & {*answer.prefix, *answer.target}  # what a text names is text


def test_a_pair_is_encoded_as_lm_evals_own_models_do(model):
    """Where no token reaches across: whole ids, of which the context's are taken off."""
    for context, continuation in [("hello 12", " 34"), ("q: x\na:", " hello"), ("a b ", "c"), ("hello", "hello")]:
        kept = context.rstrip()
        whole, before = (model.tokenizer.encode(t, add_special_tokens=False) for t in (context + continuation, kept))
        [answer] = Encoder(model).answers([(context, continuation)])
        assert [*answer.prefix, *answer.target] == whole and list(answer.target) == whole[len(before) :]


def test_answers_to_one_context_are_scored_over_the_same_text(model):
    pairs = [("say hell", "o"), ("say hell", " x"), ("say hell", "!"), ("say", " hell")]
    assert split(model, *pairs) == [("say ", "hello"), ("say ", "hell x"), ("say ", "hell!"), ("say", " hell")]
    assert split(model, *pairs[1:2]) == [("say hell", " x")]


MERGED = [
    ({"hello": 0.3, "hell": 0.01, "x": 0.5, "o": 0.01}, "o"),
    ({"hello": 0.05, "hell": 0.5, "x": 0.4, "o": 0.01}, "x"),
    ({"hello": 0.01, "hell": 0.3, "x": 0.02, "o": 0.5}, "o"),
    ({"hello": 0.001, "hell": 0.3, "x": 0.02, "o": 0.5}, "x"),
]


@pytest.mark.parametrize(("chances", "right"), MERGED)
def test_the_right_answer_wins_where_a_token_reaches_into_it(tmp_path, chances, right):
    """Both texts as the model would write them: hello, or hell and then x."""
    model = mdm.load_model(sure_of(tmp_path / "llada", chances), device="cpu")
    answers = Encoder(model).answers([("say hell", "o"), ("say hell", "x")])
    values = log_likelihoods(model, answers, draws=4096)
    expected = [chances["hello"], chances["hell"] * chances["x"]]
    assert values == pytest.approx([float(torch.tensor(e).log()) for e in expected], abs=0.1)
    assert (values[0] > values[1]) == (right == "o")


CHAT = [{"role": "user", "content": "hello"}]


def test_a_chat_templates_tokens_are_tokens_and_its_contents_are_text(model):
    encoder = Encoder(model)
    plain = encoder.context("<|start_header_id|>")
    assert model.tokenizer.decode(plain) == "<|start_header_id|>" and len(plain) > 1
    text = encoder.chat(CHAT, add_generation_prompt=True)
    assert encoder.context(text) == model.tokenizer.encode(text, add_special_tokens=False)
    named = encoder.chat([{"role": "user", "content": f"hi{TURN}"}], add_generation_prompt=True)
    ids = encoder.context(named)
    assert model.tokenizer.decode(ids) == named and ids.count(262) == 1
    [answer] = encoder.answers([(named + " yes", f" no{TURN}")])
    assert answer.prefix[: len(ids) - 2] == tuple(ids[:-2]) and 262 not in answer.target


def test_an_open_turn_is_left_open(model):
    text = Encoder(model).chat([*CHAT, {"role": "assistant", "content": "It is"}], add_generation_prompt=False)
    assert text.endswith("It is")


def test_named_templates(tmp_path):
    named = {"chat_template": [{"name": "default", "template": "d"}, {"name": "short", "template": "s"}]}
    model = mdm.load_model(checkpoint(tmp_path / "llada", **named), device="cpu")
    encoder = Encoder(model)
    assert (encoder.template(True), encoder.chat(CHAT, add_generation_prompt=True)) == ("d", "d")
    assert (encoder.template("short"), encoder.chat(CHAT, add_generation_prompt=True)) == ("s", "s")
    with pytest.raises(mdm.MdmError, match="there is no chat template 'long': the checkpoint has default, short"):
        encoder.template("long")


def lm_eval(folder: Path, task: dict, data: list[dict], *more: str) -> subprocess.CompletedProcess:
    """lm-eval's own command line on a local task."""
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    task = {
        "task": "local", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}},
        "test_split": "test", "metadata": {"version": 1}, **task,
    }  # fmt: skip
    (folder / "local.yaml").write_text(json.dumps(task))
    command = [
        sys.executable, "-m", "mdm_lm_eval", "--model", "mdm", "--tasks", "local", "--include_path", str(folder),
        "--output_path", str(folder / "out"), *more,
    ]  # fmt: skip
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@needs_lm_eval
def test_choices_that_merge_with_their_context_through_lm_evals_command_line(tmp_path):
    chances, _ = MERGED[0]
    folder = sure_of(tmp_path / "llada", chances)
    task = {
        "output_type": "multiple_choice", "doc_to_text": "{{context}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "label", "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    data = [
        {"context": "say hell", "choices": ["x", "o", "xx"], "label": 1},
        {"context": "hell", "choices": ["o", "q"], "label": 0},
        {"context": "he", "choices": ["p", "llo", "x"], "label": 1},
        {"context": "say hello ", "choices": ["o", "x"], "label": 1},
    ]
    done = lm_eval(tmp_path, task, data, "--model_args", f"pretrained={folder},draws=8,sampler=confidence")
    assert done.returncode == 0, done.stderr
    [path] = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(path.read_text())["results"]["local"]["acc,none"] == 1


@needs_lm_eval
def test_a_template_that_raises_is_one_line_in_lm_eval(tmp_path):
    folder = checkpoint(tmp_path / "llada", chat_template="{{ raise_exception('no system turn') }}")
    task = {
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "",
        "generation_kwargs": {"until": []},
    }
    done = lm_eval(tmp_path, task, [{"q": "hi"}], "--model_args", f"pretrained={folder}", "--apply_chat_template")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"mdm: {folder}'s chat template cannot be applied")
