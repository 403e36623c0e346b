"""A server of the embedded model with a chat template, and what `mdm run` makes of the same sudokus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from live_server import LiveServer
from served_sudokus import checkpoint, run

Answers = dict[str, tuple[str, float]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("served")
    with LiveServer(checkpoint(folder / "tiny"), ["--name", "tiny"], log=folder / "log") as server:
        server.model = folder / "tiny"
        yield server


@pytest.fixture(scope="session")
def answers(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Answers]:
    """Completion and accuracy of each sudoku in `mdm run` with so many steps."""
    made: dict[int, Answers] = {}

    def of(steps: int) -> Answers:
        if steps not in made:
            made[steps] = run(server.model, tmp_path_factory.mktemp("run") / "out", steps)
        return made[steps]

    return of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All solved, a token a step; and with so few steps that a part goes wrong."""
    if "steps" in metafunc.fixturenames:
        metafunc.parametrize("steps", [16, 2])
