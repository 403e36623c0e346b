"""Measures of protein sequences, each a function of letters. Entropies are in bits, as the literature gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum, log2

from mdm_protein.sequences import AMINO_ACIDS, STANDARD

WINDOW = 12
TRIGGER, EXTENSION = 2.2, 2.5
"""SEG's published window (residues) and its two bounds of a window's entropy (bits)."""
K = 3
"""Residues of a word, by which sequences are compared without an alignment."""

_BASE, _PRIME = 1_000_003, 2**61 - 1


def standard_share(sequence: str) -> float:
    """The share of letters that are one of the 20 amino acids; 0 of no letter."""
    return sum(letter in STANDARD for letter in sequence) / len(sequence) if sequence else 0.0


def entropy(counts: Iterable[int]) -> float:
    """Shannon's entropy of a composition given as counts, in bits: -sum p log2 p (Shannon 1948); at most log2 20 of
    amino acids, 4.32."""
    counts = [count for count in counts if count]
    total = sum(counts)
    return max(0.0, -fsum(count / total * log2(count / total) for count in counts))


def sequence_entropy(sequence: str) -> float:
    """The entropy of a sequence's own composition, in bits, of all of its letters."""
    return entropy(Counter(sequence).values())


def composition(sequences: Iterable[str]) -> dict[str, float]:
    """The share of each of the 20 amino acids among all residues of a set that are one of them.

    All are 0 where there are none.
    """
    counts: Counter[str] = Counter()
    for sequence in sequences:
        counts.update(sequence)
    total = sum(counts[letter] for letter in AMINO_ACIDS)
    return {letter: counts[letter] / total if total else 0.0 for letter in AMINO_ACIDS}


def jensen_shannon(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """The Jensen-Shannon divergence of two compositions, in bits, from 0 (the same) to 1 (nothing in common).

    H((p + q) / 2) - (H(p) + H(q)) / 2 with logarithms to base 2 (Lin 1991, doi:10.1109/18.61115).
    """
    parts = []
    for letter in {*p, *q}:
        a, b = p.get(letter, 0.0), q.get(letter, 0.0)
        middle = (a + b) / 2
        parts += [share / 2 * log2(share / middle) for share in (a, b) if share]
    return min(1.0, max(0.0, fsum(parts)))


def low_complexity(sequence: str) -> float:
    """The share of residues in segments of low complexity, as the first stage of SEG finds them.

    A segment is a run of overlapping windows of 12 residues, each of an entropy of 2.5 bits at most, of which one has
    2.2 at most (Wootton & Federhen 1993, doi:10.1016/0097-8485(93)85006-X, with its published numbers). SEG's second
    stage, which trims a segment to its least probable part, is left out, so that shares are somewhat larger than
    SEG's. Sequences shorter than a window have none.
    """
    entropies = [sequence_entropy(sequence[i : i + WINDOW]) for i in range(len(sequence) - WINDOW + 1)]
    covered = start = 0
    previous_end = 0
    for is_low, group in groupby(entropies, key=lambda bits: bits <= EXTENSION):
        windows = list(group)
        if is_low and min(windows) <= TRIGGER:
            end = start + len(windows) - 1 + WINDOW
            covered += end - max(start, previous_end)
            previous_end = end
        start += len(windows)
    return covered / len(sequence) if covered else 0.0


def longest_run(sequence: str) -> int:
    """The length, in residues, of the longest run of one letter."""
    return max((sum(1 for _ in run) for _, run in groupby(sequence)), default=0)


def longest_repeat(sequence: str) -> int:
    """The length, in residues, of the longest stretch that occurs at least twice; the two may overlap."""
    low, high = 0, max(0, len(sequence) - 1)
    while low < high:  # what repeats at one length repeats at all that are shorter
        middle = (low + high + 1) // 2
        if _repeats(sequence, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _repeats(sequence: str, length: int) -> bool:
    """Whether some stretch of ``length`` letters occurs twice; by rolling hashes, each hit compared by letters."""
    lead, value = pow(_BASE, length - 1, _PRIME), 0
    seen: dict[int, int] = {}
    for i, letter in enumerate(sequence):
        if i >= length:
            value = (value - ord(sequence[i - length]) * lead) % _PRIME
        value = (value * _BASE + ord(letter)) % _PRIME
        start = i - length + 1
        if start >= 0:
            first = seen.setdefault(value, start)
            if first != start and sequence[first : first + length] == sequence[start : start + length]:
                return True
    return False


def words(sequence: str, k: int = K) -> frozenset[str]:
    """The different stretches of k residues in a sequence, of the 20 amino acids alone."""
    found = {sequence[i : i + k] for i in range(len(sequence) - k + 1)}
    return frozenset(word for word in found if STANDARD.issuperset(word))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """How much two sets have in common, |a & b| / |a | b| (Jaccard 1901); 0 of two empty sets."""
    return len(a & b) / len(a | b) if a or b else 0.0


def agreement(sequence: str, reference: str, places: Sequence[int]) -> float:
    """The share of ``places`` at which a sequence has the reference's residue.

    0 where the two differ in length, since no place is then the same.
    """
    if len(sequence) != len(reference) or not places:
        return 0.0
    return sum(sequence[i] == reference[i] for i in places) / len(places)
