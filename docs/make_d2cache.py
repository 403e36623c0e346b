"""Accuracy of cache modes that run whole layers beside their row-tokens, as Markdown for caches.md.

``python docs/make_d2cache.py none dual d2cache:p=0.1,k=4`` has a row for each mode, with its options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from make_refresh import CASES, measured

COLUMNS = ("task", "cache", "options", "accuracy", "cum. entropy", "forwards", "rows", "row-tokens")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", help="NAME or NAME:OPTION=VALUE,OPTION=VALUE")
    parser.add_argument("--limit", type=int, default=200, help="examples a row")
    parser.add_argument("--sampler", default="confidence")
    given = parser.parse_args(arguments)
    print("|", " | ".join(COLUMNS), "|")
    print("|---|---|---|", "---:|" * 5, sep="")
    for case in CASES:
        for each in given.caches:
            name, _, options = each.partition(":")
            chosen = dict(option.split("=") for option in options.split(",")) if options else {}
            print("|", " | ".join(measured(case, name, chosen, given.sampler, given.limit)), "|", flush=True)


if __name__ == "__main__":
    main()
