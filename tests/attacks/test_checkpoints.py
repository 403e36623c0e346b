"""Checkpoints of strangers: every file wrong in every way, before anything is built or much memory is taken."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import struct
import time

import mdm
import pytest
import torch
from mdm.models import bounded
from mdm.models.bounded import Bounded
from mdm.models.checkpoints import read_config
from mdm.models.weight_files import check_weights
from mdm.protocols import Message
from safetensors.torch import load_file, save_file
from tiny_families import save

SECONDS, MEMORY = 20, 2**30


@pytest.fixture(scope="module")
def llada(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llada"), "llada")


@pytest.fixture(scope="module")
def dream(tmp_path_factory):
    return save(tmp_path_factory.mktemp("dream"), "dream")


@pytest.fixture
def folder(llada, tmp_path):
    return shutil.copytree(llada, tmp_path / "checkpoint")


def refused(folder, **options):
    """Loading ends in one line, soon, and without the memory of what the checkpoint claims to be."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(mdm.MdmError) as caught:
        mdm.load_model(folder, device="cpu", **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000 and "checkpoint" in line, line
    assert time.monotonic() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MEMORY
    return line


def change(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not ...}))


WRONG = [
    5,
    -1,
    0,
    2**40,
    10**30,
    1.5,
    "x",
    "64",
    [1],
    [None],
    {},
    {"a": 1},
    True,
    float("nan"),
    float("inf"),
    "\ud800",
    ...,
]
SIZES = ("d_model", "n_heads", "n_kv_heads", "n_layers", "mlp_hidden_size", "embedding_size")


@pytest.mark.attack("checkpoints: config keys")
@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_size_of_a_wrong_kind(folder, key, value):
    if (key, value) in (("n_kv_heads", ...), ("n_kv_heads", 0), ("embedding_size", ...)):
        pytest.skip("then the number of heads, or the vocabulary, is taken")
    change(folder, **{key: value})
    refused(folder)


@pytest.mark.attack("checkpoints: config keys")
@pytest.mark.parametrize("key", ["mask_token_id", "eos_token_id", "pad_token_id", "architectures", "model_type"])
@pytest.mark.parametrize("value", [1.5, "x", [None], {"a": 1}, [[1]], {}, 10**30, True, ["\ud800", 5]], ids=repr)
def test_an_id_or_a_name_of_a_wrong_kind(folder, key, value):
    if key == "model_type" and value == "x":
        value = 5
    if (key, value) == ("model_type", {}):
        value = {"a": 1}
    change(folder, **{key: value})
    refused(folder)


@pytest.mark.attack("checkpoints: config keys")
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "weight_tying", "max_sequence_length"])
@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, -5, float("nan"), 1e300], ids=repr)
def test_a_number_of_a_wrong_kind(folder, key, value):
    change(folder, **{key: value})
    refused(folder)


@pytest.mark.attack("checkpoints: config keys")
@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "num_attention_heads", "hidden_size", "layer_types", "rope_parameters"]
)
@pytest.mark.parametrize(
    "value", [0, -1, 10**9, 10**5, "x", [], ["full_attention"] * 3, [5], {"rope_theta": "x"}], ids=repr
)
def test_a_network_of_transformers(dream, tmp_path, key, value):
    if (key, value) == ("layer_types", []) or (key == "rope_parameters" and not value):
        pytest.skip("it says nothing")
    folder = shutil.copytree(dream, tmp_path / "checkpoint")
    change(folder, **{key: value})
    refused(folder)


@pytest.mark.attack("checkpoints: counts")
@pytest.mark.parametrize(
    "changes",
    [
        {"n_layers": 10**5}, {"n_layers": 10**9}, {"n_layers": 1}, {"n_layers": 3}, {"n_heads": 3}, {"n_heads": 32},
        {"embedding_size": 10**9, "d_model": 10**9}, {"mlp_hidden_size": 2**31}, {"embedding_size": 255},
        {"num_experts": 10**9}, {"vision_config": {"num_hidden_layers": 10**9}}, {"num_encoder_layers": 10**7},
    ],
    ids=str,
)  # fmt: skip
def test_a_network_that_the_weights_are_not(folder, changes):
    change(folder, **changes)
    refused(folder)


