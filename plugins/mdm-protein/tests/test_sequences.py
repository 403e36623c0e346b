"""Sequences from what models write, and FASTA in and out."""

from __future__ import annotations

import gzip
from pathlib import Path

import mdm_protein
import pytest
from mdm.errors import MdmError
from mdm_protein.sequences import Record, fasta, read_answer, read_fasta

SHIPPED = Path(mdm_protein.__file__).with_name("proteins.fasta")
MASSES = {
    "P01308": 11_981, "P68871": 15_998, "P69905": 15_258, "P00698": 16_239, "P02185": 17_331, "P0CG47": 8_565,
    "P01542": 4_736, "P42212": 26_886,
}  # fmt: skip
"""Daltons, as the entries of UniProt give them, or for the 76 residues of ubiquitin its well-known mass."""


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("M K T A", "MKTA"),  # as ESM's tokenizer decodes
        ("MKT\n  AYI\t", "MKTAYI"),
        ("mktA", "MKTA"),
        ("M K <mask> A", "MKXA"),
        ("M<null_1><pad>K", "MXXK"),
        ("M[MASK]K[MASK]", "MXKX"),
        ("M - K . X * 7 |", "MXKXXXXX"),
        ("<cls> M K <eos>", "XMKX"),
        ("M<K", "MXK"),
        ("ΜK", "XK"),  # a Greek letter that looks like one of ours
        ("", ""),
        ("  \n", ""),
    ],
)
def test_what_a_model_writes_is_a_letter_for_each_residue(text, sequence):
    assert read_answer(text) == sequence


def records(tmp_path, content, name="a.fasta"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_fasta(path))


def test_fasta_is_read(tmp_path):
    content = "\ufeff; a comment\n\n>one first  protein\r\nmkT\r\nAY*\r\n>two\n  XBZUOJ  \n\n>\nA\n"
    expected = [Record("one first  protein", "MKTAY", 3), Record("two", "XBZUOJ", 6), Record("", "A", 9)]
    assert records(tmp_path, content) == expected
    assert records(tmp_path, gzip.compress(content.encode()), "a.fa.gz") == expected
    assert [record.name for record in expected] == ["one", "two", ""]
    assert Record("sp|P1/2é x", "A", 1).name == "sp|P1_2_"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.fasta holds no sequence: a record of FASTA begins with '>'"),
        ("MKT\n", "line 1: it is no FASTA: a record begins with '>' and its name, not 'MKT'"),
        (">a\nMKT\nAY1\n", "line 3, character 3: '1': a sequence is letters only"),
        (">a\nMK-T\n", "line 2, character 3: '-': a gap, as alignments have them"),
        (">a\nM*KT\n", "line 2, character 2: '*': a stop inside of a sequence"),
        (">a\nMK*\nT\n", "line 3: a sequence goes on behind '*'"),
        (">a\nMKé\n", "line 2, character 3: 'é'"),
        (">a\n>b\nMKT\n", "line 1: the record has no sequence"),
        (">a\nMKT\n>b\n", "line 3: the record has no sequence"),
        (b">a\nMK\xff\n", "line 2: not UTF-8"),
        (">" + "a" * 10_001, "line 1: a header of more than 10,000 characters"),
        (">a\n" + 2 * ("A" * 60_000 + "\n"), "line 3: a sequence of more than 100,000 residues"),
    ],
)
def test_a_broken_file_is_one_line_with_the_culprit(tmp_path, content, said):
    with pytest.raises(MdmError) as error:
        records(tmp_path, content)
    assert said in str(error.value) and "a.fasta" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(MdmError, match=r"absent.fasta: there is no such file"):
        list(read_fasta(tmp_path / "absent.fasta"))
    with pytest.raises(MdmError, match="not a regular file"):
        list(read_fasta(Path("/dev/zero")))
    (tmp_path / "a.gz").write_text("no")
    with pytest.raises(MdmError, match=r"a.gz cannot be read"):
        list(read_fasta(tmp_path / "a.gz"))


def test_too_many_records(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_protein.sequences.MOST", 2)
    with pytest.raises(MdmError, match="line 5: more than 2 sequences"):
        records(tmp_path, ">a\nM\n>b\nM\n>c\nM\n")


def test_what_is_written_is_read_again(tmp_path):
    given = [("a\nb  c", "MKT" * 50), ("d", "A" * 60), ("e", "C")]
    text = "".join(fasta(given))
    assert max(map(len, text.splitlines())) == 60 and text.startswith(">a b c\n")
    assert [(record.header, record.sequence) for record in records(tmp_path, text)] == [
        ("a b c", "MKT" * 50), ("d", "A" * 60), ("e", "C"),
    ]  # fmt: skip


def test_the_proteins_of_the_package_weigh_what_uniprot_says():
    found = {record.name.split("|")[0]: record.sequence for record in read_fasta(SHIPPED)}
    assert found.keys() == MASSES.keys()
    weight = pytest.importorskip("Bio.SeqUtils", reason="Biopython is not installed").molecular_weight
    for name, sequence in found.items():
        assert weight(sequence, "protein") == pytest.approx(MASSES[name], abs=1.5), name
