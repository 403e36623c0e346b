"""Where weights go and in what form: device, type, quantization, attention. Checked before any weight is read.

Imports no torch before it is asked something: the command line has its names from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from mdm.errors import MdmError

if TYPE_CHECKING:
    import torch
    from torch import nn

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Quantization = Literal["bnb-4bit", "bnb-8bit", "torchao-int8", "torchao-int4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
DeviceMap = Literal["auto", "balanced", "balanced_low_0", "sequential"]
DEVICE_MAPS: tuple[DeviceMap, ...] = get_args(DeviceMap)
"""accelerate's ways to spread a model over what there is."""

ATTENTIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""transformers' own. The names of kernels on the hub are none of them: these are code from elsewhere."""


def device_of(name: str) -> str:
    """The device that a name stands for.

    Raises:
        MdmError: it is unknown, or not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        parsed = torch.device(name)
        known = parsed.type in ("cpu", "cuda", "mps")
    except RuntimeError:
        known = False
    if not known:
        raise MdmError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps")
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise MdmError(f"device {name!r}: this machine has no usable CUDA GPU: use --device cpu")
    if parsed.type == "cuda" and (parsed.index or 0) >= torch.cuda.device_count():
        raise MdmError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        raise MdmError("device 'mps' is not available on this machine: use --device cpu")
    return name


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on ``device``."""
    import torch

    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    import psutil  # type: ignore[import-untyped]  # the portable way to ask

    return int(psutil.virtual_memory().available)


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody else's code runs around a module: a hook, or accelerate's, which moves weights."""
    return bool(module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook"))


def dtype_of(name: str, device: str, config: Mapping[str, Any]) -> str:
    """The floating-point type that a name stands for on ``device``, for a checkpoint's config.json.

    Raises:
        MdmError: it is unknown.
    """
    if name == "auto":
        named = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        return "float32" if device == "cpu" else named if named in DTYPES else "bfloat16"
    if name not in DTYPES:
        raise MdmError(f"dtype {name!r} is unknown: use auto, {', '.join(DTYPES)}")
    return name


def loading_options(
    device: str, device_map: Any = None, quantization: str | None = None, attn_implementation: str | None = None
) -> dict[str, Any]:
    """What ``from_pretrained`` is to be told, beside the type; the arguments are those of ``load_model``.

    All weights go to ``device``, from ``device_of``, where ``device_map`` says nothing else.

    Raises:
        MdmError: one of them is unknown, needs a library that is not installed, or a GPU.
    """
    options: dict[str, Any] = {"device_map": {"": device} if device_map is None else device_map}
    if quantization is not None:
        options["quantization_config"] = _quantized(quantization, device)
    if attn_implementation is not None:
        options["attn_implementation"] = _attention(attn_implementation, device)
    return options


def _quantized(name: str, device: str) -> Any:
    if name not in QUANTIZATIONS:
        raise MdmError(f"quantization {name!r} is unknown: use {', '.join(QUANTIZATIONS)}")
    library = "torchao" if name.startswith("torchao") else "bitsandbytes"
    if find_spec(library) is None:
        raise MdmError(f"quantization {name!r} needs {library}, which is not installed: pip install {library}")
    if name == "torchao-int4" and not device.startswith("cuda"):
        raise MdmError(f"quantization {name!r} needs a CUDA GPU, and the device is {device}: use torchao-int8")
    import transformers

    if library == "bitsandbytes":
        return transformers.BitsAndBytesConfig(load_in_4bit=name == "bnb-4bit", load_in_8bit=name == "bnb-8bit")
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig() if name == "torchao-int8" else Int4WeightOnlyConfig())


def _attention(name: str, device: str) -> str:
    if name not in ATTENTIONS:
        raise MdmError(f"attention {name!r} is unknown: use one of {', '.join(ATTENTIONS)}")
    if name not in ("eager", "sdpa") and not device.startswith("cuda"):
        raise MdmError(f"attention {name!r} needs a CUDA GPU, and the device is {device}: use sdpa or eager")
    return name
