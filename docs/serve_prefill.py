"""What a long prompt costs the requests that it joins: step times before, at and after its first step.

Run: ``python docs/serve_prefill.py``
"""

from __future__ import annotations

import time
from statistics import median

import mdm
import torch

ROWS, STEPS, LONG = 8, 15, 2048
SHORT = "0134002130032010"


def main() -> None:
    torch.set_num_threads(1)
    model = mdm.load_model("tiny")
    for cache in ("dual", "none"):
        session = mdm.open_session(model, "confidence", cache=cache, block_length=32, batch_size=16)

        def step(session: mdm.api.Session = session) -> float:
            start = time.perf_counter()
            session.step()
            return 1000 * (time.perf_counter() - start)

        for row in range(ROWS):
            session.submit(SHORT, row_id=row, gen_length=96)
        for _ in range(10):
            step()
        before = [step() for _ in range(STEPS)]
        session.submit(SHORT * (LONG // len(SHORT)), gen_length=32)
        joins, after = step(), [step() for _ in range(STEPS)]
        print(
            f"{cache}: {median(before):.0f} ms a step of {ROWS} rows; {joins:.0f} ms where {LONG:,} tokens join; "
            f"{median(after):.0f} ms after"
        )


if __name__ == "__main__":
    main()
