"""Judges jobs for ``sandboxes``, as whatever user runs this: JSON lists on stdin and stdout."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from mdm_code.sandbox import Job, Limits, Machine, run


def main() -> None:
    asked = json.load(sys.stdin)
    limits, machine = Limits(**asked["limits"]), Machine(**asked["machine"])
    with ThreadPoolExecutor(asked["workers"]) as pool:
        verdicts = list(pool.map(lambda job: run(Job(*job), limits, machine), asked["jobs"]))
    json.dump([(verdict.passed, verdict.reason, verdict.layers) for verdict in verdicts], sys.stdout)


main()
