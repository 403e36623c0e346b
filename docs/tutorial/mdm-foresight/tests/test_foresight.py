"""The sampler keeps what every sampler promises, and does what it is for."""

from mdm_foresight import Foresight, ForesightOptions
from mdm_testing import parametrize_with_checks, toy_model
from mdm_testing.probe import Watched, decode, prompts


@parametrize_with_checks("sampler", ["foresight"])
def test_conforms(check):
    check()


def steps(candidates=4, **settings):
    """A prompt's result, and its steps as the sampler saw them."""
    watched = Watched(Foresight(ForesightOptions(candidates=candidates)))
    [result] = decode(toy_model(), prompts(lengths=(5,)), watched, **settings)
    return result, watched.decided


def entropy_of_the_rest(canvas):
    """By the model alone: the mean entropy (nats) of the masks that are left."""
    left = (canvas == toy_model().spec.mask_id).nonzero().flatten()
    log_p = toy_model().score_logits(canvas[None], positions=left)[0].log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean())


def test_it_commits_the_candidate_after_which_the_rest_is_least_uncertain():
    _, decided = steps(block_length=8)
    for step in decided[:-1]:
        canvas, scores = step.state.tokens[0], step.scores
        outcomes = {}
        for column in scores.log_odds[0].argsort(descending=True)[:4].tolist():  # all K are masks: there is one row
            after = canvas.clone()
            after[scores.positions[0, column]] = scores.token[0, column]
            outcomes[column] = entropy_of_the_rest(after)
        assert step.commit.where[0].nonzero().flatten().tolist() == [min(outcomes, key=outcomes.get)]


def test_it_is_not_always_the_most_confident():
    ahead, greedy = steps()[0], steps(candidates=1)[0]
    assert ahead.sequence != greedy.sequence or ahead.trace != greedy.trace


def test_with_fewer_masks_than_candidates_the_others_are_not_weighed():
    _, decided = steps(candidates=4)  # blocks of four masks
    assert [int(step.asked[0].valid.sum()) for step in decided] == [4, 3, 2, 0] * 2


def test_a_step_with_a_budget_of_0_commits_nothing():
    result, decided = steps(schedule="dream", steps=24)
    budgets = [int(step.state.budget) for step in decided]
    assert 0 in budgets
    assert [int(step.commit.where.sum()) for step in decided] == budgets
    assert toy_model().spec.mask_id not in result.tokens
