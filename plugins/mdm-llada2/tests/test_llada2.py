"""What LLaDA2's configurations and weights become, and what is refused."""

from __future__ import annotations

import json

import mdm
import pytest
import torch
from mdm.cli import main
from mdm_llada2 import FAMILY
from mdm_testing.counters import counting
from safetensors.torch import load_file, save_file
from tiny_families import CONFIGS, EOS, MASK, PAD, save, save_bpe

PUBLISHED = {
    "attention_dropout": 0.0, "auto_map": {"AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM"},
    "dtype": "bfloat16", "initializer_range": 0.02, "max_window_layers": 28, "moe_router_enable_expert_bias": True,
    "norm_head": False, "norm_softmax": False, "num_nextn_predict_layers": 0, "output_router_logits": False,
    "router_dtype": "fp32", "use_bias": False, "use_cache": False, "use_qk_norm": True, "use_qkv_bias": False,
    "use_rmsnorm": True, "using_split_qkv_in_self_attention": False, "moe_shared_expert_intermediate_size": 16,
    "_moe_implementation": "fused",
}  # fmt: skip
"""Keys of a published config.json beside those of the tiny one."""
CANVAS = torch.tensor([[3, 1, 4, 1, 5, MASK, 2, 6, 5, 3], [9, 9, MASK, 7, 8, 0, 2, 2, 1, 1]])
SPECIAL = ["<|endoftext|>", "<|mask|>", "<|role_end|>", "<role>", "</role>"]


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "llada2", "llada2", **PUBLISHED)


def logits(folder, **options):
    return mdm.load_model(folder, device="cpu", dtype="float32", **options).score_logits(CANVAS)


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder, change):
    """Change the weights of a checkpoint, and write them again."""
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder):
    with pytest.raises(mdm.MdmError) as caught:
        mdm.load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("config", [{"model_type": "llada2_moe"}, {"architectures": ["LLaDA2MoeModelLM"]}])
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def test_it_claims_nothing_else():
    assert not any(FAMILY.claims(config) for family, config in CONFIGS.items() if family != "llada2")


def test_the_specification(folder):
    spec = mdm.load_model(folder, device="cpu").spec
    assert (spec.attention, spec.block_length, spec.default_cache, spec.shift) == ("block-causal", 32, "block", False)
    assert (spec.mask_id, spec.eos_ids, spec.pad_id, spec.vocab_size) == (MASK, (EOS,), PAD, 256)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_capacity", 1.5), ("delete_token_id", 156930), ("split_token_id", 156931),  # LLaDA2.2
        ("image_token_offset", 157184),  # LLaDA2.0-Uni
        ("score_function", "softmax"), ("router_dtype", "bf16"), ("norm_topk_prob", False),
        ("moe_router_enable_expert_bias", False), ("moe_router_topk_variant", "expert_choice"), ("router_jitter", 0.1),
        ("use_qkv_bias", True), ("use_bias", True), ("use_qk_norm", False), ("use_rmsnorm", False),
        ("using_split_qkv_in_self_attention", True), ("norm_head", True), ("norm_softmax", True),
        ("use_sliding_window", True), ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("partial_rotary_factor", 1.0), ("num_nextn_predict_layers", 1),
        ("moe_shared_expert_intermediate_size", 32), ("num_shared_experts", 0), ("num_shared_experts", None),
        ("num_experts_per_tok", 1), ("num_experts_per_tok", 5), ("n_group", 3), ("n_group", 8), ("topk_group", 5),
        ("first_k_dense_replace", 3), ("num_experts", 16), ("num_experts", 4), ("num_hidden_layers", 1),
        ("num_hidden_layers", 3), ("quantization_config", {"quant_method": "fp8"}), ("routed_scaling_factor", None),
    ],
)  # fmt: skip
def test_what_the_stock_class_does_not_do_is_refused_by_name(folder, key, value):
    change(folder, **{key: value})
    assert f"key {key!r}" in refused(folder)


def test_rotated_dimensions_that_are_no_such_part_of_a_head(folder):
    change(folder, rotary_dim=6)
    assert "config key 'partial_rotary_factor' is 0.5, and this family runs only 0.75" in refused(folder)


