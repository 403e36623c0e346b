"""The family says what the published network says, and keeps what every model family promises."""

import json

import mdm
import pytest
import torch
from mdm_tessera import FAMILY
from mdm_testing import parametrize_with_checks
from mdm_testing.probe import decode, plain
from tessera_published import logits


@parametrize_with_checks("model", ["tessera"])
def test_conforms(check):
    check()


@pytest.fixture
def folder(tmp_path):
    FAMILY.example(tmp_path)
    return tmp_path


@pytest.mark.parametrize("length", [3, 8, 21])
def test_the_forward_is_the_published_one(folder, length):
    """Lengths that are no multiple of the block are where a wrong grid shows."""
    canvas = torch.randint(60, (length,), generator=torch.Generator().manual_seed(length))
    canvas[-2:] = 60
    model = mdm.load_model(folder, device="cpu", dtype="float32")
    torch.testing.assert_close(model.score_logits(canvas[None])[0], logits(folder, canvas), atol=1e-4, rtol=0)


def test_another_mask_would_be_seen(folder):
    """Else the test above could not tell."""
    canvas = torch.arange(21)
    model = mdm.load_model(folder, device="cpu", dtype="float32")
    full = model.score_logits(canvas[None], block_length=64)[0]
    assert (full - logits(folder, canvas)).abs().max() > 0.1


@pytest.mark.parametrize(("key", "value"), [("activation", "gelu"), ("qkv_bias", True), ("window", 128)])
def test_what_llama_does_not_do_is_refused_by_name(folder, key, value):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(mdm.MdmError, match=f"config key '{key}'"):
        mdm.load_model(folder, device="cpu")


def test_the_cache_decides_as_none_does(folder):
    model = mdm.load_model(folder, device="cpu", dtype="float32")
    results = [decode(model, [[1, 2, 3]], plain(), cache, gen_length=9)[0] for cache in ("none", "block")]
    assert results[0].tokens == results[1].tokens and model.spec.mask_id not in results[0].tokens
