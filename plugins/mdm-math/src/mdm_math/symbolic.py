"""Compares two LaTeX expressions by math-verify, in a process of its own that may be ended.

A formula such as 10^{10^{10}} keeps Python busy where no signal and no thread can stop it. Therefore a comparison runs
in another process, which ends itself when one takes too long, and is started again for the next.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading

SECONDS = 5
"""How long one comparison may take."""
MEMORY = 4 * 2**30
"""Bytes of address space of the process, where the system can limit it."""


class Comparer:
    """Starts the process with the first comparison; threads wait for each other. ``close`` ends it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def same(self, gold: str, answer: str, places: int | None = None) -> bool:
        """Whether both are equal, or, with ``places``, whether ``answer`` is ``gold`` rounded to so many decimals.

        Not so where it takes too long to tell. It never raises.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "mdm_math.symbolic", str(self._seconds)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
            assert self._process.stdin is not None and self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps([gold, answer, places]) + "\n")
                self._process.stdin.flush()
                said = self._process.stdout.readline()
            except (OSError, ValueError):
                said = ""
            if said not in ("true\n", "false\n"):
                self._end()
            return said == "true\n"

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError), process:
                pass


def _equal(gold: str, answer: str, places: int | None = None) -> bool:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    config = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last")
    extract = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=config)]
    left, right = (
        [one for one in parse(f"\\boxed{{{text}}}", extract, parsing_timeout=None) if not isinstance(one, str)]
        for text in (gold, answer)
    )
    if not left or not right:
        return False
    if places is not None:
        return not left[0].is_rational and bool(abs(left[0].doit().evalf(30) - right[0]) <= 0.5 * 10.0**-places)
    return bool(verify(left, right, timeout_seconds=None) and _close(left[0], right[0]))


def _close(gold: object, answer: object) -> bool:
    """Whether two numbers agree in twelve digits, however small; math-verify looks at six decimals."""
    import sympy

    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return True
    if gold.free_symbols or answer.free_symbols:
        return True
    a, b = gold.doit().evalf(30), answer.doit().evalf(30)
    return not (a.is_number and b.is_number) or bool(abs(a - b) <= sympy.Float("1e-12") * abs(a))


def main() -> None:
    """Answer each line of standard input, a JSON pair of expressions, by ``true`` or ``false``."""
    import faulthandler
    import os

    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = sys.stdout
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
        _equal("x+1", "1+x")  # loads all that is needed
        for line in sys.stdin:
            # It ends the process even inside one long operation, where no signal is handled.
            faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True, file=silent)
            try:
                equal = _equal(*json.loads(line))
            except Exception:
                equal = False
            faulthandler.cancel_dump_traceback_later()
            print("true" if equal else "false", file=answers, flush=True)


if __name__ == "__main__":
    main()
