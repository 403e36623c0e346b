"""Cache modes that remember: what they are shown, and that their memory goes with the rows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from mdm.models import attention
from mdm.models.kv_store import KVStore
from mdm.protocols import AttentionMap, BaseCache, BaseSampler, Commit, NoOptions, Plan, Rowwise, top_k
from mdm_testing.counters import counting
from mdm_testing.probe import decode, essence, looking, plain, prompts
from mdm_testing.toy import toy_model
from torch import Tensor


@dataclass(frozen=True)
class Since(Rowwise):
    commits: Tensor
    """int64 ``[B]``: tokens committed since all was computed"""


class ByCommits(BaseCache):
    """Computes the block, and all of the canvas once so many tokens were committed since it last did."""

    def __init__(self, most):
        super().__init__(NoOptions())
        self.most = most

    def begin(self, state):
        return Since(torch.full_like(state.step, self.most))

    def plan(self, state, spec, memory=None):
        whole = state.in_canvas & (memory.commits >= self.most)[:, None]
        return Plan(query=whole | state.in_block, write=whole, window=state.in_block)

    def learn(self, seen, memory):
        changed = (seen.before.tokens != seen.after.tokens).sum(1)
        return Since(memory.commits.where(~seen.plan.write.any(1), 0) + changed)


@pytest.mark.parametrize("sampler", [plain, looking])
def test_what_is_remembered_is_the_row_s_own(sampler):
    given, lengths = prompts(), [10, 3, 8, 6]
    together = decode(toy_model(), given, sampler(), ByCommits(3), gen_length=lengths, batch_size=2, tokens_per_step=2)
    for i, result in enumerate(together):
        [alone] = decode(
            toy_model(), [given[i]], sampler(), ByCommits(3), gen_length=lengths[i], row_ids=[i], tokens_per_step=2
        )
        assert essence(alone) == essence(result)


def test_a_refresh_comes_after_so_many_commits():
    with counting(toy_model()) as counts:
        decode(toy_model(), prompts(lengths=(5,)), plain(), ByCommits(3), gen_length=12)
    assert (counts.model_calls, counts.positions) == (12, 4 * 17 + 8 * 4)


def test_always_to_compute_all_is_no_cache():
    none, all_of_it = (decode(toy_model(), prompts(), plain(), cache) for cache in ("none", ByCommits(0)))
    assert [essence(r) for r in none] == [essence(r) for r in all_of_it]


class Fork(BaseSampler):
    """Two beams from the first step on; the second one commits the runner-up position."""

    def begin(self, state):
        return Since(state.step)

    def decide(self, state, scores, memory, draws):
        first = top_k(scores.log_odds, scores.valid, state.budget)
        if len(state.step) > 1:
            return Commit(first, scores.token)
        both = torch.stack([first[0], top_k(scores.log_odds, scores.valid, state.budget + 1)[0] & ~first[0]])
        source = torch.zeros(2, dtype=torch.long)
        return Commit(both, scores.token[source], source=source, memory=memory.rows(source))

    def pick(self, state, memory):
        return torch.ones(1, dtype=torch.long)


def test_forks_take_along_what_is_remembered():
    class Watching(ByCommits):
        def learn(self, seen, memory):
            learned = super().learn(seen, memory)
            assert len(learned.commits) == len(seen.scores.valid) == len(seen.plan.query) == len(seen.after.step)
            shown.append(learned.commits.tolist())
            return learned

    shown = []
    [result] = decode(toy_model(), prompts(lengths=(5,)), Fork(NoOptions()), Watching(3), gen_length=4)
    assert shown == [[1, 1], [2, 2], [3, 3], [1, 1]]
    assert len(result.trace) == 4


class Rows(BaseCache):
    """Keeps the sum over layers of how much is attended to each position, which adds up to the layers' lines."""

    uses_kv = False
    reads_attention = True
    sees = "canvas"

    def __init__(self):
        super().__init__(NoOptions())
        self.seen = []

    def begin(self, state):
        return Since(state.step)

    def plan(self, state, spec, memory=None):
        return Plan(query=state.in_canvas, write=state.in_canvas & False, window=state.in_canvas)

    def fold(self, attention: AttentionMap, folded):
        lines = attention.weights * attention.valid[..., None]
        return lines.sum(1) if folded is None else folded + lines.sum(1)

    def learn(self, seen, memory):
        self.seen.append(seen)
        return memory


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_attention_is_that_of_the_layers(guidance):
    model, cache = toy_model(), Rows()
    decode(model, prompts(lengths=(5, 3)), plain(), cache, gen_length=4, max_rows=1, guidance=guidance)
    first = cache.seen[0]
    attending = deepcopy(model.body)  # transformers leaves hooks on what gives its attention, and they do not compile
    attending.set_attn_implementation("eager")
    for row, length in enumerate((9, 7)):
        maps = attending(input_ids=first.before.tokens[row : row + 1, :length], output_attentions=True).attentions
        wanted = sum(layer[0].mean(0).sum(0) for layer in maps)
        torch.testing.assert_close(first.folded[row, :length], wanted)
        assert not first.folded[row, length:].any()


def test_masks_outside_the_block_are_shown_to_a_mode_that_asks():
    cache = Rows()
    decode(toy_model(), prompts(lengths=(5,)), plain(), cache, gen_length=8)
    counts = [int(seen.scores.valid.sum()) for seen in cache.seen]
    assert counts == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_window_attends_as_its_positions_do_in_the_whole():
    """Where what is stored is as it was, whatever fills up a shorter row."""
    model, tokens = toy_model(), torch.tensor(prompts(lengths=(9, 9)))
    tokens[1] += 1
    at = torch.arange(9).expand(2, -1)
    window = torch.tensor([[0, 3, 7, 8], [2, 5, 1, 4]])
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    maps: dict[str, list[Tensor]] = {"whole": [], "window": []}
    store = KVStore(model, 2, 9)
    with torch.inference_mode():
        for name, positions, view in (
            ("whole", at, store.full([0, 1], write=True)),
            ("window", window, store.window([0, 1], window, valid=valid)),
        ):
            with attention.watched_by(lambda weights, _, seen=maps[name]: seen.append(weights)):
                model.hidden(tokens.gather(1, positions), positions, cache=view)
    for whole, part in zip(maps["whole"], maps["window"], strict=True):
        lines = whole.gather(1, window[..., None].expand(-1, -1, 9))
        torch.testing.assert_close(part[valid], lines[valid])