def test_weights_of_a_layer_that_the_stock_class_would_drop(folder):
    """Of 46 and of 92 layers a Glm has a head of its own behind the last, which is passed over without a word."""
    weights(folder, lambda held: held.update({"model.layers.46.input_layernorm.weight": torch.ones(32)}))
    assert "config key 'num_hidden_layers' is 2, and the weights are of 47 layers" in refused(folder)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("model.layers.1.mlp.experts.3.up_proj.weight", None, "wrong shape for weight model.layers.1.mlp.experts.g"),
        ("model.layers.1.mlp.experts.3.down_proj.weight", (32, 8), "wrong shape for weight model.layers.1.mlp.experts"),
        ("model.layers.0.attention.query_key_value.weight", (72, 32), "wrong shape for weight model.layers.0.self"),
        ("model.layers.0.attention.query_key_value.weight", None, "no weight model.layers.0.self_attn.k_proj.weight"),
        ("model.layers.1.mlp.gate.expert_bias", None, "no weight model.layers.1.mlp.gate.e_score_correction_bias"),
        ("model.layers.1.mlp.extra.weight", (4,), "a surplus weight model.layers.1.mlp.extra.weight"),
        ("model.layers.1.mlp.experts.down_proj", (8, 32, 16), "wrong shape for weight model.layers.1.mlp.experts.down"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(folder, name, shape, said):
    def put(held):
        held.pop(name, None)
        if shape:
            held[name] = torch.ones(shape)

    weights(folder, put)
    assert f"the checkpoint has {'the ' if said.startswith('wrong') else ''}{said}" in refused(folder)


def test_experts_that_are_stacked_already(folder):
    split = logits(folder)

    def stack(held):
        base = "model.layers.1.mlp.experts"
        parts = [[held.pop(f"{base}.{e}.{name}_proj.weight") for e in range(8)] for name in ("gate", "up", "down")]
        gate, up, down = map(torch.stack, parts)
        held[f"{base}.gate_up_proj"], held[f"{base}.down_proj"] = torch.cat([gate, up], 1), down

    weights(folder, stack)
    assert torch.equal(logits(folder), split)
    change(folder, num_experts=16)
    assert "config key 'num_experts' is 16, and the weights are of 8 experts" in refused(folder)


def test_shards(folder):
    """Experts of one layer in several files, as published."""
    whole, held = logits(folder), load_file(folder / "model.safetensors")
    index = {name: f"model-{n % 3}-of-3.safetensors" for n, name in enumerate(sorted(held))}
    for shard in set(index.values()):
        save_file({name: held[name] for name in held if index[name] == shard}, folder / shard)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert torch.equal(logits(folder), whole)
    (folder / "model-1-of-3.safetensors").unlink()
    assert "model-1-of-3.safetensors is missing" in refused(folder)


def test_rows_of_the_fused_projection(folder):
    """All heads' queries, then keys, then values, of which there are half as many."""
    held = load_file(folder / "model.safetensors")["model.layers.0.attention.query_key_value.weight"]
    attention = mdm.load_model(folder, device="cpu", dtype="float32").body.layers[0].self_attn
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    assert [len(part) for part in parts] == [32, 16, 16] and torch.equal(torch.cat(parts), held)


def test_the_router_stays_exact_in_bfloat16(folder):
    router = mdm.load_model(folder, device="cpu", dtype="bfloat16").body.layers[1].mlp.gate
    assert router.weight.dtype == torch.bfloat16 and router.e_score_correction_bias.dtype == torch.float32


def test_experts_are_grouped_products_and_no_loop(tmp_path):
    """As many operations for 32 experts as for 8; the loop that the stock class also has gives the same numbers."""
    counts = []
    for experts in (8, 32):
        folder = save(tmp_path / str(experts), "llada2", num_experts=experts)
        model = mdm.load_model(folder, device="cpu", dtype="float32")
        with counting(model) as counted, torch.inference_mode():
            model.hidden(CANVAS, torch.arange(10).expand(2, -1))
        counts.append(counted.model_operations)
    assert counts[0] == counts[1]
    torch.testing.assert_close(model.score_logits(CANVAS), logits(folder, experts_implementation="eager"))


def test_layers_that_wait_on_the_disk(tmp_path, folder):
    layout = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    layout |= {"model.norm": "cpu", "lm_head": "disk"}
    model = mdm.load_model(folder, dtype="float32", device_map=layout, offload_folder=str(tmp_path / "offload"))
    torch.testing.assert_close(model.score_logits(CANVAS), logits(folder))


def test_quantization_would_leave_the_experts_as_they_are(folder, monkeypatch):
    from mdm.models import placement

    monkeypatch.setattr(placement, "_quantized", lambda name, device: name)
    with pytest.raises(mdm.MdmError, match="no quantization here reaches the weights of experts"):
        mdm.load_model(folder, device="cpu", quantization="bnb-8bit")


def with_tokenizer(folder, *special, **config):
    first = save_bpe(folder, list(special), whole=True, eos_token="<|endoftext|>")
    return save(folder, "llada2", vocab_size=288, eos_token_id=None, pad_token_id=first, **config), first


def test_the_mask_and_the_ends_of_its_tokenizer(tmp_path):
    folder, first = with_tokenizer(tmp_path, *SPECIAL, mask_token_id=None)
    spec = mdm.load_model(folder, device="cpu").spec
    assert (spec.mask_id, spec.eos_ids, spec.prefix) == (first + 1, (first, first + 2), ())
    change(folder, mask_token_id=first + 1)
    assert mdm.load_model(folder, device="cpu").spec.mask_id == first + 1
    change(folder, mask_token_id=first)
    assert f"'mask_token_id' is {first}, and the tokenizer's <|mask|> is {first + 1}" in refused(folder)


def test_the_published_ids_are_those_of_the_published_vocabulary(tmp_path):
    folder = save(tmp_path, "llada2", mask_token_id=None)
    assert "neither config.json's 'mask_token_id' nor a token <|mask|> names the mask" in refused(folder)
    from mdm_llada2.layout import ends, mask

    config = {"vocab_size": 157184}
    assert (mask(config, str(folder), None), ends(config, str(folder), None)) == (156895, (156892,))


def test_the_chat_template(tmp_path):
    folder, _ = with_tokenizer(tmp_path, *SPECIAL, mask_token_id=None)
    model = mdm.load_model(folder, device="cpu")
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "he"},
        {"role": "tool", "content": "7"},
    ]
    written = (
        "detailed thinking off<|role_end|><role>HUMAN</role>hello<|role_end|><role>ASSISTANT</role>he<|role_end|>"
        "<role>OBSERVATION</role>7<|role_end|><role>ASSISTANT</role>"
    )
    system = [{"role": "system", "content": "Be brief."}]
    for messages, head in ((turns, ""), (system + turns, "Be brief.\n")):
        ids = model.text.rendered(model.render_chat(messages))
        assert model.tokenizer.decode(ids) == f"<role>SYSTEM</role>{head}{written}"
    with pytest.raises(mdm.MdmError, match="a system message stands first"):
        model.render_chat(turns + system)


