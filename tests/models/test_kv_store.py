"""Kept keys and values are met without copies: what comes out is the same, and candidates cost no memory of theirs."""

from __future__ import annotations

import gc
import math
import weakref

import mdm
import pytest
import tiny_families
import torch
from mdm.errors import MdmError
from mdm.models import attention
from mdm.models.kv_store import KVStore
from mdm.scoring.readout import Readout
from mdm_bench.shapes import Shape, random_model
from mdm_testing.counters import counting
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

FAMILIES = ["llada", "dream", "sdar"]
CACHES = {"llada": ["prefix", "dual"], "dream": ["prefix", "dual"], "sdar": ["prefix", "dual", "block"]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {f: mdm.load_model(tiny_families.save(folder / f, f), device="cpu", dtype="float32") for f in FAMILIES}


def canvas(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(250, (rows, length), generator=torch.Generator().manual_seed(seed))


HERE = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("masked", ["all", "some", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_and_its_weight_are_those_of_plain_operations(masked, dtype, device):
    random = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(3, 2, n, 16, generator=random).to(device, dtype) for n in (5, 7, 7))
    mask = None
    if masked != "none":
        hidden = torch.rand(3, 1, 1, 7, generator=random) < (1 if masked == "all" else 0.5)
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, attention.hiding(dtype)).to(device)
    out, weight = attention.attention_with_lse(query, keys, values, mask, 0.3)
    plain, plain_weight = attention.plain_attention_with_lse(query, keys, values, mask, 0.3)
    far = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(weight, plain_weight, atol=far, rtol=far)
    if masked != "all":  # where no key is seen, nobody reads what comes out
        torch.testing.assert_close(out, plain, atol=far, rtol=far)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 1, 1, 1], [2, 0, 2, 1, 0, 2], [0, 2]], ids=str)
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_a_window_of_unchanged_tokens_is_that_of_the_whole_canvas(models, family, rows, padded):
    """Scattered positions, some rows with fewer than others, store rows met in any order and number."""
    model, length = models[family], 16
    tokens, everywhere = canvas(3, length), torch.arange(length)
    grid = 4 if family == "sdar" else None
    real = torch.ones(3, length, dtype=torch.bool)
    if padded:
        real[1, 13:] = False
    mask = real[:, None, None].expand(-1, 1, length, -1)
    if grid:
        mask = mask & (everywhere // grid <= (everywhere // grid)[:, None])
    store = KVStore(model, 3, length)
    hide = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    whole = model.hidden(tokens, everywhere.expand(3, -1), mask=hide, cache=store.full([0, 1, 2], write=True))
    at = torch.tensor([[2, 5, 9, 12], [1, 5, 12, 15], [4, 5, 6, 7]])[rows]
    valid = (torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]) == 1)[rows]
    before = [layer.keys.clone() for layer in store.layers]
    found = model.hidden(
        tokens[rows].gather(1, at),
        at,
        cache=store.window(rows, at, valid=valid, in_canvas=real[rows] if padded else None, block_length=grid),
    )
    torch.testing.assert_close(found[valid], whole[torch.tensor(rows)[:, None], at][valid], atol=2e-5, rtol=1e-4)
    assert all(torch.equal(layer.keys, kept) for layer, kept in zip(store.layers, before, strict=True))