@pytest.mark.attack("checkpoints: JSON")
@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"5", b"null", b'"x"', b"{", b"\xff\xfe{}", b"{}", b"[" * 10**5, b'{"a":' * 10**5,
        b'{"model_type": "llada", "model_type": "x"}', b'{"n_layers": ' + b"9" * 10**5 + b"}", b"\0" * 1000,
        b'{"model_type": "' + b"x" * 10**6 + b'"}', b'{"architectures": ["' + b"x" * 10**6 + b'"]}',
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "generation_config.json"])
def test_json_that_is_none(folder, name, text):
    if name == "generation_config.json" and text[:1] == b"{" and text[-1:] == b"}" and b"9" not in text:
        text = b'{"eos_token_id": {"a": 1}}'
    if "index" in name:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / name).write_bytes(text)
    refused(folder)


@pytest.mark.attack("checkpoints: what is no file")
@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "circle", "nowhere"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
     "chat_template.jinja", "special_tokens_map.json", "vocab.json", "merges.txt", "adapter_config.json"],
)  # fmt: skip
def test_only_regular_files_are_opened(folder, name, kind):
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"zero": "/dev/zero", "circle": name, "nowhere": "/nowhere"}[kind])
    refused(folder)


def index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.attack("checkpoints: shards")
@pytest.mark.parametrize(
    "shard",
    ["../other/model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "model.bin", "none.safetensors",
     "x" * 300 + ".safetensors", "a\0.safetensors", "\ud800.safetensors", "./model-1.safetensors", 5, None, ["a"]],
    ids=lambda name: repr(name)[:30],
)  # fmt: skip
def test_shards_stay_in_their_folder(folder, shard):
    weights = list(load_file(folder / "model.safetensors"))
    other = folder.parent / "other"
    other.mkdir()
    shutil.copy(folder / "model.safetensors", other)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index(folder, dict.fromkeys(weights, shard))
    refused(folder)


