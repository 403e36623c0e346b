"""Scores as functions of features. Everything is computed in float64; nothing here knows of pictures or networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from mdm.errors import MdmError
from numpy.typing import NDArray
from scipy.linalg.lapack import dpstrf

Array = NDArray[Any]

SPLIT = 5000
"""Pictures in a split of the Inception Score."""
NEIGHBOURS = 3
"""A picture's ball in feature space reaches to its third nearest neighbour."""
TILE = 1024
"""Rows of a table of distances that are held at once."""


@dataclass(frozen=True)
class Gaussian:
    """What FID keeps of a set of features: their mean ``[D]`` and covariance ``[D, D]`` (divided by N - 1)."""

    mean: Array
    covariance: Array


@dataclass
class Moments:
    """Mean and covariance of features that arrive in batches, of which none is kept."""

    dimensions: int
    count: int = 0
    _mean: Array = field(init=False)
    _scatter: Array = field(init=False)
    """Sum over the features of the outer products of what differs from the mean."""

    def __post_init__(self) -> None:
        self._mean = np.zeros(self.dimensions)
        self._scatter = np.zeros((self.dimensions, self.dimensions))

    def add(self, features: Array) -> None:
        """Take in features ``[N, D]``."""
        features = np.asarray(features, dtype=np.float64)
        mean = features.mean(axis=0)
        centred, shift = features - mean, mean - self._mean
        total = self.count + len(features)
        # Around the batch's own mean nothing large is subtracted from something large; how far the means lie apart is
        # one row more.
        rows = np.vstack([centred, shift * (self.count * len(features) / total) ** 0.5])
        self._scatter += rows.T @ rows
        self._mean = self._mean + shift * (len(features) / total)
        self.count = total

    def gaussian(self) -> Gaussian:
        """Their mean and covariance; raises an MdmError where there are fewer than two."""
        if self.count < 2:
            raise MdmError(f"a covariance needs 2 pictures at least, and there are {self.count}")
        return Gaussian(self._mean, self._scatter / (self.count - 1))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """FID, or sFID of spatial features: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

    With S = L L^T the last trace is the sum of the singular values of L1^T L2. So no root is taken of a product that is
    not symmetric, and singular covariances, as fewer pictures than dimensions have them, need no care.
    """
    shift = one.mean - other.mean
    overlap = np.linalg.svd(_root(one.covariance).T @ _root(other.covariance), compute_uv=False).sum()
    distance = shift @ shift + np.trace(one.covariance) + np.trace(other.covariance) - 2 * overlap
    return max(0.0, float(distance))  # what is below zero was rounded


def _root(covariance: Array) -> Array:
    """L ``[D, rank]`` with L L^T = ``covariance``, by Cholesky with pivots, which ends at the rank."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)
    root = np.empty((len(covariance), rank))
    root[pivots - 1] = np.tril(factor[:, :rank])
    return root


def inception_score(logits: Array, split: int = SPLIT) -> float:
    """Mean over splits of exp(mean KL(p(y|x) || p(y))), for logits ``[N, classes]`` in the order of the pictures.

    A last split that is not full counts as the others do.
    """
    return float(np.mean([_score(logits[start : start + split]) for start in range(0, len(logits), split)]))


def _score(logits: Array) -> float:
    logits = np.asarray(logits, dtype=np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    # A class that no picture can be of adds 0 times the logarithm of 0.
    marginal = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))
    return float(np.exp((p * (log_p - marginal)).sum(axis=1).mean()))


def precision_recall(
    reference: Array, sample: Array, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[float, float]:
    """Precision and recall of ``sample`` ``[N, D]`` against ``reference`` ``[M, D]`` (Kynkäänniemi et al. 2019).

    Precision is the share of samples that lie in the ball of some reference, recall that of references in the ball of
    some sample. ``on_progress`` is given how many tiles of distances are done, and of how many.

    Raises:
        MdmError: a set is too small to have three neighbours.
    """
    if min(len(reference), len(sample)) <= NEIGHBOURS:
        raise MdmError(
            f"precision and recall need {NEIGHBOURS + 1} pictures at least on either side, and there are "
            f"{len(sample)} against {len(reference)}"
        )
    total = -(-len(reference) // TILE) + 2 * -(-len(sample) // TILE)
    done = count(1)

    def tick() -> None:
        on_progress(next(done), total)

    reach_of_references, reach_of_samples = _reach(reference, tick), _reach(sample, tick)
    inside, covered = 0, np.zeros(len(reference), dtype=bool)
    for rows, distances in _distances(sample, reference):
        inside += int((distances <= reach_of_references).any(axis=1).sum())
        covered |= (distances <= reach_of_samples[rows, None]).any(axis=0)
        tick()
    return inside / len(sample), float(covered.mean())


def _reach(features: Array, tick: Callable[[], None]) -> Array:
    """The squared distance ``[N]`` of each feature to its third nearest neighbour; the nearest of all is itself."""
    reach = np.empty(len(features))
    for rows, distances in _distances(features, features):
        reach[rows] = np.partition(distances, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
        tick()
    return reach


def _distances(a: Array, b: Array) -> Iterator[tuple[slice, Array]]:
    """Squared distances ``[rows, len(b)]``, some rows of ``a`` at a time."""
    b = np.asarray(b, dtype=np.float64)
    squares = (b * b).sum(axis=1)
    for start in range(0, len(a), TILE):
        part = np.asarray(a[start : start + TILE], dtype=np.float64)
        distances = (part * part).sum(axis=1)[:, None] + squares - 2 * part @ b.T
        yield slice(start, start + len(part)), np.maximum(distances, 0)


def cosines(images: Array, texts: Array) -> Array:
    """The cosine ``[N]`` between each picture's embedding ``[N, D]`` and its text's; their mean is the CLIP score."""
    images, texts = (np.asarray(part, dtype=np.float64) for part in (images, texts))
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    products: Array = (images * texts).sum(axis=1)
    return products / lengths
