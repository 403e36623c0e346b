"""Masked language models made on the spot: BERT's and ESM-2's kind, and ModernBERT's, whose layers see a window."""

from __future__ import annotations

import json

import mdm
import pytest
import torch
from mdm_mlm import FAMILY
from tiny_families import CONFIGS, HEADS, LAYERS, MLP, WIDTH, save_characters
from transformers import (
    BertConfig,
    BertForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": MLP}
BERT = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
ESM = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def bert_like(folder, kind, config, **more):
    """``[CLS] … [SEP]`` around a text, one token a character."""
    from tokenizers import Tokenizer, processors

    size = len(save_characters(folder, "0123456789+*=: abc", BERT))
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(path))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return kind(config(vocab_size=size, pad_token_id=1, initializer_range=0.5, **SHAPE, **more))


def bert(folder):
    return bert_like(folder, BertForMaskedLM, BertConfig, max_position_embeddings=64)


def roberta(folder):
    return bert_like(folder, RobertaForMaskedLM, RobertaConfig, max_position_embeddings=64)


def modern_bert(folder):
    windows = {"local_attention": 4, "global_attn_every_n_layers": 2, "max_position_embeddings": 64}
    ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return bert_like(folder, ModernBertForMaskedLM, ModernBertConfig, **windows, **ids)


def esm(folder):
    """ESM-2's own vocabulary, rotary positions and token dropout."""
    (folder / "vocab.txt").write_text("\n".join(ESM))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))
    return EsmForMaskedLM(
        EsmConfig(
            vocab_size=len(ESM), pad_token_id=1, mask_token_id=32, position_embedding_type="rotary", token_dropout=True,
            max_position_embeddings=64, initializer_range=0.5, emb_layer_norm_before=False, **SHAPE,
        )
    )  # fmt: skip


KINDS = {"bert": bert, "roberta": roberta, "modern-bert": modern_bert, "esm": esm}
TEXTS = {"esm": ["MK[MASK]AY[MASK]L", "[MASK]GG", "MKTAYIAKQR[MASK]Q"]}
TEXT = ["12+[MASK]=3[MASK]", "a[MASK]", "0123[MASK]5678"]


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """The network itself, ours, and texts of three lengths."""
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = KINDS[request.param](folder).eval()
    network.save_pretrained(folder)
    return network, mdm.load_model(folder, device="cpu", dtype="float32"), TEXTS.get(request.param, TEXT)


def test_it_claims_what_transformers_can_run():
    assert FAMILY.claims({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    assert FAMILY.claims({"model_type": "esm", "architectures": ["EsmForDPLM"]})
    assert not any(FAMILY.claims(config) for config in CONFIGS.values())


def test_logits_are_the_networks_own(case):
    network, model, texts = case
    for text in texts:
        canvas = torch.tensor([[*model.spec.prefix, *model.encode(text), *model.spec.suffix]])
        with torch.inference_mode():
            expected = network(input_ids=canvas, attention_mask=torch.ones_like(canvas)).logits
        torch.testing.assert_close(model.score_logits(canvas), expected, atol=1e-5, rtol=0)


def test_a_text_is_framed_as_the_model_was_trained(case):
    _, model, texts = case
    (first,), (last,) = model.spec.prefix, model.spec.suffix
    [infilled] = mdm.decode(model, texts[:1], "info-gain", {"candidates": "all"}, gen_length=0)
    assert (infilled.sequence[0], infilled.sequence[-1]) == (first, last)
    [written] = mdm.decode(model, [texts[0].split("[")[0]], "confidence", gen_length=6, block_length=3)
    assert (written.sequence[0], written.sequence[-1], len(written.tokens)) == (first, last, 6)
    blocks = [(line["positions"][0] - (len(written.sequence) - 7)) // 3 for line in written.trace]
    assert blocks == [0, 0, 0, 1, 1, 1]


def test_special_tokens_are_kept_out_of_the_draw(case):
    _, model, texts = case
    special = {*model.tokenizer.all_special_ids}
    assert special - {model.spec.mask_id} == set(model.spec.suppressed)
    for seed in range(4):
        drawn = mdm.decode(model, texts, "random", gen_length=8, temperature=5.0, seed=seed)
        assert not special & {token for result in drawn for token in result.tokens}


@pytest.mark.parametrize("sampler", ["confidence", "info-gain"])
@pytest.mark.parametrize("gen_length", [0, 6])
def test_a_row_does_not_depend_on_its_neighbours(case, sampler, gen_length):
    _, model, texts = case
    together = mdm.decode(model, texts, sampler, gen_length=gen_length, block_length=4)
    for i, text in enumerate(texts):
        [alone] = mdm.decode(model, [text], sampler, gen_length=gen_length, block_length=4, row_ids=[i])
        assert alone.trace == [
            {**line, "entropy": pytest.approx(line["entropy"], abs=1e-4)} for line in together[i].trace
        ]


def test_what_is_decoded_is_the_argmax_of_the_whole_text(case):
    """Visible tokens behind a mask count: the first commit is the network's best guess for the framed text."""
    network, model, texts = case
    [result] = mdm.decode(model, texts[:1], "confidence", gen_length=0)
    canvas = torch.tensor([[*model.spec.prefix, *model.encode(texts[0]), *model.spec.suffix]])
    with torch.inference_mode():
        logits = network(input_ids=canvas, attention_mask=torch.ones_like(canvas)).logits[0]
    chances = logits.index_fill(1, torch.tensor(model.spec.suppressed), -torch.inf).softmax(-1)
    chances[:, model.spec.mask_id] = 0  # it keeps its share of the probability, and is not chosen
    at = max((canvas[0] == model.spec.mask_id).nonzero()[:, 0].tolist(), key=lambda p: chances[p].max().item())
    assert result.trace[0]["positions"] == [at]
    assert result.trace[0]["tokens"] == [chances[at].argmax().item()]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_is_refused_by_name(case, cache):
    with pytest.raises(mdm.MdmError, match=f"cache '{cache}' needs keys and values, which a mlm model has not"):
        mdm.decode(case[1], case[2], cache=cache, gen_length=0)


def test_ids_without_a_token_are_never_drawn(tmp_path):
    """A head may have more rows than there are tokens; what they would draw has no text."""
    network = esm(tmp_path)
    wider = EsmForMaskedLM(EsmConfig.from_dict(network.config.to_dict() | {"vocab_size": len(ESM) + 31}))
    with torch.no_grad():
        wider.lm_head.bias[len(ESM) :] = 50.0
    wider.save_pretrained(tmp_path)
    model = mdm.load_model(tmp_path, device="cpu", dtype="float32")
    [result] = mdm.decode(model, ["MKT"], "confidence", gen_length=8, temperature=1.0)
    assert max(result.tokens) < len(ESM)
    assert len(result.text.split()) == 8


def test_without_a_mask_token_it_is_refused(tmp_path):
    BertForMaskedLM(BertConfig(vocab_size=32, **SHAPE)).save_pretrained(tmp_path)
    with pytest.raises(mdm.MdmError, match="names the mask token"):
        mdm.load_model(tmp_path, device="cpu")


def test_other_heads_of_a_checkpoint_are_left_out(tmp_path):
    from transformers import BertForPreTraining

    save = {"vocab_size": 32, **SHAPE}
    BertForPreTraining(BertConfig(**save)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"mask_token_id": 4}))
    assert mdm.load_model(tmp_path, device="cpu").spec.mask_id == 4