def test_rotary_keys_as_transformers_nests_them(tmp_path):
    rope = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    flat = mdm.load_model(save(tmp_path / "flat", "llada2"), device="cpu", dtype="float32")
    folder = save(tmp_path / "nested", "llada2", rope_parameters=rope, rope_theta=None, partial_rotary_factor=None)
    nested = mdm.load_model(folder, device="cpu", dtype="float32")
    canvas = torch.arange(11)[None]
    assert torch.equal(flat.score_logits(canvas), nested.score_logits(canvas))
    with pytest.raises(mdm.MdmError, match="config key 'partial_rotary_factor' is 0.5"):
        mdm.load_model(save(tmp_path / "two", "llada2", rope_parameters=rope | {"partial_rotary_factor": 0.25}))


def test_widths_that_grouped_products_do_not_take(tmp_path):
    """They want rows of whole 16 bytes; others are computed one expert of a token at a time."""
    model = mdm.load_model(save(tmp_path, "llada2", moe_intermediate_size=18), device="cpu", dtype="float32")
    assert model.body.config._experts_implementation == "batched_mm"
    [result] = mdm.decode(model, [[3, 1, 4]], "confidence", gen_length=8, block_length=4)
    assert len(result.tokens) == 8


def test_a_text_is_as_long_as_was_asked_for(tmp_path, capsys):
    """The grid's last block is decoded whole; what lies behind the answer is not printed."""
    folder = save(tmp_path, "llada2", vocab_size=320, mask_token_id=None)
    save_bpe(folder, ["<|mask|>", "<|role_end|>"], whole=True)
    texts = []
    for length in (3, 20):
        flags = ["--no-chat", "--model", str(folder), "--gen-length", str(length), "--json"]
        with pytest.raises(SystemExit, match="0"):
            main(["generate", "hello", *flags])
        texts.append(json.loads(capsys.readouterr().out))
    model = mdm.load_model(folder, device="cpu", dtype="float32")
    assert [text["text"] for text in texts] == [model.decode(text["tokens"]) for text in texts]
    assert [len(text["tokens"]) for text in texts] == [3, 20]
