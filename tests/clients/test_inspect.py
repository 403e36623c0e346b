"""inspect_ai asks the server through its provider for OpenAI-compatible servers."""

from __future__ import annotations

import pytest
from served_sudokus import LENGTH, accuracy as graded, samples

pytestmark = pytest.mark.wide
pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (tox -e inspect has it)")

from inspect_ai import Task, eval as evaluate  # noqa: E402
from inspect_ai.dataset import MemoryDataset, Sample  # noqa: E402
from inspect_ai.scorer import Score, Target, mean, scorer  # noqa: E402
from inspect_ai.solver import TaskState, generate  # noqa: E402


@scorer(metrics=[mean()])
def sudoku():
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=graded(state.metadata, state.output.completion), answer=state.output.completion)

    return score


def sudokus() -> Task:
    """The same prompts, a turn of a user each, graded by the same function."""
    dataset = [Sample(one["prompt"], target=one["solution"], id=one["id"], metadata=one) for one in samples()]
    return Task(dataset=MemoryDataset(dataset), solver=generate(), scorer=sudoku())


@pytest.mark.parametrize("stream", [False, True])
def test_accuracy_and_answers_are_those_of_a_run(server, answers, tmp_path, monkeypatch, steps, stream):
    monkeypatch.setenv("MDM_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("MDM_API_KEY", "none")
    [log] = evaluate(
        sudokus(), model="openai-api/mdm/tiny", model_args={"stream": stream}, max_tokens=LENGTH, temperature=0, seed=3,
        extra_body={"steps": steps, "sampler": "confidence"}, log_dir=str(tmp_path), display="none",
    )  # fmt: skip
    assert log.status == "success", log.error
    each = {one.id: (one.scores["sudoku"].answer, one.scores["sudoku"].value) for one in log.samples}
    assert each == answers(steps)
    found = log.results.scores[0].metrics["mean"].value
    assert found == pytest.approx(sum(right for _, right in each.values()) / len(each))
    used = [one.output.usage for one in log.samples]
    assert all(one.input_tokens == 17 and 0 < one.output_tokens <= LENGTH for one in used)
