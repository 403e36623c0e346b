"""LoRA adapters: what peft makes of them is what the formula says, whatever the family calls its modules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mdm
import pytest
import tiny_families
import torch
from mdm.errors import MdmError, MdmWarning
from mdm.models import lora
from safetensors.torch import load_file, save_file

pytest.importorskip("peft", reason="adapters need peft")

R, ALPHA = 4, 6.0
MODULES = {
    "llada": r"blocks\.\d+\.(q_proj|k_proj|v_proj|attn_out|ff_proj|up_proj|ff_out)$|transformer\.ff_out$",
    "mmada": r"blocks\.\d+\.(q_proj|v_proj|ff_out)$",
    "dream": r"layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.\w+_proj)$|lm_head$",
    "sdar": r"layers\.1\.self_attn\.[qv]_proj$",
    "llada2": r"attention\.dense$|shared_experts\.\w+_proj$|layers\.0\.mlp\.\w+_proj$|lm_head$",
}


def make_adapter(folder: Path, checkpoint: Path, family: str, *, ranks=None, whole=(), drop=(), **config):
    """An adapter for a checkpoint, random in both matrices, and the weights that it amounts to by the formula."""
    folder.mkdir()
    random = torch.Generator().manual_seed(7)
    weights = load_file(checkpoint / "model.safetensors")
    adapter = {}
    settings = {"peft_type": "LORA", "r": R, "lora_alpha": ALPHA, "target_modules": ["q_proj"], "bias": "none"} | config
    for name in list(weights):
        module = name.removesuffix(".weight")
        if not re.search(MODULES[family], module):
            continue
        out, inside = weights[name].shape
        rank = next((r for key, r in (ranks or {}).items() if module.endswith(key)), R)
        alpha = next((a for key, a in settings.get("alpha_pattern", {}).items() if re.search(key, module)), ALPHA)
        scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
        a = torch.randn(rank, inside, generator=random) * 0.2
        b = torch.randn(out, rank, generator=random) * 0.2
        adapter[f"base_model.model.{module}.lora_A.weight"] = a
        adapter[f"base_model.model.{module}.lora_B.weight"] = b
        weights[name] = weights[name] + scale * b @ a
        if settings.get("use_dora"):
            magnitude = torch.rand(out, generator=random) + 0.5
            adapter[f"base_model.model.{module}.lora_magnitude_vector"] = magnitude
            weights[name] = magnitude[:, None] * weights[name] / weights[name].norm(dim=1, keepdim=True)
    for name in whole:
        adapter[f"base_model.model.{name}"] = weights[name] = torch.randn(weights[name].shape, generator=random)
    for name in list(adapter):
        if any(re.search(pattern, name) for pattern in drop):
            del adapter[name]
    save_file(adapter, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    by_hand = folder / "by_hand"
    by_hand.mkdir()
    (by_hand / "config.json").write_text((checkpoint / "config.json").read_text())
    save_file(weights, by_hand / "model.safetensors", metadata={"format": "pt"})
    return folder, by_hand


def logits(folder, **options):
    model = mdm.load_model(folder, device="cpu", dtype="float32", **options)
    return model.score_logits(torch.arange(1, 25).view(2, 12))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llada", {}), ("mmada", {"use_rslora": True}), ("dream", {"use_dora": True}), ("sdar", {}), ("llada2", {}),
        ("llada", {"ranks": {"attn_out": 2, "up_proj": 8}, "rank_pattern": {"attn_out": 2, "up_proj": 8}}),
        ("llada", {"alpha_pattern": {"attn_out": 16, r"blocks\.1\.q_proj": 1.0}, "lora_dropout": 0.1}),
        ("llada", {"whole": ["model.transformer.wte.weight"], "modules_to_save": ["wte"]}),
        ("dream", {"target_modules": "all-linear", "inference_mode": True, "task_type": "CAUSAL_LM", "revision": None}),
    ],
    ids=str,
)  # fmt: skip
def test_merged_or_beside_the_weights_it_is_the_formula(tmp_path, family, options):
    checkpoint = tiny_families.save(tmp_path / "base", family)
    adapter, by_hand = make_adapter(tmp_path / "adapter", checkpoint, family, **options)
    expected, plain = logits(by_hand), logits(checkpoint)
    assert (expected - plain).abs().max() > 0.1
    merged = logits(checkpoint, adapter_weights=adapter)
    beside = logits(checkpoint, adapter_weights=adapter, merge_adapter=False)
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(merged, beside, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)


def test_a_merged_model_is_as_plain_as_any_other(tmp_path):
    checkpoint = tiny_families.save(tmp_path / "base", "llada")
    adapter, by_hand = make_adapter(tmp_path / "adapter", checkpoint, "llada")
    model = mdm.load_model(checkpoint, device="cpu", dtype="float32", adapter_weights=adapter)
    assert model.head_is_matrix and {type(m) for m in model.body.layers[0].self_attn.children()} == {torch.nn.Linear}
    options = {"cache": "dual", "gen_length": 12, "block_length": 6}
    [ours] = mdm.decode(model, [[1, 2, 3]], "info-gain", **options)
    [theirs] = mdm.decode(mdm.load_model(by_hand, device="cpu", dtype="float32"), [[1, 2, 3]], "info-gain", **options)
    beside = mdm.load_model(checkpoint, device="cpu", dtype="float32", adapter_weights=adapter, merge_adapter=False)
    [apart] = mdm.decode(beside, [[1, 2, 3]], "info-gain", **options)
    assert ours.tokens == theirs.tokens == apart.tokens
    assert not any(p.requires_grad for p in beside.body.parameters())


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "of type 'PROMPT_TUNING', and only LORA"),
        ({"init_lora_weights": "pissa"}, "'init_lora_weights' is 'pissa'"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication'"),
        ({"of_next_year": True}, "'of_next_year' is True"),
        ({"drop": [r"blocks\.1\.q_proj\.lora_B"]}, "no weight"),
        ({"drop": ["lora_"]}, "holds no LoRA weights"),
        ({"whole": ["model.transformer.wte.weight"]}, "names no modules_to_save"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_applied_is_refused_by_name(tmp_path, change, culprit):
    checkpoint = tiny_families.save(tmp_path / "base", "llada")
    adapter, _ = make_adapter(tmp_path / "adapter", checkpoint, "llada", **change)
    with pytest.raises(MdmError, match=re.escape(culprit)):
        mdm.load_model(checkpoint, device="cpu", adapter_weights=adapter)


def test_an_adapter_of_another_network_is_refused(tmp_path):
    small = tiny_families.save(tmp_path / "llada", "llada")
    adapter, _ = make_adapter(tmp_path / "adapter", small, "llada")
    with pytest.raises(MdmError, match="which this model has not"):
        mdm.load_model(tiny_families.save(tmp_path / "dream", "dream"), device="cpu", adapter_weights=adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {k.replace("blocks.1.", "blocks.7."): v for k, v in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(MdmError, match=r"a module model\.layers\.7\..*, which this model has not"):
        mdm.load_model(small, device="cpu", adapter_weights=adapter)
    save_file({k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in weights.items()},
              adapter / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(MdmError, match="does not fit this model"):
        mdm.load_model(small, device="cpu", adapter_weights=adapter)


@pytest.mark.filterwarnings("ignore:Model has `tie_word", "ignore:`is_gradient", "ignore:Setting `save_embedding")
def test_a_weight_of_two_modules_takes_no_adapter_into_it(tmp_path):
    """The head is the embeddings: added to these, an adapter of theirs would change the head as well."""
    from peft import LoraConfig, get_peft_model

    pytest.importorskip("mdm_ar", reason="mdm-ar is not installed")
    base, tokens = tiny_families.save_causal(tmp_path / "base", tie_word_embeddings=True), torch.arange(1, 9)[None]
    from transformers import AutoModelForCausalLM

    trained = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(target_modules=["embed_tokens"], r=2, lora_alpha=8, init_lora_weights=False),
    )
    trained.save_pretrained(tmp_path / "adapter")  # with the embeddings themselves
    with pytest.raises(MdmError, match=r"model\.embed_tokens, and this model's head .*: --no-merge-adapter"):
        mdm.load_model(base, device="cpu", adapter_weights=tmp_path / "adapter")
    beside = mdm.load_model(base, device="cpu", adapter_weights=tmp_path / "adapter", merge_adapter=False)
    with torch.no_grad():
        torch.testing.assert_close(beside.score_logits(tokens)[:, 1:], trained(tokens).logits[:, :-1].float())
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file({name: value + 1 if "base_layer" in name else value for name, value in load_file(file).items()}, file)
    with pytest.raises(MdmError, match=r"replaces model\.embed_tokens\.weight with another weight, and this model's"):
        mdm.load_model(base, device="cpu", adapter_weights=tmp_path / "adapter", merge_adapter=False)


def test_files_that_are_missing_pickled_or_torn(tmp_path):
    checkpoint = tiny_families.save(tmp_path / "base", "llada")

    def load():
        mdm.load_model(checkpoint, device="cpu", adapter_weights=tmp_path / "adapter")

    with pytest.raises(MdmError, match=r"has no adapter_config\.json"):
        load()
    adapter, _ = make_adapter(tmp_path / "adapter", checkpoint, "llada")
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(whole[:100])
    with pytest.raises(MdmError, match="damaged or incomplete"):
        load()
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(MdmError, match=r"adapter_model\.bin is a pickle"):
        load()
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(MdmError, match="not JSON"):
        load()


def test_an_adapter_beside_weights_is_named_and_not_applied_unasked(tmp_path):
    checkpoint = tiny_families.save(tmp_path / "base", "llada")
    plain = logits(checkpoint)
    adapter, by_hand = make_adapter(tmp_path / "adapter", checkpoint, "llada")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (checkpoint / name).write_bytes((adapter / name).read_bytes())
    with pytest.warns(MdmWarning, match="holds a LoRA adapter beside its weights, which is not applied"):
        assert torch.equal(logits(checkpoint), plain)
    torch.testing.assert_close(logits(checkpoint, adapter_weights=checkpoint), logits(by_hand), atol=1e-4, rtol=1e-4)
    with pytest.raises(MdmError, match="holds a LoRA adapter and no checkpoint: give the model"):
        mdm.load_model(adapter, device="cpu")
    with pytest.raises(MdmError, match="merge_adapter says what becomes of an adapter, and there is none"):
        mdm.load_model(checkpoint, device="cpu", merge_adapter=True)


def test_without_peft_the_way_out_is_named(tmp_path, monkeypatch):
    checkpoint = tiny_families.save(tmp_path / "base", "llada")
    adapter, _ = make_adapter(tmp_path / "adapter", checkpoint, "llada")
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(MdmError, match="pip install peft"):
        mdm.load_model(checkpoint, device="cpu", adapter_weights=adapter)


@pytest.mark.wide  # three processes
def test_on_the_command_line(tmp_path):
    (tmp_path / "base").mkdir()
    first = tiny_families.save_bpe(tmp_path / "base", ["<|endoftext|>", "<|mask|>"])
    ids = {"vocab_size": 288, "eos_token_id": first, "pad_token_id": first, "mask_token_id": first + 1}
    checkpoint = tiny_families.save(tmp_path / "base", "dream", **ids)
    adapter, _ = make_adapter(tmp_path / "adapter", checkpoint, "dream")

    def generate(*more):
        command = [sys.executable, "-m", "mdm", "generate", "he", "--model", str(checkpoint), "--no-chat", "--json"]
        done = subprocess.run(
            [*command, "--gen-length", "8", "--sampler", "entropy", "--device", "cpu", *more],
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    plain, applied = generate(), generate("--adapter-weights", str(adapter))
    assert plain[0] == applied[0] == 0, (plain, applied)
    assert json.loads(plain[1])["tokens"] != json.loads(applied[1])["tokens"]
    code, _, error = generate("--adapter-weights", str(tmp_path / "nowhere"))
    assert code == 2 and error.startswith("mdm: ") and len(error.splitlines()) == 1
