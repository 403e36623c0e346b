"""Times of one short answer under several numbers of threads, for docs/threads.md: ``python docs/make_threads.py``.

Run it beside whatever keeps the cores busy. Turns are taken, so that all meet the same load.
"""

from __future__ import annotations

import time

import mdm
import torch
from mdm.models.threads import SMALL, use_threads

RUNS = 10


def main() -> None:
    ours = torch.get_num_threads()
    model = mdm.load_model("tiny", device="cpu")
    seconds: dict[str, list[float]] = {"auto": [], str(ours): [], "1": []}
    for _ in range(RUNS):
        for name, times in seconds.items():
            torch.set_num_threads(ours)
            use_threads("auto" if name == "auto" else int(name), SMALL - 1, "cpu")
            start = time.perf_counter()
            mdm.decode(model, ["12+30="], gen_length=4)
            times.append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(
            f"--threads {name}: {min(times):.2f} to {max(times):.2f} s, slowest / fastest {max(times) / min(times):.1f}"
        )


if __name__ == "__main__":
    main()
