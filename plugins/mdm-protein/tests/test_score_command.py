"""``mdm protein-score``: from a run or a FASTA file to a table, JSON, CSV, FASTA and a picture."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import mdm_protein
import pytest
import tiny_proteins
from click.testing import CliRunner
from finished_runs import finished_run
from mdm.cli import cli
from mdm.errors import MdmError, MdmWarning
from mdm_protein.perplexity import Scorer
from mdm_protein.sequences import read_fasta

REFERENCE = Path(mdm_protein.__file__).with_name("proteins.fasta")
NAME = "protein-score.json"


@pytest.fixture(scope="module")
def esm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("esm")
    tiny_proteins.save_esm(folder)
    return folder


def write(path, *sequences):
    path.write_text("".join(f">p{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    return path


def score(*arguments):
    done = CliRunner().invoke(cli, ["protein-score", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def scores(*arguments):
    return json.loads(score(*arguments, "--json"))


def refused(message, *arguments):
    with pytest.raises(MdmError, match=message) as caught:
        cli.main(["protein-score", *map(str, arguments)], standalone_mode=False)
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(tmp_path):
    """Two repeats of two proteins, one of which could not be decoded."""
    answers = {0: "M K T A Y", 1: "M K T A Y I A K", 10**9: "A A A A <null_1>"}

    def answer(row, _):
        return {"completion": answers[row]} if row in answers else {"forwards": 0, "error": "OSError: x"}

    finished_run(tmp_path / "run", answer, ["length=5"], task="protein", repeats=2, limit=2)
    return tmp_path / "run"


def here(words):
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def in_a_process(words):
    done = subprocess.run([sys.executable, "-m", "mdm", *words], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("mdm", [here, pytest.param(in_a_process, marks=pytest.mark.wide)])
def test_from_a_model_to_a_table_json_and_a_picture(esm, tmp_path, monkeypatch, mdm):
    """The whole way, as somebody types it."""
    monkeypatch.chdir(tmp_path)

    def types(*words):
        code, said, errors = mdm(list(map(str, words)))
        assert code == 0, errors
        return said

    flags = ["--model", esm, "--sampler", "confidence", "--sampler", "random", "--tokens-per-step", 4]
    types(
        "run", "--task", "protein", *flags, "-o", "length=8:20", "--limit", 3, "--allowed-tokens", "4:24", "--out", "r"
    )
    drawn = ["--plot", "p.png", "--fasta", "p.fasta", "--csv", "p.csv"]
    table = types("protein-score", "r", "--scorer", esm, "--reference", REFERENCE, "--align", 2, *drawn)
    lines = table.splitlines()
    assert max(map(len, lines[: lines.index(f"reference: {REFERENCE}")])) <= 80
    assert lines[1].split() == ["means", "over", "sequences", "r/confidence", "r/random", "reference"]
    first = {line[:24].strip(): line[24:].split() for line in lines[3:] if line.startswith(" ")}
    assert first["sequences"] == ["3", "3", "8"] and len(first["pseudo-perplexity"]) == 2
    assert len(first["nearest: identity"]) == len(first["divergence (bits)"]) == 2
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG") and f"written: {Path('r') / NAME}" in lines
    kept = json.loads((tmp_path / "r" / NAME).read_text())
    assert [one["label"] for one in kept["sets"]] == ["r/confidence", "r/random"] and kept["reference"][
        "sequences"
    ] == 8
    results = [json.loads(line) for line in (tmp_path / "r/confidence/results.jsonl").read_text().splitlines()]
    by_id = {result["id"]: result for result in results}
    scorer = Scorer(str(esm), "cpu")
    for row in kept["sets"][0]["examples"]:
        assert row["sequence"] == by_id[row["id"]]["completion"].replace(" ", "")
        assert by_id[row["id"]]["metrics"]["valid"] == 1
        assert row["pseudo_perplexity"] == pytest.approx(scorer.pseudo_perplexity(row["sequence"]), rel=1e-5)
    sequences = [record.sequence for record in read_fasta(tmp_path / "p.fasta")]
    assert sequences == [row["sequence"] for one in kept["sets"] for row in one["examples"]]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == sequences and all(float(row["pseudo_perplexity"]) > 1 for row in rows)


def test_measures_of_a_set_by_hand(tmp_path):
    path = write(tmp_path / "a.fasta", "AAAC", "AAAC", "CCXX")
    other = write(tmp_path / "b.fasta", "AC", "DEF")
    found = scores(path, "--reference", other, "--align", 1)
    [record] = found["sets"]
    assert (record["label"], record["sequences"], record["failed"]) == ("a.fasta", 3, 0)
    assert record["distinct"] == pytest.approx(2 / 3) and record["length"] == {"mean": 4, "least": 4, "most": 4}
    assert record["composition"]["A"] == 0.6 and record["composition"]["C"] == 0.4
    assert record["standard"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert record["entropy"] == pytest.approx((2 * 0.811278 + 1) / 3, abs=1e-6)
    assert record["longest_run"] == pytest.approx(8 / 3) and record["longest_repeat"] == pytest.approx(5 / 3)
    # One pair is the same, two share no word.
    assert record["diversity"] == pytest.approx(2 / 3)
    # p = 0.6, 0.4, 0 x 3; q = 0.2 x 5; the middle 0.4, 0.3, 0.1 x 3. H(m) = 2.046439, H(p) = 0.970951, H(q) = 2.321928.
    assert record["divergence"] == pytest.approx(2.046439 - (0.970951 + 2.321928) / 2, abs=1e-6)
    assert [row["nearest_identity"] for row in record["examples"]] == [0.5, 0.5, 0.25]
    assert [row["nearest"] for row in record["examples"]] == ["p0"] * 3
    assert found["reference"]["sequences"] == found["reference"]["measured"] == 2
    assert not list(tmp_path.glob("*.json*"))


def test_a_runs_sequences_are_read_and_its_failures_said(run):
    with pytest.warns(MdmWarning, match="run: 1 examples have no sequence"):
        found = scores(run)
    [record] = found["sets"]
    assert (record["failed"], record["sequences"]) == (1, 3)
    assert [(row["id"], row["repeat"], row["sequence"]) for row in record["examples"]] == [
        ("protein-0-0", 0, "MKTAY"), ("protein-0-1", 0, "MKTAYIAK"), ("protein-0-0", 1, "AAAAX"),
    ]  # fmt: skip
    assert json.loads((run / NAME).read_text()) == found
    with pytest.warns(MdmWarning):
        score(run, "--out", run.parent / "elsewhere.json", "--fasta", run.parent / "a.fasta")
    names = [record.header for record in read_fasta(run.parent / "a.fasta")]
    assert names == ["run/protein-0-0", "run/protein-0-1", "run/protein-0-0/1"]


def test_what_is_scored_is_kept_where_it_is_stopped(esm, tmp_path, monkeypatch):
    path, out = write(tmp_path / "a.fasta", "MKTAY", "AYIAK", "QRQIS"), tmp_path / "s.json"
    asked, ask = [], Scorer.pseudo_perplexity

    def stopped(self, sequence, *rest):
        asked.append(sequence)
        if sequence == "QRQIS" and len(asked) < 4:
            raise KeyboardInterrupt
        return ask(self, sequence, *rest)

    monkeypatch.setattr(Scorer, "pseudo_perplexity", stopped)
    command = [path, "--scorer", esm, "--out", out]
    assert CliRunner().invoke(cli, ["protein-score", *map(str, command)]).exit_code == 1 and not out.exists()
    with out.with_suffix(".jsonl").open("a") as log:
        log.write('{"key": "cut short by a kil')
    found = scores(*command)
    assert asked == ["MKTAY", "AYIAK", "QRQIS", "QRQIS"]
    fresh = scores(path, "--scorer", esm)
    assert [row["pseudo_perplexity"] for row in found["sets"][0]["examples"]] == [
        row["pseudo_perplexity"] for row in fresh["sets"][0]["examples"]
    ]
    scores(*command, "--stride", 2)
    assert len(asked) == 10, "another question is asked anew"
    out.with_suffix(".jsonl").write_text('{"key": 1, "values": {}}\n')
    refused(r"s.jsonl, line 1: key=1: .*should be a valid string", *command)


def test_sequences_that_are_folded(tmp_path):
    tiny_proteins.save_fold(tmp_path / "fold")
    path = write(tmp_path / "a.fasta", "MKTAY", "MKTAYI")
    [record] = scores(path, "--fold", tmp_path / "fold", "--fold-up-to", 5)["sets"]
    first, second = record["examples"]
    assert second["plddt"] is second["ptm"] is None and record["plddt"] == first["plddt"] and 0 < first["plddt"] < 100
    assert "pLDDT (0 to 100)" in score(path, "--fold", tmp_path / "fold", "--plot", tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text().count("length (residues)") == 1


def test_of_a_large_reference_a_part_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("mdm_protein.score.SAMPLE", 2)
    path = write(tmp_path / "a.fasta", "AAAA", "ACDE", "CCCC", "ACDE", "DDDD")
    found = scores(path, "--reference", path)
    # Of five every third: the entropies of AAAA and ACDE (0 and 2 bits).
    assert (found["reference"]["sequences"], found["reference"]["measured"]) == (5, 2)
    assert found["reference"]["entropy"] == 1 and found["reference"]["composition"]["A"] == 6 / 20
    assert "of the reference 2 sequences, evenly spread" in score(path, "--reference", path)


def test_what_is_refused(run, tmp_path, esm, monkeypatch):
    path = write(tmp_path / "a.fasta", "MKTAY")
    (tmp_path / "empty").mkdir()
    refused("empty is neither the folder of a run.*nor a FASTA file", tmp_path / "empty")
    refused("xs.fasta holds no protein", write(tmp_path / "xs.fasta", "XX"))
    refused("xs.fasta holds none of the 20", path, "--reference", tmp_path / "xs.fasta")
    refused("p.txt: a picture is one of .png", path, "--plot", tmp_path / "p.txt")
    refused("absent", path, "--scorer", tmp_path / "absent")
    refused("cannot write", path, "--csv", tmp_path / "none" / "a.csv")
    (run / "results.jsonl").write_text("")
    refused("run holds no sequence: it has just begun", run)
    for flags, said in {
        ("--align", 3): "give --reference FASTA",
        ("--stride", 2): "--stride is of --scorer, which is not given",
        ("--fold-up-to", 9): "--fold-up-to is of --fold",
        ("--device", "cpu"): "--device is of --scorer and --fold",
        ("--csv", path, "--fasta", path): "are one file",
    }.items():
        done = CliRunner().invoke(cli, ["protein-score", str(path), *map(str, flags)])
        assert done.exit_code == 2 and said in done.stderr
    for module, flags, said in (
        ("matplotlib.figure", ["--plot", tmp_path / "p.png"], r"a picture needs matplotlib: pip install"),
        ("Bio.Align", ["--reference", path, "--align", 1], r"alignments need Biopython: pip install"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        refused(said, path, *flags)
