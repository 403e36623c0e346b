"""What fits is arithmetic, and what is decoded does not depend on it."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.engine import memory
from mdm.errors import MdmError
from mdm.scoring.readout import chunk_elements
from mdm_testing.counters import counting
from mdm_testing.probe import decode, essence, looking, prompts
from mdm_testing.toy import HEADS, KV_HEADS, LAYERS, WIDTH, toy_model

LENGTH = 100
UNEVEN = [5, 3, 4, 3]
KEPT = 2 * LAYERS * KV_HEADS * (WIDTH // HEADS) * LENGTH * 4


def fit(monkeypatch, free, count=1000, *, kv=True, cfg_branches=1, **asked):
    reserve = memory.LOGIT_BYTES * memory.chunk_elements(torch.device("cpu"), free)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int((free + reserve) / memory.USABLE_FRACTION))
    asked = {"batch_size": "auto", "max_rows": "auto"} | asked
    return memory.plan_batch(toy_model(), LENGTH, count, kv=kv, cfg_branches=cfg_branches, **asked)


def test_what_is_kept_takes_at_most_half(monkeypatch):
    monkeypatch.setattr(memory, "TOKENS_TO_SATURATE", {"cpu": 10**9})
    assert memory.kept_bytes(toy_model(), LENGTH) == KEPT
    assert fit(monkeypatch, 20 * KEPT + 9).batch_size == 10
    assert fit(monkeypatch, 20 * KEPT + 9, cfg_branches=2).batch_size == 5
    assert fit(monkeypatch, 20 * KEPT + 9, count=3).batch_size == 3
    row = memory.forward_bytes(toy_model(), LENGTH)
    found = fit(monkeypatch, 8 * KEPT + 50 * row + 9, batch_size=8)
    assert (found.batch_size, found.max_rows) == (8, 50)
    assert fit(monkeypatch, 50 * row + 9, kv=False, batch_size=8).max_rows == 50
    assert fit(monkeypatch, 0).batch_size == fit(monkeypatch, 0).max_rows == 1


def test_a_batch_is_no_larger_than_pays_and_what_is_given_stays(monkeypatch):
    assert fit(monkeypatch, 10**12).batch_size == -(-memory.TOKENS_TO_SATURATE["cpu"] // LENGTH)
    found = fit(monkeypatch, 10**12, batch_size=7, max_rows=None)
    assert (found.batch_size, found.max_rows) == (7, None)
    assert fit(monkeypatch, 10**12, batch_size=None, max_rows=5).batch_size == 1000


@pytest.fixture(scope="module")
def llada_8b():
    """All but the weights, on a device that is no CPU."""
    from mdm_bench.shapes import SHAPES, random_model

    return random_model(SHAPES["llada-8b"], device="meta", dtype="bfloat16")


@pytest.mark.parametrize(("length", "pays"), [(512, 32), (4096, 4)])  # 16384 row-tokens
@pytest.mark.parametrize(("total", "chunk"), [(24e9, 1e9), (40e9, 3e9), (80e9, 12 * 2**29)])
def test_what_cards_of_several_sizes_hold(monkeypatch, llada_8b, total, chunk, length, pays):
    """bfloat16; 8.0e9 weights of 2 bytes lie on the card already."""
    free = total - 16e9
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(free))
    # Four fifths of it, without the logits of one call of the head: 2**29, or an eighth of what is free.
    usable = 0.8 * free - chunk
    kept = 2 * 32 * 4096 * length * 2  # keys and values, of 32 layers 4096 wide
    # A layer: the states, six times; queries, keys and values, twice; three times its MLP of 12288; a line of the mask.
    forward = (6 * 4096 + 2 * 3 * 4096 + 3 * 12288 + length) * length * 2
    asked = {"cfg_branches": 1, "batch_size": "auto", "max_rows": "auto"}

    found = memory.plan_batch(llada_8b, length, 1000, kv=True, **asked)
    assert found.batch_size == min(usable / 2 // kept, pays)
    assert found.max_rows == (usable - found.batch_size * kept) // forward

    found = memory.plan_batch(llada_8b, length, 1000, kv=False, **asked)
    assert (found.batch_size, found.max_rows) == (min(usable // forward, pays), usable // forward)


def test_a_call_of_the_head_takes_what_the_device_has_room_for():
    """All of 4,245 rows of 126464 logits at once on a GPU with memory to spare, 132 of them on a CPU."""
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert chunk_elements(gpu, 80 * 10**9) // 126464 == 4245
    assert chunk_elements(gpu, 8 * 10**9) == 10**9 // 12
    assert chunk_elements(gpu, 0) == 2**20
    assert chunk_elements(cpu, 80 * 10**9) // 126464 == chunk_elements(cpu, 0) // 126464 == 132


def plain(cache="none", **asked):
    return decode(toy_model(), prompts(), looking(), cache, gen_length=UNEVEN, **asked)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_little_memory_changes_calls_and_nothing_else(monkeypatch, cache):
    with counting(toy_model(), operations=False) as counts:
        ample = plain(cache)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    with counting(toy_model(), operations=False) as tight:
        alone = plain(cache)
        one = plain(cache, batch_size="auto")
    assert [essence(r) for r in ample] == [essence(r) for r in alone] == [essence(r) for r in one]
    assert tight.model_calls == tight.rows == 2 * counts.rows > 4 * counts.model_calls


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_a_forward_that_finds_no_memory_goes_in_halves(monkeypatch, cache):
    whole, hidden, seen = plain(cache), toy_model().hidden, []

    def small(tokens, *args, **kw):
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(tokens))
        return hidden(tokens, *args, **kw)

    monkeypatch.setattr(toy_model(), "hidden", small)
    assert [essence(r) for r in plain(cache)] == [essence(r) for r in whole]
    assert max(seen) <= 3 and sum(seen) == sum(result.rows for result in whole)
    monkeypatch.setattr(toy_model(), "hidden", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(torch.OutOfMemoryError):
        plain(cache)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_rows_of_a_forward_are_split_evenly_and_counted(cache):
    rows = []
    for max_rows in (None, 5):
        with counting(toy_model(), operations=False) as counts:
            plain(cache, max_rows=max_rows)
        rows.append(counts.rows)
    assert rows[0] == rows[1]
    assert counts.model_calls >= counts.rows / 5


def test_little_of_a_batch_is_padding():
    lengths = [5 + 7 * i % 60 for i in range(24)]
    with counting(toy_model(), operations=False) as counts:
        results = mdm.decode(
            toy_model(), [[9] * n for n in lengths], "confidence", gen_length=8, tokens_per_step=4, batch_size=4
        )
    needed = sum(result.forwards * len(result.sequence) for result in results)
    longest_of_four = [max(lengths[i : i + 4]) + 8 for i in range(0, 24, 4)]
    assert counts.positions < 1.1 * needed < 2 * 4 * sum(longest_of_four)  # at most, sorted; at least, in this order


@pytest.mark.parametrize("name", ["batch_size", "max_rows"])
@pytest.mark.parametrize("value", [0, -1, "many"])
def test_strange_sizes_are_refused(name, value):
    with pytest.raises(MdmError, match=f"^{name}={value}: should be .* or should be 'auto'"):
        mdm.decode(toy_model(), prompts(), "confidence", gen_length=4, **{name: value})


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_says_that_memory_ran_out_on_each_kind_of_device(error, ran_out):
    assert memory.out_of_memory(error) == ran_out
