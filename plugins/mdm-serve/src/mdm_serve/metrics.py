"""What Prometheus is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from mdm.api import Update

    from mdm_serve.worker import Worker

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
"""Bounds of the histogram of latencies."""
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Bounds of the histogram of steps per block."""


class Metrics:
    """Counters of one server. They are safe to use from the loop's thread and the worker's alike."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("mdm_requests", "Requests answered.", ["endpoint", "status"], registry=self.registry)
        self.seconds = Histogram(
            "mdm_request_seconds", "Seconds from a request's first byte to its answer's last.", ["endpoint"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("mdm_rows", "Rows that ended, by how.", ["finish"], registry=self.registry)
        self.tokens = Counter("mdm_committed_tokens", "Tokens of answers that became final.", registry=self.registry)
        self.forwards = Counter("mdm_forwards", "Forward passes of the model.", registry=self.registry)
        self.block_steps = Histogram(
            "mdm_block_steps", "Steps that a block took, of rows that ended.", buckets=STEPS, registry=self.registry
        )

    def watch(self, worker: Worker) -> None:
        """Show what a worker is doing, read when Prometheus asks."""
        gauges = {
            "mdm_rows_waiting": ("Rows that wait for room.", lambda: worker.waiting),
            "mdm_rows_running": ("Rows that are being decoded.", lambda: worker.state.running),
            "mdm_row_tokens": ("Tokens of the canvases that are held.", lambda: worker.state.row_tokens),
            "mdm_engines": (
                "Engines, one for each set of settings that cannot be mixed.",
                lambda: worker.state.engines,
            ),
        }
        for name, (help, value) in gauges.items():
            Gauge(name, help, registry=self.registry).set_function(value)

    def observe(self, update: Update) -> None:
        """Count what a step did to a row."""
        self.tokens.inc(len(update.tokens))
        if update.finish is not None:
            self.rows.labels(update.finish).inc()
        for steps in update.result.block_steps if update.result is not None else ():
            self.block_steps.observe(steps)

    def text(self) -> bytes:
        """Everything in Prometheus' format."""
        return generate_latest(self.registry)