def in_powers_of_two(query, keys, values, mask, scale):
    """As CUDA's kernel goes about it: a query whose scores are all -inf has an output and a log-sum-exp of 0."""
    scores = torch.matmul(query * scale, keys.transpose(-1, -2)).float()
    scores = (scores if mask is None else scores + mask) * math.log2(math.e)
    unseen = (scores == -torch.inf).all(-1)
    scores = scores * math.log(2)
    share = scores.softmax(-1).masked_fill(unseen[..., None], 0)
    return torch.matmul(share.to(values.dtype), values), scores.logsumexp(-1).masked_fill(unseen, 0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_what_a_window_hides_all_of_weighs_nothing_in_powers_of_two_either(models, monkeypatch, family):
    """A window of a whole row leaves nothing to see of what is stored of it."""
    monkeypatch.setattr(attention, "attention_with_lse", in_powers_of_two)
    model, length = models[family], 16
    tokens, at = canvas(2, length), torch.arange(length).expand(2, -1)
    store, whole = KVStore(model, 2, length), model.hidden(tokens, at)
    model.hidden(canvas(2, length, seed=1), at, cache=store.full([0, 1], write=True))
    valid = torch.arange(length) < torch.tensor([[length], [9]])
    found = model.hidden(tokens, at, cache=store.window([0, 1], at, valid=valid))
    torch.testing.assert_close(found[0], whole[0], atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_window_keeps_what_it_is_told_to_and_nothing_else(models):
    model = models["dream"]
    store, tokens = KVStore(model, 3, 8), canvas(3, 8)
    model.hidden(tokens, torch.arange(8).expand(3, -1), cache=store.full([0, 1, 2], write=True))
    before = [layer.values.clone() for layer in store.layers]
    at = torch.tensor([[1, 3, 5], [2, 4, 6]])
    write = torch.tensor([[True, False, True], [False, True, False]])
    model.hidden(canvas(2, 8, seed=1).gather(1, at), at, cache=store.window([2, 0], at, write=write))
    for layer, kept in zip(store.layers, before, strict=True):
        changed = (layer.values != kept).any(-1).any(1)
        assert changed.nonzero().tolist() == [[0, 4], [2, 1], [2, 5]]


def copied(module, query, key, value, attention_mask, **kwargs):
    """Attention over a copy of what is kept for each row, in one softmax."""
    if not isinstance(key, attention.CachedKV):
        return attention.attend(module, query, key, value, attention_mask, **kwargs)
    layout, (rows, heads, length, _) = key.layout, query.shape
    group = torch.arange(key.stored.shape[0]).repeat_interleave(layout.group_size)
    group = group if layout.ungroup_index is None else group[layout.ungroup_index]
    both = [torch.cat([met.stored[group], met.own], 2) for met in (key, value)]
    own = torch.zeros(rows, 1, 1, length) if layout.own_mask is None else layout.own_mask
    masks = [
        layout.stored_mask[group, :, :length].expand(-1, -1, length, -1),
        own[:, :, :length].expand(-1, -1, length, -1),
    ]
    both = [x.repeat_interleave(heads // x.shape[1], 1) for x in both]
    out = scaled_dot_product_attention(query, *both, attn_mask=torch.cat(masks, -1), scale=kwargs["scaling"])
    return out.transpose(1, 2), None


@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize(("family", "cache"), [(f, c) for f in FAMILIES for c in CACHES[f]])
def test_tokens_and_order_are_those_of_copied_keys_and_values(models, monkeypatch, family, cache, guidance):
    model = models[family]
    prompts = [canvas(1, n, seed=n)[0].tolist() for n in (5, 11)]

    def decoded():
        shape = {"gen_length": 8, "block_length": 4, "tokens_per_step": 2}
        results = mdm.decode(model, prompts, "info-gain", cache=cache, guidance=guidance, **shape)
        return [[(line["step"], line["positions"], line["tokens"]) for line in r.trace] for r in results]

    ours = decoded()
    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.ATTENTION_NAME, copied)
    assert decoded() == ours


class KeptBytes(TorchDispatchMode):
    """Largest sum of bytes alive at one time in tensors shaped like keys and values ``[*, H, *, D]``."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width, self.seen, self.live, self.peak = heads, width, {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, torch.Tensor) and made.dim() == 4 and made.shape[1::2] == (self.heads, self.width):
                self.follow(made.untyped_storage())
        return out

    def follow(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.live += size
            self.peak = max(self.peak, self.live)
            self.seen[key] = weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        del self.seen[key]
        self.live -= size


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_candidates_share_what_is_kept(models, monkeypatch, cache):
    model, hidden = models["dream"], models["dream"].hidden
    prompt = canvas(1, 1000)[0].tolist()

    def looking_ahead(candidates: int) -> tuple[int, int]:
        """Most rows of a windowed forward, and bytes of keys and values alive in one."""
        rows, peaks = [], []
        mode = KeptBytes(tiny_families.KV_HEADS, tiny_families.WIDTH // tiny_families.HEADS)

        def watched(tokens, at, *, mask=None, cache=None):
            mode.peak = mode.live
            out = hidden(tokens, at, mask=mask, cache=cache)
            if cache.layout.positions is not None:
                rows.append(tokens.shape[0])
                peaks.append(mode.peak)
            return out

        monkeypatch.setattr(model, "hidden", watched)
        with mode:
            shape = {"gen_length": 4, "block_length": 4, "tokens_per_step": 2, "temperature": 2.0}
            mdm.decode(model, [prompt], "info-gain", {"candidates": candidates}, cache=cache, **shape)
        return max(rows), max(peaks)

    (one, alone), (many, together) = looking_ahead(1), looking_ahead(8)
    assert (one, many) == (1, 8)
    assert together <= 1.1 * alone


def test_nothing_in_a_dual_lookahead_is_larger_than_what_is_read(monkeypatch):
    model, rows, readout = random_model(Shape("llada", 8192, 32, 2, 2, 2, 64)), [], Readout.__call__

    def counted(self, hidden, *args):
        rows.append(hidden.shape[0])
        return readout(self, hidden, *args)

    monkeypatch.setattr(Readout, "__call__", counted)
    with counting() as counts:
        mdm.decode(model, [canvas(1, 64)[0].tolist()], "info-gain", cache="dual", gen_length=8, block_length=8)
    assert counts.largest <= 1.2 * max(rows) * 8192


def test_attention_that_cannot_meet_kept_keys_is_refused(tmp_path):
    folder = tiny_families.save(tmp_path / "m", "llada")
    model = mdm.load_model(folder, device="cpu", dtype="float32", attn_implementation="eager")
    prompt = canvas(1, 5)[0].tolist()
    mdm.decode(model, [prompt], gen_length=4, block_length=4)
    with pytest.raises(MdmError, match="--cache none"):
        mdm.decode(model, [prompt], cache="dual", gen_length=4, block_length=4)


def test_a_store_is_freed_when_nobody_holds_it(models):
    model = models["dream"]
    store = KVStore(model, 1, 8)
    with torch.inference_mode():
        model.hidden(canvas(1, 8), torch.arange(8)[None], cache=store.full([0], write=True))
    keys = weakref.ref(store.layers[0].keys)
    gc.disable()
    try:
        del store
        assert keys() is None
    finally:
        gc.enable()
