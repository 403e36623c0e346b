"""What of a reference is nearest to a sequence, by words of residues and by alignment; and how diverse a set is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from mdm.errors import MdmError
from numpy.typing import NDArray

from mdm_protein.measures import K, words
from mdm_protein.sequences import AMINO_ACIDS, STANDARD

INDEX = {"".join(letters): place for place, letters in enumerate(product(AMINO_ACIDS, repeat=K))}
CHUNK = 512
"""Sequences of a reference that are compared at once."""

OPEN, EXTEND = -11, -1
"""Scores of a gap's first residue, and of each further one: BLAST's for BLOSUM62."""
MOST_PAIRS = 2 * 10**8
"""Pairs of residues that are compared for an alignment, each of which takes memory."""


def _vectors(sequences: Sequence[str]) -> NDArray[np.float32]:
    """``[N, 8000]``: 1 where a sequence has the word."""
    vectors = np.zeros((len(sequences), len(INDEX)), np.float32)
    for row, sequence in enumerate(sequences):
        vectors[row, [INDEX[word] for word in words(sequence)]] = 1
    return vectors


def _jaccard(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[A, B]``: Jaccard's index of each pair; 0 of two without words."""
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1)[None] - both
    return both / np.maximum(either, 1)


def nearest(
    sequences: Sequence[str],
    reference: Sequence[str],
    count: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[list[tuple[int, float]]]:
    """For each sequence the ``count`` of the reference that share most words with it: place and Jaccard's index.

    The nearest first, of equals the earlier. ``on_progress`` is given the number of the reference's sequences done.
    """
    vectors = _vectors(sequences)
    best: list[list[tuple[int, float]]] = [[] for _ in sequences]
    for start in range(0, len(reference), CHUNK):
        part = reference[start : start + CHUNK]
        alike = _jaccard(vectors, _vectors(part))
        order = np.argsort(-alike, axis=1, kind="stable")[:, :count]
        for row, places in enumerate(order.tolist()):
            found = [*best[row], *((start + place, float(alike[row, place])) for place in places)]
            best[row] = sorted(found, key=lambda one: -one[1])[:count]
        on_progress(start + len(part))
    return best


def diversity(sequences: Sequence[str]) -> float | None:
    """The mean over all pairs of 1 - Jaccard's index of their words of three residues; None of fewer than two.

    0 where all have the same words, 1 where no two share any.
    """
    if len(sequences) < 2:
        return None
    vectors = _vectors(sequences)
    rows = (vectors[first : first + CHUNK] for first in range(0, len(vectors), CHUNK))
    total = sum(float(_jaccard(part, vectors).sum(dtype=np.float64)) for part in rows)
    own = float(vectors.any(1).sum())  # each is like itself
    pairs = len(sequences) * (len(sequences) - 1)
    return min(1.0, max(0.0, 1 - (total - own) / pairs))


def aligner() -> Callable[[str, str], float]:
    """A function of a sequence and another that gives ``identity``; made once, before long work.

    Raises:
        MdmError: Biopython is missing.
    """
    try:
        from Bio.Align import PairwiseAligner, substitution_matrices
    except ImportError:
        raise MdmError("alignments need Biopython: pip install 'mdm-protein[align]', or leave --align out") from None
    align: Any = PairwiseAligner(
        mode="local", substitution_matrix=substitution_matrices.load("BLOSUM62"), open_gap_score=OPEN,
        extend_gap_score=EXTEND,
    )  # fmt: skip

    def identity(sequence: str, other: str) -> float:
        """The share of a sequence's residues that stand opposite the same one in its best local alignment with another.

        By Smith and Waterman's algorithm with affine gaps and BLOSUM62 (Henikoff & Henikoff 1992,
        doi:10.1073/pnas.89.22.10915), a gap of n residues costing 10 + n as in BLAST. Of alignments with the best
        score the first that Biopython gives counts. Only the 20 amino acids are ever the same. 0 where nothing aligns.

        Raises:
            MdmError: the two are too long to be aligned.
        """
        if not sequence or not other:
            return 0.0
        if len(sequence) * len(other) > MOST_PAIRS:
            raise MdmError(
                f"{len(sequence):,} residues with {len(other):,} are too many to align: leave --align out, or the "
                "longest out of the reference"
            )
        a, b = (text.translate(_KNOWN) for text in (sequence, other))
        found = align.align(a, b)
        if found.score <= 0:
            return 0.0
        same = sum(
            x == y and x in STANDARD
            for (i, end), (j, _) in zip(*found[0].aligned.tolist(), strict=True)
            for x, y in zip(a[i:end], b[j:], strict=False)
        )
        return same / len(sequence)

    return identity


_KNOWN = str.maketrans("UOJ", "XXX")
"""Letters that BLOSUM62 does not have."""
