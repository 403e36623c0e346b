"""Programs that are judged in the background of the decoding, as many at once as there are cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from mdm_code.sandbox import Job, Limits, Verdict, run


class Grades(Future, Mapping[str, float]):
    """Grades that are being computed; reading them as a mapping waits for them."""

    def __getitem__(self, name: str) -> float:
        return self.result()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.result())

    def __len__(self) -> int:
        return len(self.result())

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def cores() -> int:
    """This process's share of the machine's cores, where a launcher has started several processes on it.

    More sandboxes than cores would run into their limits on the clock, so that grades depended on the load.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, len(os.sched_getaffinity(0)) // (int(local) if local.isdigit() and int(local) else 1))


class Pool:
    """One thread for each core of this process, which waits for a sandbox."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(cores(), thread_name_prefix="mdm-code")

    def grade(self, job: Job, published: Job | None) -> Grades:
        """The grades of a job, and of the job that the published rule makes: the same one, another, or none."""
        grades = Grades()
        self._threads.submit(self._run, job, published).add_done_callback(lambda done: _settle(grades, done))
        return grades

    def _run(self, job: Job, published: Job | None) -> dict[str, float]:
        ours = run(job, self._limits)
        strict = ours if published is job else run(published, self._limits) if published else Verdict(False)
        passed = {"passed": float(ours.passed), "published": float(strict.passed)}
        return passed | {"timeout": float(ours.reason == "time")}

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _settle(grades: Grades, done: Future[dict[str, float]]) -> None:
    if done.cancelled():
        grades.cancel()
    elif error := done.exception():
        grades.set_exception(error)
    else:
        grades.set_result(done.result())
