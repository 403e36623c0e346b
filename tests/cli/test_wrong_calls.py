"""Wrong calls as people type them: one line that names the culprit and the way out, exit code 2, nothing left behind.

In this process, through ``mdm.cli.main``; test_bad_input.py and test_cli.py make some in processes of their own.
"""

from __future__ import annotations

import io
import shutil
import socket
from pathlib import Path

import pytest
from mdm import registry
from mdm.cli import main


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """A folder with all that is wrong."""
    folder = tmp_path_factory.mktemp("wrong")
    tiny = Path(registry.resolve("checkpoint", "tiny")())
    for name, without in (("no-tokenizer", "tokenizer*"), ("no-config", "config.json"), ("pickled", "*.safetensors")):
        shutil.copytree(tiny, folder / name, ignore=shutil.ignore_patterns(without))
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04x")
    (folder / "folder").mkdir()
    files = {
        "empty.csv": b"", "latin.csv": "Puzzle,Solution\né,1".encode("latin-1"), "binary.yaml": b"\xff\xfe\x00\x01",
        "list.yaml": b"- a\n", "tab.yaml": b"a:\n\tb: 1\n", "out.yaml": b"task: sudoku\nout: runs/x\n",
        "processes.yaml": b"num_processes: 2\n", "option.yaml": b"candidates: 4\n", "dash.yaml": b"gen-length: 9\n",
        "flat.yaml": b"options:\n  candidates: 4\n", "other.yaml": b"options:\n  info-gian: {candidates: 4}\n",
        "of-p2.yaml": b"sampler: p2\neta: 0.5\n", "file": b"x",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


CALLS = [
    (["rnu"], "unknown command 'rnu'. Did you mean 'run'?"),
    (["--nope"], "--nope"),
    (["trace"], "which trace, plot or view? (see mdm trace --help)"),
    (["bench"], "which bench, decode or overhead or sweep? (see mdm bench --help)"),
    (["run", "extra"], "unexpected extra argument (extra) (see mdm run --help)"),
    (["run", "--sampler"], "'--sampler' requires an argument"),
    (["run", "--smapler", "x"], "'--sampler'"),
    (["run", "--candidates", "4"], "an option of a sampler, cache or task: -o candidates=VALUE"),
    (["run", "--limit", "-3"], "-3 is not in the range x>=1"),
    (["run", "--limit", "9" * 23], "does not fit into 64 bits"),
    (["run", "--temperature", "nan"], "temperature=nan: should be a finite number"),
    (["run", "--seed", "1e400"], "'1e400' is not a valid integer"),
    (["run", "--steps", "4", "--tokens-per-step", "2"], "give either steps or tokens_per_step, not both"),
    (["run", "--top-p", "0.5"], "top_p changes nothing at temperature 0: set a temperature"),
    (["run", "--quiet", "--verbose"], "--quiet and --verbose: give one of them"),
    (["run", "--log-file", "folder"], "'folder' is a directory"),
    (["run", "--log-file", "nope/x.log"], "cannot write nope/x.log: No such file or directory"),
    (["run", "--data", "folder"], "'folder' is a directory"),
    (["run", "--data", "empty.csv"], "empty.csv holds no example"),
    (["run", "--data", "latin.csv"], "latin.csv cannot be read"),
    (["run", "--config", "binary.yaml"], "binary.yaml cannot be read"),
    (["run", "--config", "list.yaml"], "list.yaml: expected keys and values, found list"),
    (["run", "--config", "tab.yaml"], "tab.yaml: not YAML: while scanning for the next token"),
    (["run", "--config", "out.yaml"], "out.yaml: out is no part of a configuration: give --out"),
    (["run", "--config", "processes.yaml"], "num_processes is no part of a configuration: give --num-processes"),
    (
        ["run", "--config", "option.yaml"],
        "candidates is an option of info-gain: write options: {info-gain: {candidates: 4}}",
    ),
    (["run", "--config", "flat.yaml"], "write options: {info-gain: {candidates: 4}}"),
    (["run", "--config", "of-p2.yaml"], "eta is an option of p2: write options: {p2: {eta: 0.5}}"),
    (["run", "--config", "of-p2.yaml", "--sampler", "eb"], "of-p2.yaml: eta: there is no such name"),
    (["run", "--config", "dash.yaml"], "gen-length: there is no such name. Did you mean 'gen_length'?"),
    (["run", "--config", "other.yaml"], "no part of this run. Did you mean 'info-gain'?"),
    (["run", "--out", "file"], "file is a file, not a folder"),
    (["run", "--out", "/proc/nope"], "cannot create /proc/nope"),
    (["run", "--out", "/dev/full"], "/dev/full is a file, not a folder"),
    (
        ["run", "--model", "nope/nope", "--offline"],
        "not in the hub's cache, and the hub is not asked offline: download",
    ),
    (["run", "--model", "./nope"], "no such folder, and no such named checkpoint (named ones: tiny"),
    (["run", "--model", "file"], "a file, not a folder"),
    (["run", "--model", "folder"], "folder has no config.json"),
    (["run", "--model", "no-config"], "no-config has no config.json"),
    (["run", "--model", "no-tokenizer"], "no-tokenizer has no tokenizer: put its files there"),
    (["run", "--model", "pickled"], "pytorch_model.bin, a pickle: convert them to safetensors"),
    (["run", "--device", "gpu"], "device 'gpu' is unknown: use auto, cpu"),
    (["run", "--adapter", "lama"], "unknown family 'lama'. Did you mean 'llada'?"),
    (["run", "--attn-implementation", "flashy"], "attention 'flashy' is unknown: use one of eager"),
    (["run", "--adapter-weights", "folder"], "no adapter_config.json"),
    (["run", "-o", "candidates"], "expected option=value"),
    (["run", "-o", "candidates=[1"], "not YAML: while parsing a flow sequence at line 1"),
    (["run", "-o", "nope.candidates=4"], "'nope' is no part of this run. It has: info-gain, sudoku"),
    (["run", "--task", "suduko"], "unknown task 'suduko'. Did you mean 'sudoku'?"),
    (["run", "--task", "humaneval"], "allow it with --allow-code-execution"),
    (["run", "--live", "--num-processes", "2"], "leave --num-processes out"),
    (["generate"], "Missing argument 'TEXT'"),
    (["generate", "1+é漢=", "--gen-length", "4"], "does not know some characters of '1+é漢=': 'é', '漢'"),
    (["generate", "é" * 500, "--gen-length", "4"], f"{'é' * 60}...'"),
    (["generate", "x", "--mask", "_"], "give --infill too"),
    (["generate", "x", "--stop", ""], "stop=: should have at least 1 character"),
    (["generate", "x", "--image", "p.gif"], "should end in one of .png"),
    (["generate", "x", "--gen-length", "9" * 11], "prompt too long"),
    (["generate", "x", "--allowed-tokens", "5:2"], "not a range of ids"),
    (["generate", "\udcff"], "is not in UTF-8"),
    (["plugins", "samplers"], "`mdm plugins --kind sampler` lists those of a kind"),
    (["plugins", "nope"], "no plugin 'nope' is installed."),
    (["plugins", "info-gain", "--kind", "cache"], "no cache 'info-gain' is installed."),
    (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    (["compare", "nope"], "'nope' does not exist"),
    (["compare", "folder"], "folder is not a run's folder: it has no config.yaml"),
    (["trace", "view", "folder"], "folder is not a run's folder: it has no config.yaml"),
    (["trace", "veiw", "x"], "No such command 'veiw'. Did you mean 'view'?"),
    (["grade", "folder"], "folder is not a run's folder: it has no config.yaml"),
    (["serve", "--trace", "full"], "--trace does not apply to a server"),
    (["serve", "--port", "99999"], "99999 is not in the range"),
    (["serve", "--port", "PORT"], "PORT"),
]


@pytest.mark.parametrize(("args", "said"), CALLS, ids=[ascii(" ".join(args))[1:40] for args, _ in CALLS])
def test_a_wrong_call_is_one_line(there, monkeypatch, capsys, args, said):
    monkeypatch.chdir(there)
    monkeypatch.setattr("mdm.cli.progress.PATIENCE", 1e9)

    def written():
        return [path for path in sorted(there.rglob("*")) if path.name != "runs"]  # where runs go, empty

    before = written()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as ended:
            main([port if arg == "PORT" else arg for arg in args])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and err.startswith("mdm: ") and err.count("\n") == 1, (out, err)
    assert (port if said == "PORT" else said) in err
    assert written() == before


def test_a_stale_entry_point_says_install_it_again(site):
    site.package("fake-stale", {"mdm.samplers": {"stale": "fake_stale.parts:Sampler"}})
    with pytest.raises(registry.MdmError, match="its module fake_stale is gone: install it again"):
        registry.resolve("sampler", "stale")
    site.package("fake-needy", {"mdm.samplers": {"needy": "fake_needy:Sampler"}}, "import not_there_")
    with pytest.raises(registry.MdmError, match="ModuleNotFoundError: No module named 'not_there_'"):
        registry.resolve("sampler", "needy")


@pytest.mark.parametrize(("stdin", "said"), [(None, "which is closed"), (b"\xff\xfe", "which is not in UTF-8")])
def test_stdin_that_cannot_be_read_is_one_line(monkeypatch, capsys, stdin, said):
    text = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", text)
    with pytest.raises(SystemExit) as ended:
        main(["generate", "-"])
    assert ended.value.code == 2 and capsys.readouterr().err == f"mdm: TEXT - is read from stdin, {said}\n"
