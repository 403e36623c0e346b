"""A run whose examples are decoded on a Ray cluster; this process alone writes its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import files, presets, run as runs
from mdm.runs.conditions import record_model
from mdm.runs.config import RunConfig
from mdm.runs.decode_examples import Progress, RunContext
from mdm.runs.results import REPEAT_ROWS, ResultsWriter
from mdm.runs.variants import Variant
from mdm.runs.watch import RunObserver

from mdm_ray.cluster import Devices, check_device, connected, devices, how_many, import_ray
from mdm_ray.worker import WARNING, Decoded, Share, Tries, Worker

BATCHES = 4
"""Batches in a share: its end, where rows of a batch stay empty, is then short beside it."""
SHARE = 64
"""Examples in a share where the batch is as large as fits."""


def run(
    config: RunConfig, out: Path, observer: RunObserver | None = None, *, fail_fast: bool = False,
    retry_failed: bool = False, workers: int | None = None, gpus: int | None = None, share: int | None = None,
    address: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """``mdm.runs.run.run``, with the examples decoded by workers on a Ray cluster.

    Args:
        workers: how many hold the model; None: as many as fit into the cluster.
        gpus: of each worker; None: one where the cluster has any.
        share: examples that a worker is given at once.
        address: of the cluster; None: that of ``RAY_ADDRESS``, else one of this machine's own.

    Returns:
        The content of ``summary.json``.

    Raises:
        MdmError, Interrupted: as of a run in one process; an MdmError also where the workers do not fit into the
            cluster, or die time and again.
    """
    import_ray()
    check_device(config, gpus)
    with connected(address, workers):
        each = devices(config, gpus)
        cluster = Cluster(how_many(workers, each), each, share)
        return runs.run(
            config, out, observer, fail_fast=fail_fast, retry_failed=retry_failed, decode_left=cluster.decode_left
        )


@dataclass
class Cluster:
    """Workers of the connected cluster: how many, and what each takes of it."""

    workers: int
    each: Devices
    share: int | None = None
    _said: set[str] = field(default_factory=set)

    def decode_left(self, run: RunContext, variants: Sequence[Variant], out: Path) -> None:
        """Decode what is left of the variants of one model, and write each share as soon as it is decoded."""
        name, preset = variants[0].model, run.config.preset
        progress = [Progress(run, variant) for variant in variants]
        shares = [share for number, variant in enumerate(variants) for share in self._shares(run, number, variant)]
        for number, bar in enumerate(progress):
            bar.begin(sum(len(share.examples) for share in shares if share.variant == number))
        is_new = True
        with ExitStack() as stack:
            run.observer.on_note(f"loading {name} in {self.workers} workers")
            writers = [stack.enter_context(variant.results.writing()) for variant in variants]
            for decoded in self.decode(run, name, shares):
                if decoded.facts and is_new:
                    is_new = False
                    record_model(out, name, decoded.facts)
                    for warning in presets.warnings(preset, {name: decoded.facts["family"]}):
                        run.observer.on_warning(warning)
                self._pass_on(run.observer, decoded.said)
                _write(decoded, writers[decoded.variant], progress[decoded.variant])
                if decoded.error is not None:
                    raise MdmError(decoded.error)

    def _shares(self, run: RunContext, number: int, variant: Variant) -> Iterator[Share]:
        left = [
            (index, repeat, example)
            for repeat in range(run.config.repeats)
            for index, example in enumerate(run.examples)
            if index + repeat * REPEAT_ROWS not in variant.results.by_row
        ]
        batch = run.config.batch_size
        size = self.share or (BATCHES * batch if isinstance(batch, int) else SHARE)
        if self.share is None:  # fewer, where some workers had nothing to do otherwise
            size = min(size, ceil(len(left) / self.workers))
        for first in range(0, len(left), max(1, size)):
            yield Share(number, left[first : first + size])

    def decode(self, run: RunContext, model: str, shares: Sequence[Share]) -> Iterator[Decoded]:
        """What becomes of each share, in any order."""
        ray = import_ray()
        from ray import data as ray_data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray_data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        tries = ray.remote(Tries).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        dataset = ray_data.from_items([{"share": share} for share in shares], override_num_blocks=len(shares))
        decoded = dataset.map_batches(
            Worker, batch_size=None, fn_constructor_args=(run.config, model, run.fail_fast, tries),
            compute=ray_data.ActorPoolStrategy(size=self.workers), num_cpus=self.each.cpus, num_gpus=self.each.gpus,
        )  # fmt: skip
        for row in decoded.iter_rows():
            yield row["decoded"]

    def _pass_on(self, observer: RunObserver, said: Sequence[str]) -> None:
        """Say what workers say, but each thing once."""
        for text in said:
            if text not in self._said:
                self._said.add(text)
                if text.startswith(WARNING):
                    observer.on_warning(text.removeprefix(WARNING))
                else:
                    observer.on_note(text)


def _write(decoded: Decoded, writer: ResultsWriter, progress: Progress) -> None:
    for result, trace in decoded.results:
        if result.image is not None:
            path = writer.folder.folder / result.image
            with files.os_errors_as_mdm_errors(path, "write"):
                path.parent.mkdir(exist_ok=True)
            with files.atomic_file(path) as part:
                part.write_bytes(decoded.images[result.row])
        writer.add(result, trace)
        progress.add(result)
