"""Shared by HumanEval and MBPP: grading in a sandbox, finding the code in a completion, pass@k."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any, ClassVar

from mdm.protocols import BaseTask, NoOptions
from pydantic import Field

from mdm_code import sandbox
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

    def judge(self, job: sandbox.Job) -> Grades:
        """``passed``: every test passed; ``timeout``: it ran out of time."""
        if self._pool is None:
            seconds = self.options.timeout
            self._pool = Pool(sandbox.Limits(cpu=seconds, wall=3.0 * seconds, memory=self.options.memory * 2**20))
        return self._pool.grade(job)

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


def code(completion: str, name: str) -> str:
    """The program in a completion: the fenced block that defines ``name``, else the first one, else all of it."""
    completion = completion.replace("\r\n", "\n")
    if "[BEGIN]" in completion:
        completion = completion.split("[BEGIN]", 1)[1]
    completion = completion.split("[DONE]", 1)[0]
    blocks = re.findall(r"^[ \t]*```[\w+-]*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", completion, re.M | re.S)
    return next((block for block in blocks if defines(block, name)), blocks[0] if blocks else completion)


def defines(source: str, name: str) -> bool:
    """Whether a function or class of this name is written down at the left margin."""
    return re.search(rf"^(?:async\s+def|def|class)\s+{re.escape(name)}\b", source, re.M) is not None
