"""Samplers that take back what they committed: what is traced, filled, kept in a block, and asked of named tokens."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm import registry
from mdm.protocols import BaseSampler, Commit, Evaluate, NoOptions, top_k
from mdm_testing.probe import essence, prompts
from mdm_testing.toy import MASK, toy_model

END = 201
SHAPE = {"gen_length": 8, "block_length": 4}
ON_GRID = ("none", "prefix", "dual", "block")
PROMPTS = prompts(200)


class Scripted(BaseSampler):
    """Does in each step what ``script`` says: tokens by their place in the answer; then commits what is left."""

    reads = "generated"
    pace = "own"
    works_on = "canvas"
    script = ()

    def decide(self, state, scores, memory, draws):
        step = int(state.step[0])
        where, tokens = scores.valid & state.masked.gather(1, scores.positions), scores.token.clone()
        if step < len(self.script):
            where = torch.zeros_like(where)
            for place, token in self.script[step].items():
                at = scores.positions == state.prompt_length[:, None] + place
                where, tokens = where | (at & scores.valid), tokens.masked_fill(at, token)
        return Commit(where, tokens)


def scripted(*script, **members):
    return type("Scripted", (Scripted,), {"script": script} | members)(NoOptions())


def told(result):
    """Step, kind, places in the answer and tokens of each line that changed something."""
    start = len(result.sequence) - len(result.tokens)
    return [
        (x["step"], x["kind"], [p - start for p in x["positions"]], x["tokens"]) for x in result.trace if x["positions"]
    ]


def replayed(result, prompt):
    canvas = prompt + [MASK] * (len(result.sequence) - len(prompt))
    for line in result.trace:
        for position, token in zip(line["positions"], line["tokens"], strict=True):
            canvas[position] = token
    return canvas


def test_what_a_commit_leaves_as_it_is_is_no_edit():
    [result] = mdm.decode(toy_model(), [[7, 8]], scripted({0: 1}, {0: 1, 1: 2, 2: MASK}), gen_length=4)
    assert told(result)[:2] == [(0, "commit", [0], [1]), (1, "commit", [1], [2])]


def test_one_decode_of_all_kinds():
    steps = []
    sampler = scripted({0: 1, 1: 2}, {0: 3, 1: MASK, 2: 4}, {3: END})
    [result] = mdm.decode(
        toy_model(), [[7, 8]], sampler, gen_length=6, stop_at_eos=True, eos_token_id=END, on_step=steps.append
    )
    assert told(result)[:-1] == [
        (0, "commit", [0, 1], [1, 2]), (1, "commit", [2], [4]), (1, "edit", [0], [3]), (1, "remask", [1], [MASK]),
        (2, "commit", [3], [END]), (2, "fill", [4, 5], [END, END]),
    ]  # fmt: skip
    assert told(result)[-1][:3] == (3, "commit", [1])
    assert replayed(result, [7, 8]) == result.sequence
    paid = [entropy for line in result.trace if line["kind"] == "commit" for entropy in line["entropy"]]
    assert result.cumulative_entropy == pytest.approx(sum(paid)) and len(paid) == 5
    assert [line["forwards"] for line in result.trace] == [1, 1, 0, 0, 1, 0, 1] and len(steps) == 4


def test_a_taken_back_end_token_takes_back_what_was_filled_behind_it():
    sampler = scripted({2: END}, {0: 1}, {2: MASK}, {1: 2})
    [result] = mdm.decode(toy_model(), [[7, 8]], sampler, gen_length=6, stop_at_eos=True, eos_token_id=END)
    assert told(result)[:-1] == [
        (0, "commit", [2], [END]), (0, "fill", [3, 4, 5], [END] * 3), (1, "commit", [0], [1]),
        (2, "remask", [2, 3, 4, 5], [MASK] * 4), (3, "commit", [1], [2]),
    ]  # fmt: skip
    assert told(result)[-1][2] == [2, 3, 4, 5] and END not in result.sequence
    assert replayed(result, [7, 8]) == result.sequence


def test_what_is_filled_stays_where_another_end_token_stands_before_it():
    """Until that one is taken back as well."""
    sampler = scripted({3: END}, {1: END}, {3: MASK}, {1: 5})
    [result] = mdm.decode(toy_model(), [[7, 8]], sampler, gen_length=6, stop_at_eos=True, eos_token_id=END)
    assert told(result)[:8] == [
        (0, "commit", [3], [END]), (0, "fill", [4, 5], [END] * 2), (1, "commit", [1], [END]), (1, "fill", [2], [END]),
        (2, "remask", [3], [MASK]), (2, "fill", [3], [END]),
        (3, "edit", [1], [5]), (3, "remask", [2, 3, 4, 5], [MASK] * 4),
    ]  # fmt: skip
    assert replayed(result, [7, 8]) == result.sequence


@pytest.mark.parametrize("kept", [True, False])
def test_a_row_that_lingers_is_filled_as_it_leaves_its_block(kept):
    """The end token of the first step is edited in the second: nothing may have been filled behind it."""

    def lingers(self, state, memory):
        return state.block_step < 3

    script = ({0: 1, 1: END, 2: 3, 3: 4}, {} if kept else {1: 2}, {})
    sampler = scripted(*script, works_on="block", lingers=lingers)
    [result] = mdm.decode(toy_model(), [[7, 8]], sampler, stop_at_eos=True, eos_token_id=END, **SHAPE)
    fills = [line for line in result.trace if line["kind"] == "fill"]
    if kept:
        assert [(line["step"], line["positions"]) for line in fills] == [(2, [6, 7, 8, 9])]
        assert result.forwards == 3
    else:
        assert not fills and result.sequence[3:5] == [2, 3] and result.forwards == 6
    assert replayed(result, [7, 8]) == result.sequence


class Revises(BaseSampler):
    """Commits the most confident mask, and in its block replaces all that is less likely than another token.

    Stays for two more steps in a block without masks.
    """

    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        masked = scores.valid & state.masked.gather(1, scores.positions)
        other = scores.valid & ~masked & (scores.held < scores.confidence)
        return Commit(top_k(scores.log_odds, masked, state.budget) | other, scores.token)

    def lingers(self, state, memory):
        return state.block_step < 6


class LooksAndRevises(Revises):
    """Weighs that commit against one without its edits, and promises to take one of them."""

    def decide(self, state, scores, memory, draws):
        commit = super().decide(state, scores, memory, draws)
        masked = state.masked.gather(1, scores.positions)
        where = torch.stack([commit.where & masked, commit.where], 1)
        tokens = commit.tokens[:, None].expand_as(where)
        ahead = yield Evaluate(Commit(where, tokens), where.any(-1), commits_a_candidate=True)
        value = ahead.entropy.where(ahead.valid, 0.0).sum(-1).masked_fill(~where.any(-1), torch.inf)
        choice = value.argmin(1)
        row = torch.arange(len(choice))
        return Commit(where[row, choice], commit.tokens, scores=ahead.pick(choice), known=where.any(-1).any(1))


class Forks(Revises):
    """Two rows for each prompt from the first step on; the second of them decodes and revises as the first does."""

    def decide(self, state, scores, memory, draws):
        commit = super().decide(state, scores, memory, draws)
        if bool((state.step > 0).any()):
            return commit
        source = torch.arange(len(state.step)).repeat_interleave(2)
        return Commit(commit.where[source], commit.tokens[source], source=source)

    def pick(self, state, memory):
        return torch.arange(0, len(state.step), 2)


def kinds(results):
    return {line["kind"] for result in results for line in result.trace if line["positions"]}


@pytest.mark.parametrize(
    ("sampler", "more"),
    [
        (Revises, {}), (Revises, {"guidance": 0.8}), (LooksAndRevises, {"temperature": 0.7, "tokens_per_step": 3}),
        *(
            pytest.param(sampler, more, marks=pytest.mark.wide)
            for sampler in (Revises, LooksAndRevises)
            for more in ({"guidance": 1.2}, {"max_rows": 1}, {"temperature": 0.9}, {"tokens_per_step": 2})
        ),
    ],
)  # fmt: skip
def test_a_block_causal_row_revises_its_block_alike_under_every_cache(sampler, more):
    """Only its own block is run while a row lingers, and what is stored as it leaves is the block as it is then."""
    model = toy_model("block-causal")
    plain = mdm.decode(model, PROMPTS, sampler(NoOptions()), reuse_scores=False, **SHAPE, **more)
    assert kinds(plain) == {"commit", "edit"}
    for cache in ON_GRID:
        kept = mdm.decode(model, PROMPTS, sampler(NoOptions()), cache=cache, batch_size=3, **SHAPE, **more)
        assert [essence(r) for r in kept] == [essence(r) for r in plain], cache
        assert sum(r.forwards for r in kept) <= sum(r.forwards for r in plain)


@pytest.mark.parametrize(("name", "attention"), [("dual", "full"), ("dual", "block-causal"), ("block", "block-causal")])
def test_a_row_that_lingers_runs_its_own_block_and_stores_nothing(name, attention):
    plugin, seen = registry.resolve("cache", name), []

    class Watched(plugin):
        def plan(self, state, spec):
            plan = super().plan(state, spec)
            seen.append((state, plan))
            return plan

    mdm.decode(toy_model(attention), PROMPTS, Revises(NoOptions()), cache=Watched(plugin.Options()), **SHAPE)
    lingering = 0
    for state, plan in seen:
        for b in (state.lingers & state.masked.any(1)).nonzero().flatten().tolist():
            assert torch.equal(plan.query[b], state.in_block[b]) and not plan.write[b].any()
            lingering += 1
    assert lingering > 4


@pytest.mark.parametrize("sampler", [Revises, LooksAndRevises, Forks])
def test_rows_that_linger_come_and_go_as_others_do(sampler):
    lengths = [7, 3, 8, 5]
    together = mdm.decode(toy_model(), PROMPTS, sampler(NoOptions()), **SHAPE | {"gen_length": lengths})
    refilled = mdm.decode(toy_model(), PROMPTS, sampler(NoOptions()), batch_size=2, **SHAPE | {"gen_length": lengths})
    assert [essence(r) for r in refilled] == [essence(r) for r in together] and "edit" in kinds(together)
    for i, prompt in enumerate(PROMPTS):
        size = {"gen_length": lengths[i], "row_ids": [i]}
        [alone] = mdm.decode(toy_model(), [prompt], sampler(NoOptions()), **SHAPE | size)
        assert essence(alone) == essence(together[i]) and alone.forwards == together[i].forwards


def test_a_lookahead_of_a_sampler_that_reads_committed_positions_serves_the_next_step():
    """Its answer scores them too: a forward at the first step of a block, and one lookahead a step."""
    [reused] = mdm.decode(toy_model(), PROMPTS[:1], LooksAndRevises(NoOptions()), **SHAPE)
    [afresh] = mdm.decode(toy_model(), PROMPTS[:1], LooksAndRevises(NoOptions()), reuse_scores=False, **SHAPE)
    assert essence(reused) == essence(afresh)
    assert reused.forwards < 0.7 * afresh.forwards


def test_the_schedule_may_run_out_while_a_row_lingers():
    seen = []

    class Watches(Revises):
        def decide(self, state, scores, memory, draws):
            seen.append((int(state.planned), int(state.budget), int(state.block_step), bool(state.lingers)))
            return super().decide(state, scores, memory, draws)

    mdm.decode(toy_model(), [[7, 8]], Watches(NoOptions()), gen_length=4, tokens_per_step=2)
    assert seen == [(2, 2, 0, False), (2, 2, 1, False), *((2, 0, step, True) for step in range(2, 6))]


def test_a_commit_names_positions_of_its_own_block_alone():
    """A token of another block cannot be committed or masked again: whoever tries is named."""

    class Greedy(Revises):
        def decide(self, state, scores, memory, draws):
            commit = super().decide(state, scores, memory, draws)
            where = commit.where[:, None]
            ahead = yield Evaluate(Commit(where, commit.tokens[:, None]), where.any(-1))
            shown.append((scores.positions[scores.valid].tolist(), state.block_bounds[0].tolist()))
            every = torch.ones_like(commit.where)
            tokens = torch.where(commit.where, commit.tokens, state.tokens.gather(1, scores.positions))
            return Commit(every, tokens, scores=ahead.pick(torch.zeros(1, dtype=torch.long)))

        def lingers(self, state, memory):
            return torch.zeros_like(state.entered_block)

    shown = []
    with pytest.raises(mdm.MdmError, match="Greedy commits position 6, whose score is not valid"):
        mdm.decode(toy_model(), [[7, 8]], Greedy(NoOptions()), **SHAPE)
    assert shown and all(places == list(range(*bounds)) for places, bounds in shown)


class Verifies(BaseSampler):
    """Commits the most confident mask; before, masks what is committed of the block and asks for its probability."""

    reads = "generated"
    pace = "own"
    answers = None

    def decide(self, state, scores, memory, draws):
        masked = scores.valid & state.masked.gather(1, scores.positions)
        committed = scores.valid & ~masked
        asked = Commit(committed[:, None], torch.full_like(scores.token, state.mask_id)[:, None])
        answer = yield Evaluate(asked, committed.any(1, keepdim=True), "span", held=state.tokens)
        self.answers.append((state, committed, scores.positions, answer.pick(torch.zeros_like(state.block))))
        return Commit(top_k(scores.log_odds, masked, state.budget), scores.token)


def verified(model, cache, **more):
    members = {"answers": [], **{name: more.pop(name) for name in ("reads", "keeps_logits") if name in more}}
    sampler = type("Verifies", (Verifies,), members)(NoOptions())
    mdm.decode(model, PROMPTS[:3], sampler, cache=cache, **SHAPE, **more)
    return sampler.answers


@pytest.mark.parametrize(("attention", "caches"), [("full", ("none",)), ("block-causal", ON_GRID)])
def test_the_probability_of_named_tokens_is_that_of_a_forward_by_hand(attention, caches):
    model = toy_model(attention)
    for cache in caches:
        checked = 0
        for state, committed, positions, answer in verified(model, cache):
            for b in committed.any(1).nonzero().flatten().tolist():
                old, at = state.tokens[b], positions[b][committed[b]]
                canvas = old[: int(state.in_canvas[b].sum())].clone()
                canvas[at] = MASK
                expected = model.score_logits(canvas[None], SHAPE["block_length"])[0].softmax(-1)[at, old[at]]
                given = dict(zip(answer.positions[b].tolist(), answer.held[b].tolist(), strict=True))
                assert [given[i] for i in at.tolist()] == pytest.approx(expected.tolist(), abs=1e-5)
                checked += len(at)
        assert checked > 20


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("more", [{}, {"max_rows": 2}, {"guidance": 0.5}, {"temperature": 0.7, "top_p": 0.9}])
def test_whatever_the_cache_named_tokens_have_the_probability_of_the_answers_own_logits(cache, more):
    whole = verified(toy_model(shift=True), cache, keeps_logits=True, **more)
    alone = verified(toy_model(shift=True), cache, **more)
    for (state, _, _, answer), (*_, fused) in zip(whole, alone, strict=True):
        named = state.tokens.gather(1, answer.positions)[..., None]
        held = answer.logits.softmax(-1).gather(-1, named)[..., 0]
        for other in (answer.held, fused.held):
            torch.testing.assert_close(other[answer.valid], held[answer.valid], atol=1e-5, rtol=0)


def test_only_who_asks_is_told():
    class Masked(Verifies):
        """Reads masks only, and so has no probability of its own."""

        reads = "masked"
        pace = "schedule"

        def decide(self, state, scores, memory, draws):
            assert scores.held is None
            where = top_k(scores.log_odds, scores.valid, state.budget)
            for held in (None, state.tokens):
                answer = yield Evaluate(Commit(where[:, None], scores.token[:, None]), where.any(1)[:, None], held=held)
                assert (answer.held is None) == (held is None)
            return Commit(where, scores.token)

    mdm.decode(toy_model(), PROMPTS, Masked(NoOptions()), **SHAPE)


FAULTS = {
    "a list": (lambda t: t.tolist(), {}, "Evaluate.held is"),
    "other numbers": (lambda t: t.float(), {}, r"Evaluate.held is float32 \[1, 10\] on cpu, and should be int64"),
    "the block alone": (lambda t: t[:, :4], {}, r"Evaluate.held is int64 \[1, 4\] on cpu"),
    "a promise": (lambda t: t, {"commits_a_candidate": True}, "an Evaluate with held commits no candidate"),
    "its scores": (lambda t: t, {}, "Commit.scores are those of an Evaluate with held"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_asked_of_named_tokens_is_refused(fault):
    held, more, words = FAULTS[fault]

    class Asks(BaseSampler):
        def decide(self, state, scores, memory, draws):
            where = top_k(scores.log_odds, scores.valid, state.budget)
            asked = Commit(where[:, None], scores.token[:, None])
            answer = yield Evaluate(asked, where.any(1)[:, None], held=held(state.tokens), **more)
            return Commit(where, scores.token, scores=answer.pick(torch.zeros_like(state.block)))

    with pytest.raises(mdm.MdmError, match=f"sampler Asks: {words}"):
        mdm.decode(toy_model(), [[7, 8]], Asks(NoOptions()), **SHAPE)


class LooksAndReads(BaseSampler):
    """Reads committed positions, and hands on the scores of its lookahead: more than a block that begins has."""

    reads = "generated"
    pace = "own"

    def decide(self, state, scores, memory, draws):
        masked = scores.valid & state.masked.gather(1, scores.positions)
        best = top_k(scores.log_odds, masked, torch.ones_like(state.step)) | (masked & (scores.confidence > 0.2))
        asked = Commit(best[:, None], scores.token[:, None])
        answer = yield Evaluate(asked, torch.ones(len(best), 1, dtype=torch.bool))
        return Commit(best, scores.token, scores=answer.pick(torch.zeros_like(state.step)))


@pytest.mark.parametrize("block_length", [2, 3])
def test_scores_that_are_known_of_one_row_leave_nothing_in_anothers(block_length):
    """A row that enters a block beside one whose scores are known is shown each position once."""
    shown = []

    class Watched(LooksAndReads):
        def decide(self, state, scores, memory, draws):
            shown.append(scores)
            return super().decide(state, scores, memory, draws)

    model, lengths = toy_model(), [7, 4, 9]
    given = [[7, 8, 9, 10], [3, 4], [5, MASK, 6, 7, MASK, 8, 9]]
    together = mdm.decode(model, given, Watched(NoOptions()), gen_length=lengths, block_length=block_length)
    for scores in shown:
        for positions, valid in zip(scores.positions, scores.valid, strict=True):
            at = positions[valid].tolist()
            assert at == sorted(set(at))
    for row, result in enumerate(together):
        [alone] = mdm.decode(
            model, [given[row]], LooksAndReads(NoOptions()), gen_length=lengths[row], block_length=block_length,
            row_ids=[row],
        )  # fmt: skip
        assert essence(alone) == essence(result)
