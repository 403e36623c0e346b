"""What networks say of sequences: pseudo-perplexity against a slow way to it, and ESMFold's confidence."""

from __future__ import annotations

import os
from math import exp, fsum

import pytest
import tiny_families
import tiny_proteins
import torch
from mdm.errors import MdmError
from mdm_protein.folding import Folder
from mdm_protein.perplexity import Pace, Scorer
from safetensors.torch import load_file, save_file
from transformers import EsmTokenizer

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.fixture(scope="module")
def esm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("esm")
    return folder, tiny_proteins.save_esm(folder)


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fold")
    return folder, tiny_proteins.save_fold(folder)


def by_hand(esm, sequence, places=None, window=10**6):
    """One residue masked at a time, by transformers' own forward of a whole text, in a batch of its own."""
    folder, network = esm
    tokenizer = EsmTokenizer.from_pretrained(folder)
    losses = []
    for place in range(len(sequence)) if places is None else places:
        first = max(0, min(place - window // 2, len(sequence) - window))
        part = sequence[first : first + window]
        at = place - first
        text = " ".join([*part[:at], "<mask>", *part[at + 1 :]])
        with torch.no_grad():
            logits = network(**tokenizer(text, return_tensors="pt")).logits[0, at + 1]
        true = tiny_proteins.VOCABULARY.index(sequence[place])
        losses.append(float(torch.logsumexp(logits.double(), 0) - logits[true].double()))
    return exp(fsum(losses) / len(losses))


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_pseudo_perplexity_is_that_of_one_residue_masked_at_a_time(esm, batch):
    scorer, seen = Scorer(str(esm[0]), "cpu", Pace(batch)), []
    assert scorer.pseudo_perplexity(SEQUENCE, seen.append) == pytest.approx(by_hand(esm, SEQUENCE), rel=1e-5)
    assert seen == [*range(batch, 22, batch), 22]


def test_a_part_of_a_sequence_is_scored(esm):
    strided = Scorer(str(esm[0]), "cpu", Pace(stride=3))
    assert strided.pseudo_perplexity(SEQUENCE) == pytest.approx(by_hand(esm, SEQUENCE, range(0, 22, 3)), rel=1e-5)
    windowed = Scorer(str(esm[0]), "cpu", Pace(window=7))
    assert windowed.pseudo_perplexity(SEQUENCE) == pytest.approx(by_hand(esm, SEQUENCE, window=7), rel=1e-5)
    # What is unknown is seen by the others, and not scored.
    assert windowed.pseudo_perplexity("MXKT") == pytest.approx(by_hand(esm, "MXKT", [0, 2, 3]), rel=1e-5)
    assert windowed.pseudo_perplexity("") is windowed.pseudo_perplexity("XX") is None


def test_a_scorer_that_knows_nothing_is_at_chance(esm, tmp_path):
    tiny_proteins.save_esm(tmp_path)
    weights = {name: torch.zeros_like(weight) for name, weight in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert Scorer(str(tmp_path), "cpu").pseudo_perplexity(SEQUENCE) == pytest.approx(33, rel=1e-6)
    save_file({name: weight + torch.nan for name, weight in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(MdmError, match="not finite, or nothing: its weights are damaged"):
        Scorer(str(tmp_path), "cpu").pseudo_perplexity("MKT")


def test_what_is_no_scorer_is_refused(esm, tmp_path):
    with pytest.raises(MdmError, match="is a sdar model: a scorer is a masked language model"):
        Scorer(str(tiny_families.save(tmp_path / "sdar", "sdar")), "cpu")
    with pytest.raises(MdmError, match="has no tokenizer, so nothing says which token is which residue"):
        Scorer(str(tiny_families.save_masked(tmp_path / "bert")), "cpu")
    with pytest.raises(MdmError, match="does not know some characters of 'MJ'"):
        Scorer(str(esm[0]), "cpu").pseudo_perplexity("MJ")


def test_a_scorer_of_learnt_positions_says_how_many_it_takes(tmp_path):
    tiny_proteins.save_esm(tmp_path, position_embedding_type="absolute", max_position_embeddings=12)
    with pytest.raises(MdmError, match="longer than the 10 positions.*--window 511 shows the scorer less"):
        Scorer(str(tmp_path), "cpu").pseudo_perplexity(SEQUENCE)
    assert Scorer(str(tmp_path), "cpu", Pace(window=8)).pseudo_perplexity(SEQUENCE) > 1


def test_what_was_asked_tells_weights_apart(tmp_path):
    tiny_proteins.save_esm(tmp_path)
    before = Scorer(str(tmp_path), "cpu", Pace(3)).question
    assert before == Scorer(str(tmp_path), "cpu", Pace(5)).question != Scorer(str(tmp_path), "cpu", Pace(3, 2)).question
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert before != Scorer(str(tmp_path), "cpu", Pace(3)).question


def test_plddt_is_the_mean_over_atoms_that_esmfold_reports(fold):
    folder, network = fold
    found = [Folder(str(folder), "cpu").confidence(sequence) for sequence in ("MKTAYIAKQR", "GGGG")]
    for sequence, values in zip(("MKTAYIAKQR", "GGGG"), found, strict=True):
        out = network.infer([sequence])
        atoms = [
            float(out.plddt[0, residue, atom])
            for residue in range(len(sequence))
            for atom in range(37)
            if out.atom37_atom_exists[0, residue, atom]
        ]
        # Glycine has four atoms: N, CA, C and O; alanine five.
        assert len(atoms) == 16 if sequence == "GGGG" else len(atoms) > 50
        assert values["plddt"] == pytest.approx(100 * fsum(atoms) / len(atoms), rel=1e-5)
        assert values["ptm"] == pytest.approx(float(out.ptm), rel=1e-5) and 0 <= values["ptm"] <= 1
    assert found[0]["plddt"] != pytest.approx(50, abs=0.01) and found[0] != found[1]


def test_what_is_no_esmfold_is_refused(esm, fold, tmp_path):
    with pytest.raises(MdmError, match="is EsmForMaskedLM: structures are predicted by an EsmForProteinFolding"):
        Folder(str(esm[0]), "cpu")
    with pytest.raises(MdmError, match="absent"):
        Folder(str(tmp_path / "absent"), "cpu")
    (tmp_path / "config.json").write_text((fold[0] / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(MdmError, match=r"has its weights in pytorch_model.bin, a pickle"):
        Folder(str(tmp_path), "cpu")
    weights = load_file(fold[0] / "model.safetensors")
    (tmp_path / "pytorch_model.bin").unlink()
    weights.pop("lddt_head.1.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MdmError, match=r"the checkpoint has no weight lddt_head.1.weight"):
        Folder(str(tmp_path), "cpu")
