"""Shared by HumanEval and MBPP: grading in a sandbox, two readings of a completion, pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb
from typing import Any, ClassVar

from mdm.protocols import BaseTask, NoOptions
from pydantic import Field

from mdm_code import programs, sandbox, syntax
from mdm_code.pool import Grades, Pool

KS = (1, 2, 5, 10, 20, 50, 100)


class CodeOptions(NoOptions):
    """Limits of the sandbox."""

    timeout: int = Field(5, ge=1, description="CPU seconds of a program; on the clock it has three times as many")
    memory: int = Field(1024, ge=64, description="MiB of memory of a program")


class CodeTask(BaseTask):
    """A task whose grader runs what the model wrote."""

    executes_code: ClassVar[bool] = True
    metric: ClassVar[str] = "passed"

    def __init__(self, options: Any) -> None:
        sandbox.check()
        super().__init__(options)
        self._pool: Pool | None = None

    def judge(self, job: sandbox.Job, published: str) -> Grades:
        """``passed``: every test passed; ``timeout``: it ran out of time; ``published``: every test passed with the
        program that the published rule reads, which is run only where it is another one, and Python."""
        if self._pool is None:
            seconds = self.options.timeout
            self._pool = Pool(sandbox.Limits(cpu=seconds, wall=3.0 * seconds, memory=self.options.memory * 2**20))
        if programs.same(job.program, published):
            return self._pool.grade(job, job)
        return self._pool.grade(job, replace(job, program=published) if syntax.parsed(published) else None)

    def close(self) -> None:
        """Let the sandboxes go; what waits for one is given up."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def aggregate(self, grades: Mapping[str, Sequence[Mapping[str, float]]]) -> Mapping[str, float]:
        """``pass@k`` for every usual k up to the repeats that each example has, and for all of them."""
        repeats = min((len(of_one) for of_one in grades.values()), default=0)
        counts = [(len(of_one), sum(grade["passed"] == 1 for grade in of_one)) for of_one in grades.values()]
        return {
            f"pass@{k}": sum(pass_at(k, n, right) for n, right in counts) / len(counts)
            for k in sorted({k for k in (*KS, repeats) if 0 < k <= repeats})
        }


def pass_at(k: int, n: int, right: int) -> float:
    """The chance that one of ``k`` of ``n`` programs is right: 1 - C(n - right, k) / C(n, k), without bias
    (Chen et al. 2021, arXiv:2107.03374, equation 1)."""
    return 1 - comb(n - right, k) / comb(n, k)
