"""``mdm clip-score`` on a tiny random CLIP."""

from __future__ import annotations

import json
import shutil

import numpy as np
import picture_runs
import pytest
import torch
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError, MdmWarning
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PART = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROMPTS = ["a cat", "a dog", "two birds", "a dog"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    end = len(words) - 1
    text = {**PART, "vocab_size": len(words), "eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**PART, "image_size": 16, "patch_size": 8}, projection_dim=8)
    )
    model.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)  # fmt: skip
    return folder


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 24, 16, 3), dtype=np.uint8)


def make_run(folder, prompts, samplers=("one",), failed=()):
    images = [None if i in failed else picture for i, picture in enumerate(pictures(len(prompts)))]
    return picture_runs.make(folder, images, prompts, samplers=samplers)


def run(*arguments):
    done = CliRunner().invoke(cli, ["clip-score", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def by_hand(clip, prompts):
    """One picture and its prompt at a time, by transformers' own features."""
    model, tokenizer = CLIPModel.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    scores = []
    for picture, prompt in zip(pictures(len(prompts)), prompts, strict=True):
        tokens = tokenizer(prompt, truncation=True, max_length=77, return_tensors="pt")
        pixels = processor(Image.fromarray(picture), return_tensors="pt")
        with torch.inference_mode():
            image, text = model.get_image_features(**pixels), model.get_text_features(**tokens)
        scores.append(float(torch.cosine_similarity(image.pooler_output, text.pooler_output)))
    return scores


@pytest.mark.filterwarnings("ignore:.*examples have no picture:mdm.errors.MdmWarning")
def test_each_picture_with_its_prompt_whatever_the_batch(clip, tmp_path):
    folder = make_run(tmp_path / "run", PROMPTS, samplers=("one", "two"), failed=[2])
    expected = by_hand(clip, PROMPTS)
    del expected[2]
    with pytest.warns(MdmWarning, match="run/one: 1 examples have no picture"):
        first, second = json.loads(run(folder, "--clip", clip, "--batch-size", 2, "--json"))
    assert [example["id"] for example in first["examples"]] == ["p0", "p1", "p3"]
    assert [example["clip_score"] for example in first["examples"]] == pytest.approx(expected, abs=1e-6)
    assert first["clip_score"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert (first["label"], second["label"], first["pictures"], first["failed"]) == ("run/one", "run/two", 3, 1)
    assert len(set(expected)) == 3
    table = run(folder / "one", "--clip", clip)
    assert f"{first['clip_score']:.4f}" in table and str(clip) in table


def test_a_long_prompt_is_cut_at_77_tokens_and_said(clip, tmp_path):
    long = "x" * 75
    folder = make_run(tmp_path / "run", [long, long + "yz", "a"])
    with pytest.warns(MdmWarning, match="run: 1 prompts have more than 77 tokens"):
        [record] = json.loads(run(folder, "--clip", clip, "--json"))
    expected = by_hand(clip, [long, long + "yz", "a"])
    assert [example["clip_score"] for example in record["examples"]] == pytest.approx(expected, abs=1e-6)


def test_what_is_refused(clip, tmp_path):
    def refused(message, *arguments):
        with pytest.raises(MdmError, match=message) as caught:
            cli.main(["clip-score", *map(str, arguments)], standalone_mode=False)
        assert "\n" not in str(caught.value)

    folder = make_run(tmp_path / "run", ["a cat"])
    refused("images is no run, so nothing says what its pictures should show", folder / "images", "--clip", clip)
    refused("'absent'.*no such folder", folder, "--clip", "absent")
    refused("device 'cuda:99'|no usable CUDA", folder, "--clip", clip, "--device", "cuda:99")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    refused("other is a checkpoint of 'llama', and no CLIP", folder, "--clip", other)
    (other / "config.json").write_text((clip / "config.json").read_text())
    (other / "pytorch_model.bin").touch()
    refused("has its weights in pytorch_model.bin, a pickle", folder, "--clip", other)
    (other / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes())
    refused("has no preprocessor_config.json, which says how it looks", folder, "--clip", other)
    (other / "preprocessor_config.json").write_text("{")
    refused("other has no tokenizer", folder, "--clip", other)
    (other / "tokenizer.json").write_text((clip / "tokenizer.json").read_text())
    refused("preprocessor_config.json cannot be read", folder, "--clip", other)
    (other / "preprocessor_config.json").write_text((clip / "preprocessor_config.json").read_text())
    weights = load_file(clip / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    refused("has no weight text_projection.weight", folder, "--clip", other)


def test_weights_of_earlier_versions_hold_positions(clip, tmp_path):
    shutil.copytree(clip, tmp_path / "old")
    weights = load_file(clip / "model.safetensors")
    save_file(
        weights | {"vision_model.embeddings.position_ids": torch.arange(5)[None]},
        tmp_path / "old" / "model.safetensors", {"format": "pt"},
    )  # fmt: skip
    folder = make_run(tmp_path / "run", ["a cat"])
    [[new], [old]] = (json.loads(run(folder, "--clip", path, "--json")) for path in (clip, tmp_path / "old"))
    assert new["examples"] == [
        example | {"clip_score": pytest.approx(example["clip_score"])} for example in old["examples"]
    ]
