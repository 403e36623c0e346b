"""Each measure against values worked out by hand, and against slow ways to the same."""

from __future__ import annotations

import random
from math import log2

import pytest
from mdm_protein import measures
from mdm_protein.measures import AMINO_ACIDS
from mdm_protein.neighbours import aligner, diversity, nearest

LETTERS = "CDEFGHIKLMNPQRSTVWY"
"""The amino acids but alanine, each once."""


@pytest.mark.parametrize(
    ("sequence", "bits"),
    [("", 0), ("AAAA", 0), ("ACAC", 1), ("ACDE", 2), ("AAAC", 0.811278), (AMINO_ACIDS, log2(20)), ("AXAX", 1)],
)
def test_entropy(sequence, bits):
    # AAAC: -(3/4 log2 3/4 + 1/4 log2 1/4) = 0.311278 + 0.5
    assert measures.sequence_entropy(sequence) == pytest.approx(bits, abs=1e-6)


def test_composition_counts_the_20_alone():
    shares = measures.composition(["AAC", "CX-", ""])
    assert (shares["A"], shares["C"], sum(shares.values()), len(shares)) == (0.5, 0.5, 1, 20)
    assert not any(measures.composition(["XX", ""]).values())
    assert measures.standard_share("ACXX") == 0.5 and measures.standard_share("") == 0


def test_the_divergence_of_compositions():
    a, b, half = {"A": 1.0, "C": 0.0}, {"A": 0.0, "C": 1.0}, {"A": 0.5, "C": 0.5}
    assert measures.jensen_shannon(a, a) == 0 and measures.jensen_shannon(a, b) == 1
    # The middle is 3/4, 1/4, of 0.811278 bits; the two have 0 bits and 1.
    assert measures.jensen_shannon(a, half) == pytest.approx(0.811278 - 0.5, abs=1e-6)
    assert measures.jensen_shannon(half, a) == measures.jensen_shannon(a, half)


@pytest.mark.parametrize(
    ("sequence", "share"),
    [
        ("A" * 11, 0),  # shorter than a window
        ("A" * 12, 1),
        (LETTERS, 0),
        # i of other letters in a window: 0 bits, 0.41, 0.82, 1.21, 1.58, 1.95, 2.29 at i = 6, and 2.62 at 7. The
        # windows that begin at residues 0 to 6 are the segment, of 6 + 12 residues.
        ("A" * 12 + LETTERS, 18 / 31),
        # All windows lie between the two bounds, at 2.29 bits: none begins a segment.
        ("A" * 6 + LETTERS[:6], 0),
        # The same at both ends, with 19 residues between that are no part of either.
        ("A" * 12 + LETTERS + LETTERS[::-1] + "A" * 12, 36 / 62),
        # Two segments of 18 residues that overlap in 5 are counted once.
        ("A" * 12 + LETTERS[:7] + "G" * 12, 1),
    ],
)  # fmt: skip
def test_low_complexity(sequence, share):
    assert measures.low_complexity(sequence) == pytest.approx(share, abs=1e-9)


def test_low_complexity_covers_what_a_slow_count_covers():
    draw = random.Random(0)
    for _ in range(60):
        sequence = "".join(draw.choice("ACDEFGHI"[: draw.randint(2, 8)]) for _ in range(draw.randint(0, 60)))
        low = [measures.sequence_entropy(sequence[i : i + 12]) for i in range(max(0, len(sequence) - 11))]
        covered = set()
        for i, bits in enumerate(low):
            if bits <= 2.2:
                first = last = i
                while first > 0 and low[first - 1] <= 2.5:
                    first -= 1
                while last + 1 < len(low) and low[last + 1] <= 2.5:
                    last += 1
                covered |= set(range(first, last + 12))
        assert measures.low_complexity(sequence) == pytest.approx(len(covered) / max(1, len(sequence)))


