"""What runs on the cluster: a worker that holds a model, and decodes and grades the examples that it is given."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError, MdmWarning, blamed
from mdm.protocols.task import Example
from mdm.runs import files
from mdm.runs.conditions import model_facts
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import encode_example, load_model
from mdm.runs.decode_examples import ExampleDecoder, RunContext
from mdm.runs.hooks import RunHooks
from mdm.runs.processes import Rank
from mdm.runs.results import ExampleResult, ResultsFolder
from mdm.runs.run import open_task
from mdm.runs.variants import Variant, variants
from mdm.runs.watch import RunObserver

if TYPE_CHECKING:
    from mdm.models.model import Model


@dataclass(frozen=True)
class Share:
    """Some examples of one variant, which one worker decodes together."""

    variant: int
    """which of the variants of the model"""
    examples: Sequence[tuple[int, int, Example]]
    """index, repeat and example"""


@dataclass(frozen=True)
class Decoded:
    """What became of a share."""

    variant: int
    results: Sequence[tuple[ExampleResult, Sequence[Mapping[str, Any]]]] = ()
    """results with their trace lines, in the order in which they were made"""
    images: Mapping[int, bytes] = field(default_factory=dict)
    """row -> its picture, a PNG file"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """``model_facts`` of the worker's model"""
    said: Sequence[str] = ()
    """notes and warnings, the latter with ``WARNING`` in front"""
    error: str | None = None
    """why the run stops: a wrong request, or with ``fail_fast`` an example that failed"""


WARNING = "warning: "
TRIES = 4
"""How often a share is begun: workers that die over the same examples would go on doing so."""


class Tries:
    """An actor that counts how often each share was begun, by its variant and first example."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int, int]] = Counter()

    def begin(self, variant: int, index: int, repeat: int) -> int:
        """Count a beginning, and give how many there are."""
        self._begun[variant, index, repeat] += 1
        return self._begun[variant, index, repeat]


class Worker:
    """An actor of Ray Data, which makes one for each device.

    The model is loaded with the first share, so that a checkpoint that cannot be loaded comes back as a line.

    Args:
        config: the run's.
        model: one of its models.
        tries: the handle of an actor ``Tries``.
    """

    def __init__(self, config: RunConfig, model: str, fail_fast: bool, tries: Any = None) -> None:
        self._config, self._name, self._fail_fast, self._tries = config, model, fail_fast, tries
        self._open = ExitStack()

    def __call__(self, batch: Mapping[str, Sequence[Share]]) -> dict[str, list[Decoded]]:
        return {"decoded": [self._try(share) for share in batch["share"]]}

    def __del__(self) -> None:
        self._open.close()

    @cached_property
    def _model(self) -> Model:
        return load_model(self._config, self._name)

    @cached_property
    def _run(self) -> RunContext:
        task = self._open.enter_context(open_task(self._config))
        return RunContext(self._config, task, (), _Heard(), RunHooks(), Rank(), self._fail_fast)

    def _try(self, share: Share) -> Decoded:
        import ray

        if ray.get(self._tries.begin.remote(share.variant, *share.examples[0][:2])) <= TRIES:
            return self.decode(share)
        first, last = share.examples[0][2].id, share.examples[-1][2].id
        return Decoded(share.variant, error=f"workers died {TRIES} times over the examples {first} to {last}")

    def decode(self, share: Share) -> Decoded:
        """Decode and grade a share as a run of one process does, into a folder that is gone afterwards."""
        error: str | None = None
        heard = _Heard()
        with TemporaryDirectory(prefix="mdm-ray-") as temporary, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", MdmWarning)
            of_model = [one for one in variants(self._config, Path(temporary)) if one.model == self._name]
            variant = of_model[share.variant]
            try:
                with blamed("something that the run called ends it", only_exits=True):
                    self._decode_into(variant, share, heard)
            except MdmError as stop:
                error = str(stop)
            said = [*heard.said, *(WARNING + str(one.message) for one in warned if _is_ours(one))]
            return self._decoded(share.variant, variant.results.folder, said, error)

    def _decode_into(self, variant: Variant, share: Share, heard: RunObserver) -> None:
        run, model = replace(self._run, observer=heard), self._model
        encoded = [
            replace(encode_example(run.config, model, run.task, index, example), repeat=repeat)
            for index, repeat, example in share.examples
        ]
        with variant.results.writing() as writer:
            ExampleDecoder(run, model, variant, writer).decode(encoded)

    def _decoded(self, variant: int, folder: Path, said: Sequence[str], error: str | None) -> Decoded:
        results = ResultsFolder(folder).by_row.values()
        traces: dict[int, list[Mapping[str, Any]]] = {result.row: [] for result in results}
        for line in files.json_lines(folder / "trace.jsonl"):
            if line["row"] in traces:
                traces[line["row"]].append(line)
        return Decoded(
            variant,
            [(result, traces[result.row]) for result in results],
            {result.row: (folder / result.image).read_bytes() for result in results if result.image},
            model_facts(self._config, self._model) if results else {},
            said,
            error,
        )


def _is_ours(warned: warnings.WarningMessage) -> bool:
    return issubclass(warned.category, MdmWarning)


class _Heard(RunObserver):
    """Keeps what a worker says, for the process that has a user."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_note(self, text: str) -> None:
        self.said.append(text)

    def on_warning(self, text: str) -> None:
        self.said.append(WARNING + text)
