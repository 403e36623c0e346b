"""Pseudo-perplexity: how likely a masked language model finds each residue of a sequence, given all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, fsum
from typing import Any

import torch
from mdm.api import load_model
from mdm.errors import MdmError, PromptError
from mdm.models import Model

from mdm_protein.kept import checkpoint
from mdm_protein.sequences import STANDARD

WORST = 700.0
"""Nats; e to this power is near the largest number there is."""


@dataclass(frozen=True)
class Pace:
    """How much of a sequence is scored, and how much of it the scorer sees."""

    batch_size: int = 32
    """rows of a forward"""
    stride: int = 1
    """every so many residues one is scored"""
    window: int = 1022
    """residues that are seen: of a longer sequence those around the one that is scored"""


class Scorer:
    """A masked language model of proteins, in float32.

    Raises:
        MdmError: there is no such model, or it is of another kind.
    """

    def __init__(self, name: str, device: str, pace: Pace | None = None) -> None:
        self.name, self.pace = name, pace or Pace()
        self._model: Model = load_model(name, device=device, dtype="float32")
        spec = self._model.spec
        if spec.attention != "full" or spec.shift:
            raise MdmError(f"{name} is a {spec.family} model: a scorer is a masked language model, such as ESM-2")
        if self._model.tokenizer is None:
            raise MdmError(f"{name} has no tokenizer, so nothing says which token is which residue")

    @cached_property
    def question(self) -> dict[str, Any]:
        """What a pseudo-perplexity hangs on, beside the sequence."""
        return {"scorer": checkpoint(self.name), "stride": self.pace.stride, "window": self.pace.window}

    def places(self, sequence: str) -> list[int]:
        """The residues that are scored: every ``stride``-th, of those that are one of the 20 amino acids."""
        return [place for place in range(0, len(sequence), self.pace.stride) if sequence[place] in STANDARD]

    def pseudo_perplexity(self, sequence: str, on_progress: Callable[[int], None] = lambda done: None) -> float | None:
        """exp of the mean over residues of -ln p(residue | all others), each masked by itself, one row a residue.

        From 1 (each residue is certain) upwards; by chance among V tokens V. The probability is that over the whole
        vocabulary (Salazar et al. 2020, arXiv:1910.14659; of ESM-2: Lin et al. 2023, doi:10.1126/science.ade2574).

        Args:
            on_progress: is given the number of residues done.

        Returns:
            None of a sequence without any residue to score.

        Raises:
            MdmError: the scorer does not read one residue a token, or cannot take so many.
        """
        ids, places, rows = self._ids(sequence), self.places(sequence), self.pace.batch_size
        losses: list[float] = []
        for start in range(0, len(places), rows):
            losses += self._losses(ids, places[start : start + rows], self.pace.window)
            on_progress(len(losses))
        return exp(fsum(losses) / len(losses)) if losses else None

    def _ids(self, sequence: str) -> list[int]:
        ids = self._model.encode(sequence, None) if sequence else []
        if len(ids) != len(sequence):
            raise MdmError(
                f"{self.name} reads {len(sequence)} residues as {len(ids)} tokens: a scorer has a token for each"
            )
        return ids

    def _losses(self, ids: Sequence[int], places: Sequence[int], window: int) -> list[float]:
        """-ln p of the residues at ``places``, in nats."""
        model, spec = self._model, self._model.spec
        starts = [max(0, min(place - window // 2, len(ids) - window)) for place in places]
        rows = torch.tensor([[*spec.prefix, *ids[s : s + window], *spec.suffix] for s in starts], device=model.device)
        at = torch.tensor([len(spec.prefix) + p - s for p, s in zip(places, starts, strict=True)], device=model.device)
        each = torch.arange(len(places), device=model.device)
        true = rows[each, at]
        rows[each, at] = spec.mask_id
        positions = torch.arange(rows.shape[1], device=model.device).expand_as(rows)
        try:
            with torch.inference_mode():
                logits = model.head(model.hidden(rows, positions)[each, at])
        except torch.OutOfMemoryError:
            raise MdmError(
                f"no memory for {len(places)} rows of {rows.shape[1]} tokens: take a smaller --batch-size or --window"
            ) from None
        except PromptError as error:
            raise MdmError(f"{error}; --window {max(1, window // 2)} shows the scorer less of a sequence") from None
        losses = -logits.float().log_softmax(-1)[each, true]
        if not (losses <= WORST).all():
            raise MdmError(f"{self.name} gives probabilities that are not finite, or nothing: its weights are damaged")
        return losses.double().cpu().tolist()
