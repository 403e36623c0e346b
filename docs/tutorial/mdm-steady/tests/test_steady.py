"""The sampler keeps what every sampler promises, and does what it is for."""

from mdm.protocols import Commit
from mdm_steady import Steady, SteadyOptions
from mdm_testing import parametrize_with_checks, run, subject, toy_model
from mdm_testing.probe import Watched, decode, prompts


@parametrize_with_checks("sampler", ["steady"])
def test_conforms(check):
    check()


def rows_of_steps(**settings):
    """Each row of each step: its id, its masks as {position: (token, confidence)}, and the positions it commits."""
    watched = Watched(Steady(SteadyOptions(steps=2)))
    decode(toy_model(), prompts(), watched, **settings)
    for step in watched.decided:
        for row, key in enumerate(step.state.row_id.tolist()):
            valid, scores = step.scores.valid[row], step.scores
            at = scores.positions[row][valid].tolist()
            said = zip(scores.token[row][valid].tolist(), scores.confidence[row][valid].tolist(), strict=True)
            yield key, dict(zip(at, said, strict=True)), scores.positions[row][step.commit.where[row]].tolist()


def test_steady_masks_go_first_whichever_rows_share_the_batch():
    history, out_of_order = {}, 0
    for row, masks, committed in rows_of_steps(batch_size=2, gen_length=[4, 8, 6, 3], block_length=8):
        for position, (token, _) in masks.items():
            before, times = history.get((row, position), (None, 0))
            history[row, position] = token, times + 1 if token == before else 1
        order = sorted(masks, key=lambda p: (history[row, p][1] >= 2, masks[p][1]), reverse=True)
        assert sorted(committed) == sorted(order[: len(committed)])
        out_of_order += sorted(committed) != sorted(sorted(masks, key=lambda p: -masks[p][1])[: len(committed)])
    assert out_of_order, "the order of steps is that of confidence alone"


def test_a_step_with_a_budget_of_0_commits_nothing_and_is_remembered():
    watched = Watched(Steady(SteadyOptions()))
    [result] = decode(toy_model(), prompts(lengths=(5,)), watched, schedule="dream", steps=24)
    assert toy_model().spec.mask_id not in result.tokens
    waits = [step for step in watched.decided if step.state.budget == 0]
    assert waits
    for step in waits:
        at = step.scores.positions
        assert not step.commit.where.any()
        assert (step.commit.memory.times.gather(1, at) > 0).all()


class ByPlace(Steady):
    """The mistake: what is remembered lies in the sampler itself, by the place of the row in the batch."""

    memory = None

    def begin(self, state):
        return None

    def decide(self, state, scores, memory, draws):
        if self.memory is None or self.memory.token.shape != state.tokens.shape:
            self.memory = super().begin(state)
        commit = super().decide(state, scores, self.memory, draws)
        self.memory = commit.memory
        return Commit(commit.where, commit.tokens)


def test_memory_by_place_in_the_batch_is_caught():
    failed = {outcome.check for outcome in run(subject("sampler", ByPlace)) if not outcome.ok}
    assert failed == {"rows_may_come_and_go", "is_a_pure_function", "keeps_nothing_in_itself"}
