"""``mdm pc-count``: how frequent each token is in a corpus, for ``pc`` and ``linear-position``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from mdm.errors import MdmError

BATCH = 1000
"""Rows that are tokenised together; the tokenizer spreads them over the cores."""
SAVE_EVERY = 5.0
"""Seconds of work that a kill may cost."""


@click.command("pc-count")
@click.option("--tokenizer", required=True, help="Model whose tokenizer counts: tiny, a folder or a hub id.")
@click.option("--input", "source", required=True, type=click.Path(path_type=Path), help="JSONL or CSV, plain or .gz.")
@click.option("--keys", default="text", show_default=True, help="Fields that hold text, separated by commas.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="JSON file for the counts.")
def pc_count(tokenizer: str, source: Path, keys: str, output: Path) -> None:
    """Count the tokens of a corpus. Started again after a kill, it goes on where it was."""
    from mdm.data import read
    from mdm.models.loading import tokenizer_of
    from mdm.runs.files import read_json, write_json
    from pydantic import create_model

    from mdm_pc.frequencies import Frequencies

    names = [key.strip() for key in keys.split(",") if key.strip()]
    if not names:
        raise MdmError("--keys names no field")
    fields: Any = dict.fromkeys(names, (str, ...))
    row_model: Any = create_model("TextRow", **fields)
    encode = tokenizer_of(tokenizer)
    part = output.with_name(output.name + ".part")
    size = source.stat().st_size if source.is_file() else 0
    asked = {"tokenizer": tokenizer, "input": str(source.resolve()), "size": size, "keys": names}
    begun = read_json(part)
    if begun and begun["of"] != asked:
        raise MdmError(f"{part} is an unfinished count of something else: delete it, or name another --output")
    counts: Counter[int] = Counter({int(k): v for k, v in begun.get("counts", {}).items()})
    done, saved = begun.get("line", 0), time.monotonic()

    def save() -> None:
        write_json(part, {"of": asked, "line": done, "counts": {str(k): v for k, v in counts.items()}})

    def add(texts: list[str]) -> None:
        for ids in encode(texts, add_special_tokens=False)["input_ids"]:
            counts.update(ids)

    total = sum(1 for _ in read(source, row_model))
    batch: list[str] = []
    rows = 0
    with click.progressbar(length=total, label="rows", file=sys.stderr) as bar:
        for number, row in read(source, row_model):
            rows += 1
            if number <= done:
                bar.update(1)
                continue
            batch += [getattr(row, name) for name in names]
            if len(batch) >= BATCH:
                add(batch)
                bar.update(rows - bar.pos)
                batch, done = [], number
                if time.monotonic() - saved > SAVE_EVERY:
                    save()
                    saved = time.monotonic()
        if batch:
            add(batch)
        bar.update(rows - bar.pos)
    if not counts:
        raise MdmError(f"{source} holds no token in {', '.join(names)}")
    frequencies = Frequencies(num_token=counts.total(), p_baseline_dict=dict(sorted(counts.items())))
    write_json(output, json.loads(frequencies.model_dump_json(by_alias=True)))
    part.unlink(missing_ok=True)
    click.echo(f"{frequencies.num_token} tokens of {len(frequencies.counts)} kinds in {rows} rows: {output}")
