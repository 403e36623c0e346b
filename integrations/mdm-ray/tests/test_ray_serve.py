"""The server on Ray Serve: two replicas answer as ``mdm.decode`` does, also where one of them is killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import mdm
import pytest
from mdm.errors import MdmError
from mdm.runs import config as configs

pytestmark = [
    pytest.mark.wide,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*", "ignore::DeprecationWarning:pydantic.*"),
    pytest.mark.skipif(
        not {"ray", "openai"} <= {dist.name for dist in metadata.distributions()} or find_spec("mdm_serve") is None,
        reason="ray, openai or mdm-serve is not installed (tox -e ray has them)",
    ),
]

PROMPTS = [f"{a}+{b}=" for a in range(1, 9) for b in (3, 5)]
SETTINGS = {"model": ["tiny"], "sampler": ["confidence"], "gen_length": 8, "temperature": 0.7}


def replicas() -> list[int]:
    """The processes that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if "ServeReplica:default:mdm" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    import ray
    from mdm_ray.serve import deployment
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        settings = configs.build(configs.DecodeConfig, None, SETTINGS)
        serve.run(deployment(settings, replicas=2, gpus=0), route_prefix="/")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serve.shutdown()
        ray.shutdown()


def ask(url: str, prompt: str, seed: int) -> str:
    from openai import OpenAI

    with OpenAI(base_url=url, api_key="none", max_retries=5) as client:
        return client.completions.create(model="tiny", prompt=prompt, seed=seed).choices[0].text


def expected() -> list[str]:
    model = mdm.load_model("tiny", device="cpu")
    return [
        mdm.decode(model, [prompt], sampler="confidence", gen_length=8, temperature=0.7, seed=seed)[0].text
        for seed, prompt in enumerate(PROMPTS)
    ]


def test_two_replicas_answer_as_decode_does(url):
    assert len(replicas()) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [url] * len(PROMPTS), PROMPTS, range(len(PROMPTS))))
    assert answers == expected()


def test_a_stream_comes_through(url):
    from openai import OpenAI

    with OpenAI(base_url=url, api_key="none") as client:
        stream = client.completions.create(model="tiny", prompt=PROMPTS[0], seed=0, stream=True)
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == expected()[0]


def test_a_replica_that_is_killed_is_replaced(url):
    killed = replicas()[0]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 180
    while len(now := replicas()) < 2 or killed in now:
        assert time.monotonic() < deadline, now
        time.sleep(0.5)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [url] * len(PROMPTS), PROMPTS, range(len(PROMPTS))))
    assert answers == expected()


def test_what_a_deployment_cannot_have_is_refused():
    from mdm_ray.serve import app, deployment

    settings = configs.build(configs.DecodeConfig, None, SETTINGS | {"sampler": ["confidence", "random"]})
    with pytest.raises(MdmError, match="one model and one sampler"):
        deployment(settings)
    with pytest.raises(MdmError, match="no argument 'replica'.*Did you mean 'replicas'"):
        app({"replica": "2"})
    with pytest.raises(MdmError, match="replicas=two is no number"):
        app({"replicas": "two"})
    with pytest.raises(MdmError, match="gpus=0 or gpus=1"):
        app({"replicas": "2"})