@pytest.mark.attack("checkpoints: shards")
@pytest.mark.parametrize("how", ["no map", "empty", "a list", "a surplus name", "twice", "lacks one"])
def test_an_index_says_where_each_weight_is(folder, how):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    whole = dict.fromkeys(names, "model-1.safetensors")
    save_file(weights, folder / "model-1.safetensors")
    if how == "no map":
        (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')
    elif how == "a list":
        (folder / "model.safetensors.index.json").write_text('{"weight_map": ["model-1.safetensors"]}')
    elif how == "empty":
        index(folder, {})
    elif how == "a surplus name":
        index(folder, whole | {"model.more": "model-1.safetensors"})
    elif how == "twice":
        save_file({names[0]: weights[names[0]]}, folder / "model-2.safetensors")
        index(folder, whole | {names[0]: "model-2.safetensors"})
    else:
        save_file({name: weights[name] for name in names[1:]}, folder / "model-1.safetensors")
        index(folder, whole)
    refused(folder)


def header(facts, data=b"") -> bytes:
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.attack("checkpoints: headers")
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", struct.pack("<Q", 2**63), struct.pack("<Q", 2**31) + b"{", header(b"{"), header(b"[]"), header({}),
        header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
        header({"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), header(b"{" * 10**5),
        b"\x80\x04\x95" + bytes(100), b"PK\x03\x04" + bytes(100),
    ],
    ids=lambda data: repr(data[:40]),
)  # fmt: skip
def test_headers_that_are_none(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    refused(folder)


@pytest.mark.attack("checkpoints: headers")
@pytest.mark.parametrize(
    "how", ["torn", "one byte less", "one byte more", "a surplus", "other shapes", "integers", "none"]
)
def test_weights_that_do_not_fit(folder, how):
    path = folder / "model.safetensors"
    whole, weights = path.read_bytes(), load_file(path)
    name = "model.transformer.wte.weight"
    if how == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "one byte less":
        path.write_bytes(whole[:-1])
    elif how == "one byte more":
        path.write_bytes(whole + b"\0")
    elif how == "a surplus":
        save_file(weights | {"model.more": torch.zeros(1)}, path)
    elif how == "other shapes":
        save_file(weights | {name: torch.zeros(7, 32)}, path)
    elif how == "integers":
        save_file({k: v.to(torch.int64) for k, v in weights.items()}, path)
    else:
        path.unlink()
    if how == "integers":
        pytest.skip("transformers casts them")
    refused(folder)


@pytest.mark.attack("checkpoints: tokenizers")
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
)
@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 10**5, '{"a": 1}', '{"model": {"type": "BPE"}}', "\0"])
def test_a_tokenizer_that_is_none(folder, name, text):
    from mdm.models.loading import tokenizer_of

    tokenizer = mdm.load_model("tiny", device="cpu").tokenizer
    tokenizer.save_pretrained(folder)
    (folder / name).write_text(text)
    for load in (lambda: tokenizer_of(str(folder)), lambda: mdm.load_model(folder, device="cpu")):
        try:
            load()
        except mdm.MdmError as error:
            assert "\n" not in str(error)


TEMPLATES = {
    "memory": "{{ 'a' * 10000000000 }}",
    "a wide format": "{{ '%9999999999d' % 1 }}",
    "raises": "{{ raise_exception('x') }}",
    "syntax": "{% for %}",
    "unknown filter": "{{ messages | nothing }}",
    "undefined": "{{ nothing.at.all }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "long": "{{ 'a' * 9000000 }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as p %}",
    "extends": "{% extends 'x' %}",
    "mutates": "{{ messages.append(1) }}",
    "doubling": "{% set n = namespace(a='a') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
    "division": "{{ 1 / 0 }}",
    "list": "{{ (range(99999) | list) * 99999 }}",
    "ljust": "{{ 'a'.ljust(10**11) }}",
    "huge": "{{ 10 ** 10000 }}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a number": "{{ messages + 1 }}",
}


@pytest.mark.attack("checkpoints: chat templates")
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_of_a_stranger_is_bounded(name):
    model = mdm.load_model("tiny", device="cpu")
    model.tokenizer.chat_template = TEMPLATES[name]
    with pytest.raises(mdm.MdmError, match="chat template cannot be applied") as caught:
        model.encode_chat([Message("user", "1+1=")])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    model.tokenizer.chat_template = "{{ messages[0].content }}"
    assert model.render_chat([{"role": "user", "content": "1+1="}]).text == "1+1="


@pytest.mark.attack("checkpoints: chat templates")
@pytest.mark.parametrize("template", ["loop", "power"])
def test_a_template_that_takes_for_ever_is_ended(template, monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    model = mdm.load_model("tiny", device="cpu")
    loops = "".join("{% for x in range(99999) %}" for _ in range(4)) + "{% endfor %}" * 4
    model.tokenizer.chat_template = loops if template == "loop" else "{{ 99 ** (99 ** 99) }}"
    with pytest.raises(mdm.MdmError, match=r"longer than 0\.5 seconds|memory"):
        model.encode_chat([Message("user", "1+1=")])


def test_a_bounded_function_gives_what_it_gives():
    upper = Bounded(lambda text, times=1: text.upper() * times)
    assert [upper(text="a\ud800ß", times=n) for n in range(3)] == ["", "A\ud800SS", "A\ud800SSA\ud800SS"]
    again = Bounded.__reduce__(upper)[0](*Bounded.__reduce__(upper)[1])
    assert again(text="b") == "B"


@pytest.mark.parametrize("how", [lambda: os._exit(0), lambda: os.kill(os.getpid(), 9), lambda: 5, lambda: None])
def test_a_bounded_function_that_ends_its_process_or_gives_no_text(how):
    call = Bounded(how)
    with pytest.raises(ValueError, match="ends the process|instead of a text"):
        call()


def test_a_copy_ends_when_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(bounded, "IDLE", 0.05)
    call = Bounded(lambda: str(os.getpid()))
    first = int(call())
    deadline = time.monotonic() + 10
    while os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert int(call()) != first


def test_a_copy_holds_no_connection_of_its_original():
    """Else a server's client, whose connection is closed, would wait for the copy to end."""
    ours, client = socket.socketpair()
    with ours, client:
        call = Bounded(lambda: str(os.getpid()))
        copy = int(call())
        ours.close()
        client.settimeout(10)
        assert client.recv(1) == b"" and int(call()) == copy


def test_one_model_in_four_threads():
    from concurrent.futures import ThreadPoolExecutor

    call = Bounded(lambda text: text * 2)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: call(text=str(n)), range(200))) == [str(n) * 2 for n in range(200)]


@pytest.mark.attack("checkpoints: bytes changed at random")
def test_a_flipped_byte_is_refused_or_loads(folder, record_property):
    """Of config.json and the header, which say how everything else is read."""
    import random

    draw, trials = random.Random(7), 0
    config, weights = (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()
    length = 8 + struct.unpack("<Q", weights[:8])[0]
    for _ in range(250):
        for path, whole, end in (
            (folder / "config.json", config, len(config)),
            (folder / "model.safetensors", weights, length),
        ):
            changed = bytearray(whole)
            changed[draw.randrange(end)] = draw.randrange(256)
            path.write_bytes(changed)
            try:
                check_weights(folder, read_config(folder))
                if draw.random() < 0.1:
                    mdm.load_model(folder, device="cpu", adapter="llada")
            except mdm.MdmError as error:
                assert "\n" not in str(error)
            path.write_bytes(whole)
            trials += 1
    record_property("trials", trials)
