"""The server of ``mdm-serve`` as an application of Ray Serve: several replicas, each with a model and a session.

``serve run mdm_ray.serve:app config=FILE replicas=2 gpus=1``, or ``ray.serve.run(deployment(config, 2, gpus=1))``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError, suggest
from mdm.runs import config as configs
from mdm.runs.config import DecodeConfig
from mdm.runs.decode_args import load_model

from mdm_ray.cluster import check_device, import_ray

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mdm_serve.limits import Limits

ARGUMENTS = ("config", "replicas", "gpus", "name")
"""What ``app`` takes."""


def app(arguments: dict[str, str]) -> Any:
    """The application that ``serve run mdm_ray.serve:app`` makes.

    Where the environment has ``MDM_API_KEY``, clients must send that key. Without it only programs of the machine that
    they ask are served.

    Args:
        arguments: ``config``, a YAML file with the settings of ``mdm generate``; ``replicas``; ``gpus``, of each
            replica; ``name``, what requests call the model.
    """
    from mdm_serve.limits import Limits

    for unknown in (name for name in arguments if name not in ARGUMENTS):
        raise MdmError(
            f"there is no argument {unknown!r}; there are {', '.join(ARGUMENTS)}.{suggest(unknown, ARGUMENTS)}"
        )
    for number in (name for name in ("replicas", "gpus") if not arguments.get(name, "1").isdecimal()):
        raise MdmError(f"{number}={arguments[number]} is no number")
    file, gpus = arguments.get("config"), arguments.get("gpus")
    key = os.environ.get("MDM_API_KEY")
    config = configs.build(DecodeConfig, None if file is None else Path(file))
    limits = Limits(key=key, loopback=key is None)
    return deployment(
        config, int(arguments.get("replicas", 2)), gpus=None if gpus is None else int(gpus), name=arguments.get("name"),
        limits=limits,
    )  # fmt: skip


def deployment(
    config: DecodeConfig, replicas: int = 2, *, gpus: int | None = None, name: str | None = None,
    limits: Limits | None = None, row_tokens: int | None = None,
) -> Any:  # fmt: skip
    """An application for ``ray.serve.run``. Each replica loads the model and decodes what it is given in one batch.

    Args:
        config: the model, and what holds for requests that say nothing else.
        gpus: of each replica; None: as the configuration's device says, which must then be cpu or cuda.
        name: what requests call the model; None: as the configuration does.
        limits: of each replica, with the key; None: for programs of this machine, without a key.
        row_tokens: tokens of all canvases that a replica decodes at once; None: by its memory.

    Raises:
        MdmError: the configuration names several models, samplers or paces, or its device leaves open how many GPUs.
    """
    import_ray()
    from mdm_serve.limits import Limits
    from ray import serve

    if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
        raise MdmError("a server has one model and one sampler at one pace; a request may name another sampler")
    check_device(config, gpus)
    if gpus is None and config.device == "auto":
        raise MdmError("say how many GPUs each replica gets: gpus=0 or gpus=1")
    if replicas < 1:
        raise MdmError(f"replicas={replicas}: there is at least one")
    bounds = limits or Limits()

    def make() -> FastAPI:
        """The app of a replica, made on its machine."""
        from mdm_serve.app import arguments_of, make_app, make_service

        model = load_model(config, config.model[0])
        arguments = arguments_of(config, model)
        service = make_service(model, name or config.model[0], arguments, bounds, row_tokens=row_tokens)
        made = make_app(service)
        made.state.service = service
        return made

    class Replica:
        """Beside the app: what Ray asks to know whether it must begin a new one."""

        app: FastAPI

        def check_health(self) -> None:
            """Raises where the thread that owns the model has ended."""
            if not self.app.state.service.worker.alive:
                raise RuntimeError("the thread that owns the model has ended")

    # Requests wait in the replica, where they join a batch as soon as there is room; Serve's own bound is 5.
    deployed = serve.deployment(
        name="mdm", num_replicas=replicas, max_ongoing_requests=bounds.queue, max_queued_requests=bounds.queue,
        graceful_shutdown_timeout_s=bounds.timeout,
        ray_actor_options={"num_cpus": 1, "num_gpus": int(config.device == "cuda") if gpus is None else gpus},
    )  # fmt: skip
    return deployed(serve.ingress(make)(Replica)).bind()