@pytest.mark.parametrize(
    ("sequence", "run", "repeat"),
    [("", 0, 0), ("A", 1, 0), ("ACDE", 1, 0), ("ACA", 1, 1), ("AACCCA", 3, 2), ("MKTXMKT", 1, 3), ("AAAA", 4, 3)],
)  # fmt: skip
def test_runs_and_repeats(sequence, run, repeat):
    assert (measures.longest_run(sequence), measures.longest_repeat(sequence)) == (run, repeat)


def test_the_longest_repeat_is_the_longest():
    draw = random.Random(1)
    for _ in range(100):
        sequence = "".join(draw.choice("AC"[: draw.randint(1, 2)] + "DE") for _ in range(draw.randint(0, 30)))
        parts = [sequence[i:j] for i in range(len(sequence)) for j in range(i + 1, len(sequence) + 1)]
        twice = [len(part) for part in parts if sequence.find(part, sequence.find(part) + 1) >= 0]
        assert measures.longest_repeat(sequence) == max(twice, default=0)
    assert measures.longest_repeat("X" * 10_000) == 9_999


def test_words_in_common():
    assert measures.words("ACDEXFG") == {"ACD", "CDE"} and not measures.words("AC")
    # ACD and CDE; CDE and DEF: one of three.
    assert measures.jaccard(measures.words("ACDE"), measures.words("CDEF")) == 1 / 3
    assert measures.jaccard(frozenset(), frozenset()) == 0


def test_agreement_at_places():
    assert measures.agreement("ACDE", "ACDF", [0, 3]) == 0.5
    assert measures.agreement("ACD", "ACDE", [0]) == 0 and measures.agreement("A", "A", []) == 0


def test_diversity():
    assert diversity(["ACDE"]) is None and diversity(["ACDE", "ACDE"]) == 0 and diversity(["ACDE", "WWWW"]) == 1
    # Of the three pairs one shares a third, and two nothing.
    assert diversity(["ACDE", "CDEF", "WWWW"]) == pytest.approx(1 - 1 / 9)
    assert diversity(["", "AC"]) == 1


def test_the_nearest_are_those_that_share_most_words():
    draw = random.Random(2)
    every = ["".join(draw.choice("ACDE") for _ in range(draw.randint(0, 20))) for _ in range(600)]
    sequences, seen = every[:3], []
    found = nearest(sequences, every, 4, seen.append)
    assert seen == [512, 600]
    for sequence, near in zip(sequences, found, strict=True):
        alike = [measures.jaccard(measures.words(sequence), measures.words(other)) for other in every]
        best = sorted(range(len(every)), key=lambda i: (-alike[i], i))[:4]
        assert [place for place, _ in near] == best
        assert [value for _, value in near] == pytest.approx([alike[i] for i in best])


@pytest.mark.parametrize(
    ("sequence", "other", "share"),
    [
        ("MKTAYIAKQR", "MKTAYIAKQR", 1),
        ("MKTAYIAKQR", "GGGGMKTAYWAKQRGGGG", 9 / 10),  # one residue differs
        ("MKTAYIAKQRQISFVKSHFSRQ", "MKTAYIAKQRSFVKSHFSRQ", 20 / 22),  # two are lost
        ("GGGGGGGGMKTAYIAKQRWW", "MKTAYIAKQR", 10 / 20),  # a share of the sequence, not of the other
        ("AAAA", "WWWW", 0),
        ("MKUTAYIAKQR", "MKUTAYIAKQR", 10 / 11),  # BLOSUM62 does not know U
        ("", "MKT", 0),
    ],
)  # fmt: skip
def test_identity(sequence, other, share):
    pytest.importorskip("Bio", reason="Biopython is not installed")
    assert aligner()(sequence, other) == pytest.approx(share)


def test_what_is_too_long_is_not_aligned():
    pytest.importorskip("Bio", reason="Biopython is not installed")
    with pytest.raises(Exception, match="20,000 residues with 20,000 are too many to align: leave --align out"):
        aligner()("A" * 20_000, "A" * 20_000)
