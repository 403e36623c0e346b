"""The three tasks: what they ask for, and how they grade what models write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import islice

import pytest
from goldens import ROOT
from mdm.errors import MdmError
from mdm.protocols import MASK, Example
from mdm.protocols.options import check_options
from mdm_protein.tasks import Protein, ProteinInfill, ProteinScaffold

EF_HAND = "DKDGDGTITTKE"
"""Residues 21 to 32 of calmodulin, of which 21, 23, 25, 27 and 32 hold calcium (UniProt P0DP23)."""


def make(kind, **options):
    return kind(check_options("protein", kind.Options, options))


def templates(task, seed=0, data=None, most=200):
    return [example.inputs["template"] for example in islice(task.examples(seed=seed, data=data), most)]


def test_lengths_are_given_drawn_or_those_of_a_file(tmp_path):
    assert templates(make(Protein, length=7), most=3) == ["_" * 7] * 3
    drawn = [len(template) for template in templates(make(Protein, length="5:9"))]
    assert set(drawn) == {5, 6, 7, 8, 9}
    assert drawn == [len(template) for template in templates(make(Protein, length="5:9"))]
    assert drawn != [len(template) for template in templates(make(Protein, length="5:9"), seed=1)]
    path = tmp_path / "lengths.fasta"
    path.write_text("".join(f">p{size}\n{'A' * size}\n" for size in range(1, 21)))
    examples = list(make(Protein).examples(seed=0, data=path))
    sizes = [len(example.inputs["template"]) for example in examples]
    assert sorted(sizes) == list(range(1, 21)) and sizes != sorted(sizes)
    assert all(example.id == f"protein-{size - 1}-p{size}" for example, size in zip(examples, sizes, strict=True))
    with pytest.raises(MdmError, match=r"option protein.length=5 and the lengths of .*lengths.fasta: give one"):
        templates(make(Protein, length=5), data=path)


@pytest.mark.parametrize("length", [0, -3, "9:5", "a", "5:", "1:999999", "", "5:6:7", "1_0"])
def test_lengths_that_are_none(length):
    with pytest.raises(MdmError, match="option protein.length="):
        make(Protein, length=length)


def test_a_prompt_is_masks_alone_whatever_the_style():
    task = make(Protein, length=3)
    [example] = islice(task.examples(seed=0), 1)
    for style in ("chat", "compact"):
        prompt = task.prompt(example, style)
        assert (prompt.context, prompt.answer, prompt.gen_length) == ("", MASK * 3, 0)


def test_some_residues_are_masked(tmp_path):
    path = tmp_path / "known.fasta"
    path.write_text(">a\nACDEFGHIKL\n>b\nXXACXXDEXX\n>c\nM\n")
    for mask in ("random", "span"):
        task = make(ProteinInfill, mask=mask, share=0.5)
        first, second, third = task.examples(seed=0, data=path)
        assert (first.id, first.reference) == ("infill-0-a", "ACDEFGHIKL")
        for example, count in ((first, 5), (second, 2), (third, 1)):
            template = example.inputs["template"]
            assert template.count("_") == count
            assert all(a in (b, "_") for a, b in zip(template, example.reference, strict=True))
        assert second.inputs["template"].count("X") == 6  # what is unknown is never masked
        assert templates(task, data=path) != templates(task, seed=1, data=path)
    spans = [templates(make(ProteinInfill, mask="span", share=0.4), seed=seed, data=path)[0] for seed in range(40)]
    assert len(set(spans)) == 7 and all("____" in template for template in spans)
    assert templates(make(ProteinInfill, share=1), data=path)[0] == "_" * 10
    own = list(make(ProteinInfill).examples(seed=0))
    assert len(own) == 8 and own[0].id == "infill-0-P01308|INS_HUMAN"
    path.write_text(">a\nACD\n>b\nXX\n")
    with pytest.raises(MdmError, match="known.fasta, line 3: none of its letters is one of the 20"):
        templates(make(ProteinInfill), data=path)


def test_scaffolds_around_motifs(tmp_path):
    own = list(make(ProteinScaffold, designs=20).examples(seed=0))
    assert len(own) == 40 and own[0].id == "scaffold-1-ef-hand-0"
    for example in own[:20]:
        before, behind = example.inputs["template"].split(EF_HAND)
        assert set(before + behind) == {"_"} and 10 <= len(before) <= 30 and 10 <= len(behind) <= 30
    assert len({example.inputs["template"] for example in own[:20]}) > 15
    assert all(EF_HAND in e.inputs["template"] and "DADGNGTIDFPE" in e.inputs["template"] for e in own[20:])
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"sequence": "acdefg", "motif": [[1, 2], [5, 6]], "lengths": [0, [3, 3], 1]}))
    assert templates(make(ProteinScaffold, designs=1), data=path) == ["AC___FG_"]


@pytest.mark.parametrize("page", ["plugins/mdm-protein/README.md", "docs/proteins.md"])
def test_the_motif_of_a_page_is_one(tmp_path, page):
    [line] = re.findall(r"^```json\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    (tmp_path / "m.jsonl").write_text(line)
    assert all(EF_HAND in template for template in templates(make(ProteinScaffold), data=tmp_path / "m.jsonl"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"motif": [[0, 2]]}, "motif"),
        ({"motif": [[3, 2]]}, "motif [3, 2]: segments are in order"),
        ({"motif": [[5, 7]]}, "motif [5, 7]: segments are in order, apart, within 6 residues"),
        ({"motif": [[1, 2], [2, 3]], "lengths": [1, 1, 1]}, "motif [2, 3]"),
        ({"lengths": [1]}, "lengths has 1 entries, and 1 segments have 2 scaffolds"),
        ({"lengths": [0, 0]}, "lengths are all 0"),
        ({"lengths": [[3, 1], 0]}, "lengths [3, 1]: the least and the most"),
        ({"lengths": [60_000, 60_000]}, "lengths come to 120,000"),
        ({"sequence": "ACDXFG"}, "residue 4 is 'X', which is none of the 20"),
        ({"motifs": []}, "motifs: there is no such name. Did you mean 'motif'?"),
        ({"name": "a b"}, "name=a b"),
    ],
)
def test_a_broken_line_of_motifs_is_named(tmp_path, change, said):
    path = tmp_path / "bad.jsonl"
    good = {"sequence": "ACDEFG", "motif": [[1, 2]], "lengths": [1, 1]}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(MdmError) as error:
        templates(make(ProteinScaffold), data=path)
    assert said in str(error.value) and "bad.jsonl, line 2" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("completion", "valid", "standard", "length"),
    [
        ("M K T A", 1, 1, 4),
        ("mkta", 1, 1, 4),
        ("M K T", 0, 1, 3),  # too short
        ("M K T A A", 0, 1, 5),
        ("M K X A", 0, 0.75, 4),
        ("M K - A", 0, 0.75, 4),
        ("M <mask> <mask> A", 0, 0.5, 4),
        ("[MASK]KTA", 0, 0.75, 4),
        ("<cls>MKTA<eos>", 0, 4 / 6, 6),
        ("", 0, 0, 0),
    ],
)
def test_grades_of_a_protein_from_nothing(completion, valid, standard, length):
    grades = make(Protein).grade(Example("e", {"template": "____"}, ""), completion)
    assert (grades["valid"], grades["standard"], grades["length"]) == (valid, standard, length)
    assert "kept" not in grades


def test_grades_of_letters():
    grades = make(Protein).grade(Example("e", {"template": "_" * 12}, ""), "AAAAAAAAAACC")
    # 10/12 and 2/12: 0.2192 + 0.4308 bits
    assert grades["entropy"] == pytest.approx(0.65, abs=1e-4)
    assert (grades["low_complexity"], grades["longest_run"], grades["longest_repeat"]) == (1, 10, 9)


@pytest.mark.parametrize(
    ("completion", "recovery", "identity", "kept", "valid"),
    [
        ("ACDEFG", 1, 1, 1, 1),
        ("A C D E W G", 0.5, 5 / 6, 1, 1),
        ("ACWEWG", 0, 4 / 6, 1, 1),
        ("WCDEFG", 1, 5 / 6, 0.75, 0),  # a residue that was given is lost
        ("ACXEFG", 0.5, 5 / 6, 1, 0),
        ("ACDEF", 0, 0, 0, 0),  # places are lost
        ("", 0, 0, 0, 0),
    ],
)
def test_grades_of_an_infill(completion, recovery, identity, kept, valid):
    example = Example("e", {"template": "AC_E_G"}, "ACDEFG")
    grades = make(ProteinInfill).grade(example, completion)
    assert [grades[name] for name in ("recovery", "identity", "kept", "valid")] == [recovery, identity, kept, valid]


def test_a_scaffold_keeps_its_motif():
    task, example = make(ProteinScaffold), Example("e", {"template": "__MK_"}, "")
    assert [task.grade(example, text)["valid"] for text in ("AAMKA", "AAMRA", "AMKAA", "AAMKX")] == [1, 0, 0, 0]
    assert task.grade(example, "AAMRA")["kept"] == 0.5


def test_tasks_and_the_commands_help_import_no_torch():
    code = "import mdm_protein.tasks, mdm_protein.score_command, sys; "
    wanted = "assert not {'torch', 'transformers', 'Bio', 'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + wanted], check=True)
