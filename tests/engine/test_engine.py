"""What the loop does in a step: one kind a trace line, one event, costs as they were, steps where there are masks."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.protocols import BaseSampler, Commit, NoOptions, top_k, upload
from mdm.scoring.logit_rules import LogitRules
from mdm_testing.counters import counting
from mdm_testing.toy import MASK, toy_model
from torch.utils._python_dispatch import TorchDispatchMode


class CommitsAndMasksAgain(BaseSampler):
    """Commits the first position; then the second while the first is masked again; then whatever is left."""

    works_on = "canvas"
    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        first, step = state.prompt_length[:, None], state.step[:, None]
        at_first, at_second = scores.positions == first, scores.positions == first + 1
        masked = state.masked.gather(1, scores.positions)
        where = torch.where(step == 0, at_first, torch.where(step == 1, at_first | at_second, masked))
        tokens = torch.where((step == 1) & at_first, state.mask_id, scores.token)
        return Commit(where & scores.valid, tokens)


def test_a_step_that_commits_and_masks_again_has_a_line_for_each_kind():
    steps = []
    [result] = mdm.decode(
        toy_model(), ["hi"], CommitsAndMasksAgain(NoOptions()), gen_length=3, on_step=lambda event: steps.append(event)
    )
    assert [(line["step"], line["kind"], line["positions"]) for line in result.trace] == [
        (0, "commit", [2]), (1, "commit", [3]), (1, "remask", [2]), (2, "commit", [2, 4]),
    ]  # fmt: skip
    paid = [entropy for line in result.trace if line["kind"] == "commit" for entropy in line["entropy"]]
    assert result.cumulative_entropy == pytest.approx(sum(paid))
    assert result.forwards == 3 and [len(event.lines) for event in steps] == [1, 2, 1]


def test_every_step_is_one_event_also_where_an_end_token_fills():
    model, steps = toy_model(), []
    [plain] = mdm.decode(model, ["hi"], "confidence", gen_length=6)
    first = plain.trace[0]
    [result] = mdm.decode(
        model, ["hi"], "confidence", gen_length=6, stop_at_eos=True, eos_token_id=first["tokens"][0],
        on_step=lambda event: steps.append(event),
    )  # fmt: skip
    assert all(event.lines for event in steps)
    assert len(steps) == len({line["step"] for line in result.trace})
    assert "fill" in {line["kind"] for line in result.trace} or first["positions"] == [7]


@pytest.mark.parametrize("max_rows", [None, 1, 3])
def test_forwards_are_the_model_calls_that_a_prompt_took_part_in(max_rows):
    model = toy_model()
    with counting(model, operations=False) as counts:
        [result] = mdm.decode(model, ["hello"], "info-gain", gen_length=8, max_rows=max_rows)
    assert (result.forwards, result.rows) == (counts.model_calls, counts.rows)


def test_steps_are_split_over_the_blocks_that_have_masks():
    holes = [MASK, MASK, *[1] * 10, MASK, MASK]
    [result] = mdm.decode(toy_model("block-causal"), [holes], "confidence", cache="block", gen_length=0, steps=4)
    assert len({line["step"] for line in result.trace}) == 4


def test_the_steps_planned_for_a_block_are_in_the_state():
    planned = []

    class Watches(BaseSampler):
        def decide(self, state, scores, memory, draws):
            planned.append((state.planned.tolist(), state.budget.tolist()))
            return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)

    lengths = {"gen_length": [8, 5], "block_length": 4, "tokens_per_step": 2}
    mdm.decode(toy_model(), ["hi", "ho"], Watches(NoOptions()), **lengths)
    assert planned == [([2, 2], [2, 2]), ([2, 2], [2, 2]), ([2, 1], [2, 1]), ([2], [2])]


class Made(TorchDispatchMode):
    """Counts tensors that are made from Python numbers: on a GPU each is a copy that the host waits for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


def test_rules_and_end_tokens_are_brought_to_the_device_once_a_decode():
    def made(gen_length):
        upload._on_device.cache_clear()
        with Made() as mode:
            mdm.decode(
                toy_model(), ["hi"], "confidence", gen_length=gen_length, stop_at_eos=True, eos_penalty=100.0,
                suppressed_tokens=[3, 4], allowed_tokens=[(0, 200)], eos_token_id=201, temperature=0.0,
            )  # fmt: skip
        return mode.count

    # What a step brings along is its budget, and only where that changes.
    assert made(16) - made(8) == 0


def test_rules_are_applied_as_they_are_written():
    logits = torch.arange(6.0)[None]
    rules = LogitRules({1: 0.5}, (2,), ((0, 5),))
    assert rules(logits, None).tolist() == [[0.0, 0.5, -torch.inf, 3.0, 4.0, -torch.inf]]
    assert rules.within(1, 3)(logits[:, 1:3], None).tolist() == [[0.5, -torch.inf]]
    assert LogitRules()(logits, None) is logits


@pytest.mark.parametrize("prompt", [[1, 2, 3, 4], [1, 2, 3, 4, 5]])
def test_a_grid_decodes_whole_blocks_and_answers_with_the_tokens_asked_for(prompt):
    [result] = mdm.decode(toy_model("block-causal"), [prompt], "confidence", cache="block", gen_length=5)
    assert len(result.tokens) == 5 and result.tokens == result.sequence[len(prompt) :][:5]
    assert len(result.sequence) == 12 and MASK not in result.sequence


def test_what_is_no_commit_is_named():
    class Forgets(BaseSampler):
        def decide(self, state, scores, memory, draws):
            Commit(scores.valid, scores.token)

    with pytest.raises(mdm.MdmError, match="sampler Forgets: decide returned None, which is no Commit"):
        mdm.decode(toy_model(), ["hi"], Forgets(NoOptions()), gen_length=2)


def test_a_class_in_place_of_an_instance_is_named():
    with pytest.raises(mdm.MdmError, match=r"the sampler BaseSampler is a class: give an instance of it"):
        mdm.decode(toy_model(), ["hi"], BaseSampler, gen_length=2)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 2**70])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(mdm.MdmError, match="seed=.*: it does not fit into 64 bits"):
        mdm.decode(toy_model(), ["hi"], "confidence", gen_length=2, seed=seed)
