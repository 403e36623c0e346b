"""Counting a corpus, and what is said of counts that do not fit."""

from __future__ import annotations

import json
from collections import Counter

import mdm
import mdm.runs.files
import pytest
from click.testing import CliRunner
from mdm.models.loading import tokenizer_of
from mdm_pc import count
from tiny_families import save

ROWS = [{"text": "1+2=3", "more": "42"}, {"text": "70*8=560", "more": "7"}] * 5


def counted(tmp_path, *more):
    source = tmp_path / "corpus.jsonl"
    if not source.exists():
        source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    flags = ["--tokenizer", "tiny", "--input", str(source), "--keys", "text,more", "--output", str(tmp_path / "c.json")]
    return CliRunner().invoke(count.pc_count, [*flags, *more])


def expected():
    tokenizer = tokenizer_of("tiny")
    return Counter(i for row in ROWS for text in row.values() for i in tokenizer.encode(text, add_special_tokens=False))


def test_counts_are_those_of_the_tokenizer(tmp_path):
    assert counted(tmp_path).exit_code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["p_baseline_dict"] == {str(k): v for k, v in expected().items()}
    assert found["num_token"] == expected().total()


def test_a_killed_count_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(count, "BATCH", 4)
    monkeypatch.setattr(count, "SAVE_EVERY", -1.0)
    part, save = tmp_path / "c.json.part", mdm.runs.files.write_json

    def killed(path, value):
        save(path, value)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mdm.runs.files, "write_json", killed)
        assert counted(tmp_path).exit_code != 0
    assert json.loads(part.read_text())["line"] == 2
    assert not (tmp_path / "c.json").exists()
    assert counted(tmp_path).exit_code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["p_baseline_dict"] == {str(k): v for k, v in expected().items()}
    assert not part.exists()


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"text": "1"}) + "\n")
    error = counted(tmp_path).exception
    assert isinstance(error, mdm.MdmError) and "line 2" in str(error) and "more" in str(error)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ('{"num_token": 9, "p_baseline_dict": {"126463": 3}}', "126463.*vocabulary has 256"),
        ('{"num_token": 9, "counts": {}}', "holds no token counts"),
        ("not json", "holds no token counts"),
        (None, "No such file"),
    ],
)
def test_counts_that_do_not_fit(model, tmp_path, text, culprit):
    path = tmp_path / "counts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(mdm.MdmError, match=culprit):
        mdm.decode(model, [[1, 2, 3]], "pc", {"baseline": str(path)}, gen_length=4)


def test_both_published_layouts_are_read(model, tmp_path):
    tokens = []
    for key in ("p_baseline_dict", "token_frequency_dict"):
        path = tmp_path / f"{key}.json"
        path.write_text(json.dumps({"num_token": 500, key: {str(i): i for i in range(1, 30)}}))
        [result] = mdm.decode(model, [[1, 2, 3]], "pc", {"baseline": str(path)}, gen_length=8)
        tokens.append([line["positions"] for line in result.trace])
    assert tokens[0] == tokens[1]
