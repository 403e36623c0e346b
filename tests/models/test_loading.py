"""A checkpoint that cannot be used is refused in one line, by its culprit."""

from __future__ import annotations

import json
import shutil

import mdm
import mdm_tiny
import pytest
import torch
from mdm.cli import main
from mdm.models import attention, placement
from safetensors.torch import load_file, save_file
from tiny_families import MASK, save, save_bpe, save_causal


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(mdm_tiny.checkpoint(), folder, ignore=shutil.ignore_patterns("training"))
    return folder


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """The one line that a command ends with; it leaves no file."""
    monkeypatch.chdir(tmp_path)

    def ask(folder, *args: str, command: str = "generate") -> str:
        before = sorted(tmp_path.iterdir())
        capfd.readouterr()
        words = ["generate", "1+1="] if command == "generate" else ["run", "--limit", "1", "--out", "out"]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--model", str(folder), *args])
        out, err = capfd.readouterr()
        assert ended.value.code == 2 and out == "", (out, err)
        lines = [line for line in err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("mdm: "), err
        assert sorted(tmp_path.iterdir()) == before
        return lines[0]

    return ask


def configure(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_truncated_weights(refused, checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "model.safetensors is damaged or incomplete" in refused(checkpoint)


def test_another_architecture(refused, checkpoint):
    configure(checkpoint, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    assert "gpt2" in refused(checkpoint)


def test_a_config_key_that_selects_other_code(refused, checkpoint):
    configure(checkpoint, alibi=True)
    assert "'alibi'" in refused(checkpoint)


def test_a_config_without_a_needed_key(refused, checkpoint):
    configure(checkpoint, n_heads=None)
    assert "n_heads" in refused(checkpoint)


def test_a_weight_of_the_wrong_shape(refused, checkpoint):
    configure(checkpoint, mlp_hidden_size=256)
    assert "wrong shape" in refused(checkpoint)


@pytest.mark.parametrize(("change", "word"), [("drop", "no weight"), ("add", "surplus")])
def test_a_missing_or_surplus_weight(refused, checkpoint, change, word):
    weights = load_file(checkpoint / "model.safetensors")
    name = "model.transformer.blocks.1.q_proj.weight"
    if change == "drop":
        del weights[name]
    else:
        weights["model.transformer.blocks.9.q_proj.weight"] = weights[name].clone()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert word in refused(checkpoint)


def test_pickled_weights(refused, checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "pickle" in refused(checkpoint)


def test_no_such_model(refused, tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")


def shards(folder, size="20KB"):
    """The checkpoint again, in several files of at most ``size``."""
    from transformers import LlamaForCausalLM

    target = folder.parent / "shards"
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(target, max_shard_size=size)
    return target, sorted(target.glob("*.safetensors"))


@pytest.fixture
def sharded(tmp_path):
    """An autoregressive Llama in several files, and the same in one."""
    whole = save_causal(tmp_path / "whole")
    folder, files = shards(whole)
    assert len(files) > 2 and not (folder / "model.safetensors").exists()
    return folder, whole


def test_a_sharded_checkpoint_is_the_same_model(sharded):
    folder, whole = sharded
    canvas = torch.tensor([[5, 9, 11, 3]])
    logits = [mdm.load_model(f, device="cpu", dtype="float32").score_logits(canvas) for f in (folder, whole)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_shards_under_the_familys_own_names(tmp_path, family):
    """The weights of a published layout, split in two with an index as the hub has it."""
    whole = save(tmp_path / "whole", family)
    folder = tmp_path / "parts"
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    weights = load_file(whole / "model.safetensors")
    names, index = sorted(weights), {}
    for part, mine in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in mine}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    canvas = torch.tensor([[5, 9, MASK, 3]])
    logits = [mdm.load_model(f, device="cpu", dtype="float32").score_logits(canvas) for f in (folder, whole)]
    assert torch.equal(*logits)


def test_a_missing_shard(refused, sharded):
    folder, _ = sharded
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    assert f"{gone.name} is missing, a shard that model.safetensors.index.json names" in refused(folder)


def test_a_truncated_shard(refused, sharded):
    folder, _ = sharded
    cut = sorted(folder.glob("*.safetensors"))[1]
    cut.write_bytes(cut.read_bytes()[:-100])
    assert f"{cut.name} is damaged or incomplete" in refused(folder)


def test_a_broken_index(refused, sharded):
    folder, _ = sharded
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json cannot be read" in refused(folder)


@pytest.mark.parametrize("family", ["dream", "sdar"])
def test_a_sliding_window(refused, tmp_path, family):
    folder = save(tmp_path / "checkpoint", family, use_sliding_window=True)
    assert "config key 'use_sliding_window' is True" in refused(folder)


@pytest.mark.parametrize(("family", "whole"), [("llada", True), ("mmada", True), ("sdar", True), ("dream", False)])
def test_a_tokenizer_without_the_mask_token(refused, tmp_path, family, whole):
    """The id that config.json names lies behind the last token of the tokenizer."""
    folder = save(tmp_path / "checkpoint", family, vocab_size=320, embedding_size=320, mask_token_id=300)
    first = save_bpe(folder, ["<|endoftext|>"], whole=whole)
    assert f"the mask token is 300, and the tokenizer has no token of that id (it has {first + 1})" in refused(folder)


def test_a_tokenizer_that_should_name_the_mask_and_does_not(refused, tmp_path):
    folder = save(tmp_path / "checkpoint", "sdar", mask_token_id=None)
    save_bpe(folder, ["<|endoftext|>"], whole=True)
    assert "neither config.json's 'mask_token_id' nor a token <|MASK|> names the mask" in refused(folder)


@pytest.mark.parametrize("family", ["llada", "dream", "sdar", "mmada"])
def test_a_mask_token_that_the_network_does_not_have(refused, tmp_path, family):
    folder = save(tmp_path / "checkpoint", family, mask_token_id=1000)
    assert "the mask token is 1000, and the network has" in refused(folder)


no_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")


@no_gpu
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "cuda"], "no usable CUDA GPU: use --device cpu"),
        (["--device", "cuda:1"], "no usable CUDA GPU: use --device cpu"),
        (["--device", "mps"], "device 'mps' is not available"),
        (["--device", "gpu"], "device 'gpu' is unknown: use auto, cpu, cuda, cuda:N or mps"),
        (["--device", "meta"], "device 'meta' is unknown"),
        (["--device-map", "auto", "--device", "cpu"], "give one of them"),
        (["--device-map", "some"], "'some' is not one of 'auto', 'balanced', 'balanced_low_0', 'sequential'"),
        (["--quantization", "int3"], "'int3' is not one of 'bnb-4bit', 'bnb-8bit', 'torchao-int8', 'torchao-int4'"),
        (["--attn-implementation", "slow"], "attention 'slow' is unknown: use one of eager, sdpa"),
        (["--attn-implementation", "flash_attention_2"], "needs a CUDA GPU, and the device is cpu: use sdpa or eager"),
        (["--dtype", "int8"], "'int8' is not one of 'auto', 'float32'"),
        (["--allowed-tokens", "10"], "allowed_tokens=10: expected A:B"),
        (["--allowed-tokens", "5:5"], "allowed_tokens 5:5: not a range of ids in the vocabulary of"),
        (["--allowed-tokens", "0:999999"], "allowed_tokens 0:999999: not a range"),
        (["--allowed-tokens", "5:6", "--suppressed-tokens", "5"], "nothing is left to generate"),
        (["--suppressed-tokens", "999999"], "token id 999999 is outside the vocabulary"),
        (["--suppressed-tokens", "-1"], "Invalid value for '--suppressed-tokens': -1 is not in the range x>=0"),
        (["--suppressed-tokens", "x"], "'x' is not a valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_had(refused, checkpoint, flags, said):
    assert said in refused(checkpoint, *flags)


@no_gpu
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "cuda"], "no usable CUDA GPU: use --device cpu"),
        (["--attn-implementation", "slow"], "attention 'slow' is unknown"),
        (["--suppressed-tokens", "999999"], "token id 999999 is outside the vocabulary"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_of_it_leaves_nothing(refused, checkpoint, flags, said):
    assert said in refused(checkpoint, *flags, command="run")


@pytest.mark.parametrize(("name", "library"), [("bnb-4bit", "bitsandbytes"), ("torchao-int8", "torchao")])
def test_quantization_without_its_library(refused, checkpoint, monkeypatch, name, library):
    monkeypatch.setattr(placement, "find_spec", lambda _: None)
    said = f"quantization '{name}' needs {library}, which is not installed: pip install {library}"
    assert said in refused(checkpoint, "--quantization", name)


def test_quantization_that_needs_a_gpu(refused, checkpoint, monkeypatch):
    monkeypatch.setattr(placement, "find_spec", lambda _: True)
    assert "needs a CUDA GPU, and the device is cpu" in refused(
        checkpoint, "--device", "cpu", "--quantization", "torchao-int4"
    )


def test_a_kernel_that_takes_no_mask(monkeypatch, tmp_path):
    monkeypatch.setattr(placement, "_attention", lambda name, device: name)
    with pytest.raises(mdm.MdmError, match="'flash_attention_2' takes no mask of a row's own"):
        mdm.load_model(save(tmp_path, "dream"), device="cpu", attn_implementation="flash_attention_2")


@pytest.mark.parametrize("library", ["torchao", "bitsandbytes"])
def test_quantized_weights_decode(tmp_path, library):
    pytest.importorskip(library, reason="an optional library")
    folder = save(tmp_path, "llada")
    plain = mdm.load_model(folder, device="cpu", dtype="float32")
    name = {"torchao": "torchao-int8", "bitsandbytes": "bnb-8bit"}[library]
    model = mdm.load_model(folder, device="cpu", dtype="float32", quantization=name)
    canvas = torch.tensor([[5, 9, MASK, 3]])
    off = (model.score_logits(canvas) - plain.score_logits(canvas)).abs().max()
    assert 0 < off < 2
    [result] = mdm.decode(model, [[5, 9, 3]], "info-gain", cache="none", gen_length=8)
    assert MASK not in result.tokens


@pytest.mark.parametrize("family", ["llada", "dream", "sdar", "mmada", "llada2"])
@pytest.mark.parametrize("asked", [{"attn_implementation": "eager"}, {"device_map": "auto"}], ids=str)
def test_another_way_to_the_same_logits(tmp_path, family, asked):
    folder = save(tmp_path, family)
    plain, other = (
        mdm.load_model(folder, dtype="float32", **more) for more in ({"device": "cpu"}, asked)
    )  # fmt: skip
    assert other.body.config._attn_implementation == asked.get("attn_implementation", attention.ATTENTION_NAME)
    canvas = torch.tensor([[5, 9, MASK, 3, 8, 250, 11]])
    torch.testing.assert_close(
        other.score_logits(canvas).cpu(), plain.score_logits(canvas), atol=1e-4, rtol=0
    )  # fmt: skip


def test_a_layer_that_waits_on_the_disk(tmp_path):
    """A mapping from modules to devices, as accelerate makes for a model larger than its memory."""
    folder = save(tmp_path / "checkpoint", "llada")
    layout = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    layout |= {"model.rotary_emb": "cpu", "lm_head": "disk"}
    model = mdm.load_model(folder, dtype="float32", device_map=layout, offload_folder=str(tmp_path / "offload"))
    plain = mdm.load_model(folder, device="cpu", dtype="float32")
    for cache in ("none", "dual"):
        results = [mdm.decode(m, [[5, 9, 3]], "info-gain", cache=cache, gen_length=8) for m in (model, plain)]
        assert results[0][0].trace == results[1][0].trace


def test_offline_asks_no_hub(refused, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, *, local_files_only, **_):
        asked.append(local_files_only)
        raise OSError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for command in ("generate", "run"):
        assert "the hub did not give it: not in the cache" in refused("some/model", "--offline", command=command)
    assert asked and all(asked)


def test_flags_reach_the_decoding(checkpoint, capfd):
    def tokens(*flags):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "generate",
                    "1+1=",
                    "--model",
                    str(checkpoint),
                    "--sampler",
                    "confidence",
                    "--gen-length",
                    "4",
                    "--json",
                    *flags,
                ]
            )
        assert ended.value.code == 0
        return json.loads(capfd.readouterr().out)["tokens"]

    kept = set(tokens("--allowed-tokens", "5:8", "--allowed-tokens", "20:22", "--suppressed-tokens", "6"))
    assert kept <= {5, 7, 20, 21}
    assert not kept & set(tokens(*(word for token in kept for word in ("--suppressed-tokens", str(token)))))


def test_a_run_is_the_same_offline_and_with_spans_from_a_file(checkpoint, tmp_path, capfd):
    """What ``config.yaml`` says of the new keys is read again, and ``--offline`` makes no other run of it."""
    out, file = tmp_path / "run", tmp_path / "run.yaml"
    file.write_text('allowed_tokens: ["5:20", [22, 24]]\nsuppressed_tokens: [7]\nattn_implementation: eager\n')
    command = ["run", "--model", str(checkpoint), "--limit", "1", "--sampler", "confidence", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--config", str(file)])
    assert ended.value.code == 0
    made = {token for line in (out / "trace.jsonl").open() for token in json.loads(line)["tokens"]}
    assert made and made <= {*range(5, 20), 22, 23} - {7}
    with pytest.raises(SystemExit) as again:
        main(["run", "--config", str(out / "config.yaml"), "--out", str(out), "--offline"])
    assert again.value.code == 0, capfd.readouterr().err


def test_every_weight_is_in_its_place(checkpoint):
    model = mdm.load_model(checkpoint, device="cpu")
    weights = load_file(checkpoint / "model.safetensors")
    assert model.lm_head.weight.equal(weights["model.transformer.ff_out.weight"])
    mlp = model.body.layers[2].mlp
    assert mlp.gate_proj.weight.equal(weights["model.transformer.blocks.2.ff_proj.weight"])
    assert mlp.down_proj.weight.equal(weights["model.transformer.blocks.2.ff_out.weight"])


def test_a_folder_called_like_a_named_checkpoint_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert mdm.load_model("tiny", device="cpu").spec.family == "llada"
    with pytest.raises(mdm.MdmError, match="no config.json"):
        mdm.load_model("./tiny", device="cpu")


def test_a_pattern_with_two_groups_is_refused(tmp_path):
    """transformers knows one, and would leave the second as it is written."""
    from mdm.models import load_network
    from mdm_sdar.layout import as_qwen
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = json.loads((save(tmp_path, "sdar") / "config.json").read_text())
    two = {r"^blocks\.(\d+)\.(gate|up)\.": r"model.layers.\1.mlp.\2_proj."}
    with pytest.raises(mdm.MdmError, match=r"key_mapping gives .* knows .1 alone"):
        load_network(
            Qwen3ForCausalLM, str(tmp_path), Qwen3Config(**as_qwen(config, "x")), device="cpu", dtype="float32",
            key_mapping=two,
        )  # fmt: skip


def test_a_tied_head_of_its_own_is_refused(tmp_path):
    """config.json says that the head is the embeddings, and the files hold another: which is meant cannot be known."""
    folder = save(tmp_path / "own", "dream", tie_word_embeddings=True)
    assert mdm.load_model(folder, device="cpu").spec.family == "dream"
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert mdm.load_model(folder, device="cpu").spec.family == "dream"
    weights["lm_head.weight"][3, 5] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(mdm.MdmError, match="'tie_word_embeddings' is True, and the head is another matrix"):
        mdm.load_model(folder, device="cpu")


def test_a_weight_without_a_place_is_named_beside_the_place_without_a_weight(tmp_path):
    folder = save(tmp_path / "named", "dream")
    weights = load_file(folder / "model.safetensors")
    weights["model.final.weight"] = weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(mdm.MdmError, match=r"no weight model.norm.weight, and model.final.weight, which has no place:"):
        mdm.load_model(folder, device="cpu")


def test_weights_that_are_integers_are_refused(tmp_path):
    """Without a quantization_config nobody knows what they stand for."""
    folder = save(tmp_path, "dream")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = (100 * weights["model.layers.1.mlp.up_proj.weight"]).to(torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(mdm.MdmError, match="weight model.layers.1.mlp.up_proj.weight is stored as integers"):
        mdm.load_model(folder, device="cpu")
