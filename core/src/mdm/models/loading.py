"""From a name to a model: where it lies, which family it is, and weights that are all in place."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from mdm.errors import MdmError, MdmWarning, cause, first_line
from mdm.models.checkpoints import find_family, holds_adapter, locate, read_config
from mdm.models.lora import Adapter
from mdm.models.model import Model
from mdm.models.placement import device_of, dtype_of, loading_options
from mdm.models.threads import use_threads
from mdm.models.weight_files import Shapes, check_files, check_weights, weight_paths, weight_shapes, whole_numbers

NO_ADAPTER = {"subfolder": "none"}
"""Where transformers is to look for an adapter, which it would apply unasked where peft is installed."""

LARGER = 8
"""How many times the numbers in its files a network may have: packed ones, and weights that are two modules'."""

NO_FIT = "it does not fit its config.json"

ONE_BY_ONE = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' switch for loading without threads."""

GROUPED_BYTES = 16
"""Rows of weights that torch's grouped products take are a multiple of so many bytes."""

PROGRESS_FROM = 1 << 28  # bytes of weights from which loading shows its progress


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    adapter: str | None = None,
    offline: bool = False,
    device_map: str | Mapping[str, int | str] | None = None,
    quantization: str | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    adapter_weights: str | Path | None = None,
    merge_adapter: bool | None = None,
    image_tokenizer: str | Path | None = None,
    image_size: int | None = None,
    threads: int | Literal["auto"] | None = None,
    **options: Any,
) -> Model:
    """Load a checkpoint.

    Args:
        name: a registered checkpoint ("tiny"), a local folder or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto (float32 on CPU, else what the checkpoint names, else bfloat16), float32, bfloat16, float16.
        adapter: the model family, where config.json does not tell.
        offline: never ask the hub.
        device_map: accelerate's auto, balanced, balanced_low_0 or sequential, or a mapping from modules to devices.
        quantization: bnb-4bit, bnb-8bit (bitsandbytes), torchao-int8 or torchao-int4.
        attn_implementation: the attention of transformers to use: sdpa (its default), eager, ...
        revision: the commit of a hub model; None: its newest.
        adapter_weights: a folder with a LoRA adapter, as peft saves it, to put on the weights.
        merge_adapter: add the adapter to the weights, so that it costs no time; None: unless these are quantized.
        image_tokenizer: what turns pictures into tokens and back, a local folder or a hub id (showlab/magvitv2).
        image_size: height and width (pixels) of the pictures that are drawn and seen; None: as the model was trained.
        threads: of torch in this whole process, or auto: see ``use_threads``; None: as many as it has.
        options: passed to transformers' ``from_pretrained``.

    Raises:
        MdmError: the checkpoint is missing, broken, or of a kind that no installed family can take.
    """
    texts = {
        "name": name, "device": device, "dtype": dtype, "adapter": adapter, "quantization": quantization,
        "attn_implementation": attn_implementation, "revision": revision, "adapter_weights": adapter_weights,
        "image_tokenizer": image_tokenizer,
    }  # fmt: skip
    for key, value in texts.items():
        if not isinstance(value, (str, Path)) and (value is not None or key in ("name", "device", "dtype")):
            raise MdmError(f"{key} is {value!r}: it should be a text")
    for key, flag in {"offline": offline, "merge_adapter": merge_adapter}.items():
        if flag not in (True, False, None):
            raise MdmError(f"{key} is {flag!r}: it should be True or False")
    if not isinstance(device_map, (str, Mapping, type(None))):
        raise MdmError(f"device_map is {device_map!r}: it should be a text, or a mapping from modules to devices")
    config = read_config(folder := locate(str(name), offline, revision=revision))
    family = find_family(config, adapter, folder)
    check_weights(folder, config)
    if device_map is not None and device != "auto":
        raise MdmError(f"device_map {device_map} places the weights, and device {device} does too: give one of them")
    target = device_of(device)
    placed = loading_options(target, device_map, quantization, attn_implementation)
    if adapter_weights is not None:
        merge = quantization is None if merge_adapter is None else merge_adapter
        placed["lora"] = Adapter(Path(adapter_weights), merge=merge)
    elif merge_adapter is not None:
        raise MdmError("merge_adapter says what becomes of an adapter, and there is none: give adapter_weights")
    elif holds_adapter(folder):
        warnings.warn(
            f"{folder} holds a LoRA adapter beside its weights, which is not applied: --adapter-weights applies it",
            MdmWarning, stacklevel=2,
        )  # fmt: skip
    if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
        raise MdmError(f"image_size is {image_size!r}: it is a number of pixels")
    if image_size is not None and image_tokenizer is None:
        raise MdmError("image_size is the size of pictures, and nothing makes any: give image_tokenizer")
    use_threads(threads, sum(path.stat().st_size for path in weight_paths(folder)), target)
    try:
        kind = dtype_of(dtype, target, config)
        model = family.load(str(folder), config, device=target, dtype=kind, **placed, **options)
    except MdmError:
        raise
    except Exception as error:  # what transformers or a family makes of a config.json that nobody foresaw
        raise MdmError(f"{folder} cannot be loaded as a {family.name} checkpoint: {cause(error)}") from error
    if image_tokenizer is not None:
        model.load_image_tokenizer(str(image_tokenizer), offline=offline, image_size=image_size)
    model.name = str(name)
    return model


def stock_config(source: str) -> Any:
    """The configuration of a checkpoint whose class is transformers' own, without remote code.

    Raises:
        MdmError: transformers cannot read it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise MdmError(f"{source}: transformers cannot read its config.json: {first_line(error)}") from None


def load_network(
    module: Any,
    source: str,
    config: Any,
    *,
    device: str,
    dtype: str,
    key_mapping: Mapping[str, str] | None = None,
    bidirectional: bool = True,
    surplus: str | None = None,
    lora: Adapter | None = None,
    **options: Any,
) -> Any:
    """A transformers ``module``, such as ``LlamaForCausalLM``, with every weight of ``source`` in its place.

    Args:
        key_mapping: regular expressions from the checkpoint's weight names to the module's, of one group at most.
        bidirectional: switch causal attention off.
        surplus: a regular expression of weights that the checkpoint may hold beside the module's (other heads).
        lora: an adapter to put on the weights.

    Raises:
        MdmError: a file that cannot be read; a missing, unexpected or misshapen weight.
    """
    if bidirectional:
        config.is_causal = False
        if (attention := str(options.get("attn_implementation"))).startswith("flash"):
            raise MdmError(f"attention {attention!r} takes no mask of a row's own, which this family needs: use sdpa")
    if wrong := next((name for name in (key_mapping or {}).values() if re.search(r"\\[2-9]", name)), None):
        raise MdmError(f"key_mapping gives {wrong!r}, and transformers knows \\1 alone: write a pattern for each")
    options.setdefault("device_map", {"": device})
    widths = [getattr(config, key, None) or 0 for key in ("hidden_size", "moe_intermediate_size")]
    if widths[1] and any(width * getattr(torch, dtype).itemsize % GROUPED_BYTES for width in widths):
        options.setdefault("experts_implementation", "batched_mm")
    made_of_several = _check_shapes(module, source, config, key_mapping or {}, "quantization_config" in options)
    try:
        with _own_words(source), _read(source, made_of_several) as (name, weights):
            network, info = module.from_pretrained(
                name, state_dict=weights, config=config, dtype=getattr(torch, dtype),
                key_mapping=dict(key_mapping or {}), use_safetensors=True, trust_remote_code=False,
                local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
                adapter_kwargs=NO_ADAPTER, **options,
            )  # fmt: skip
    except Exception as error:
        raise MdmError(f"{source} cannot be loaded: {first_line(error)}") from None
    faults = {"mismatched_keys": "the wrong shape for", "missing_keys": "no", "unexpected_keys": "a surplus"}
    for kind, fault in faults.items():
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(kind) or ())
        if kind == "unexpected_keys" and surplus is not None:
            keys = [key for key in keys if not re.search(surplus, key)]
        if keys:
            weight = f"weight {keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            over = min(info.get("unexpected_keys") or (), default=None) if kind == "missing_keys" else None
            place = f", and {over}, which has no place" if over else ""
            raise MdmError(f"{source}: the checkpoint has {fault} {weight}{place}: {NO_FIT}")
    _check_tied(network, config, source)
    if lora is not None:
        lora.apply(network, key_mapping or {})
    return network.eval().requires_grad_(False)


def _check_shapes(module: Any, source: str, config: Any, key_mapping: Mapping[str, str], quantizes: bool) -> bool:
    """Compare the network that ``config`` describes with the shapes in the weights' headers, before it takes memory.

    Returns whether weights of the network are made of several in the files, or several of one.

    Raises:
        MdmError: a weight has another shape, or there are far fewer of them than the network has; or they are to be
            quantized, which the stacked weights of experts are not, and these are nearly all of a network that has any.
    """
    shapes = weight_shapes(Path(source))
    build = module.from_config if hasattr(module, "from_config") else module._from_config  # Auto classes have the one
    try:
        with torch.device("meta"):
            network = build(deepcopy(config))
    except Exception as error:
        raise MdmError(f"{source}: its config.json describes no network: {first_line(error)}") from None
    if quantizes and any(weight.dim() == 3 for weight in network.parameters()):
        raise MdmError(f"{source}: no quantization here reaches the weights of experts: drop --quantization")
    packed = getattr(config, "quantization_config", None) is not None  # such weights have shapes of their own
    converted = not packed and _compare(shapes, network, key_mapping, source)
    needed = sum(part.numel() for part in (*network.parameters(), *network.buffers()))
    held = sum(map(prod, shapes.values()))
    if needed > LARGER * held + PROGRESS_FROM:
        raise MdmError(
            f"{source}: its config.json describes a network of {needed:,} numbers, and the weights are {held:,}: "
            f"{NO_FIT}"
        )
    return converted


def _check_tied(network: Any, config: Any, source: str) -> None:
    """Refuse a head of its own beside a config.json that ties it to the embeddings."""
    head = network.get_output_embeddings()  # None of what is no language model
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    own, tied = head.weight, network.get_input_embeddings().weight
    comparable = own is not tied and own.shape == tied.shape and not own.is_meta and not tied.is_meta
    if comparable and not torch.equal(own, tied.to(own.device, own.dtype)):
        other = "config key 'tie_word_embeddings' is True, and the head is another matrix than the embeddings"
        raise MdmError(f"{source}: {other}: {NO_FIT}")


@contextmanager
def _read(source: str, one_by_one: bool) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
    """What transformers is to read: a folder, or weights ``one_by_one``, each into memory of its own.

    transformers maps the files, and what it stacks would lie in memory twice: in the pages of the files, and stacked;
    and threads of its own would read ahead of the stacking, on whatever device.
    """
    from safetensors import safe_open

    if not one_by_one:
        yield source, None
        return
    before = os.environ.get(ONE_BY_ONE)
    os.environ[ONE_BY_ONE] = "1"
    try:
        files: list[Any] = [safe_open(path, framework="pt", backend="pread") for path in weight_paths(Path(source))]
        yield None, {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118
    finally:
        del os.environ[ONE_BY_ONE]
        os.environ |= {} if before is None else {ONE_BY_ONE: before}


def _compare(shapes: Shapes, network: Any, key_mapping: Mapping[str, str], source: str) -> bool:
    """Refuse a weight of another shape than the network's, and tell whether any are stacked or split.

    Of these, such as a layer's experts, what the files hold is counted in numbers.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    numbers, integers = network.state_dict(), whole_numbers(Path(source))
    wanted = {name: tuple(weight.shape) for name, weight in numbers.items()}
    changes = get_model_conversion_mapping(network, dict(key_mapping))
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    held: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    converted: set[tuple[str, ...]] = set()
    for published, shape in sorted(shapes.items()):
        name, pattern = rename_source_key(published, renamings, converters, network.base_model_prefix, wanted)
        targets = next((c.target_patterns for c in converters if pattern in c.source_patterns), [name])
        names = tuple(name.replace(targets[0], target) for target in targets)
        held.setdefault(names, []).append(shape)
        if published in integers and any(name in wanted and numbers[name].is_floating_point() for name in names):
            raise MdmError(f"{source}: weight {published} is stored as integers, and config.json names no quantization")
        converted |= {names} if pattern is not None else set()
    for names, parts in held.items():
        whole = [wanted[name] for name in names if name in wanted]
        fits = sum(map(prod, parts)) == sum(map(prod, whole)) if names in converted else parts == whole
        if len(whole) == len(names) and not fits:
            raise MdmError(f"{source}: the checkpoint has the wrong shape for weight {names[0]}: {NO_FIT}")
    return bool(converted)


@contextmanager
def _own_words(source: str) -> Iterator[None]:
    """Keep transformers' report to ourselves, and its progress bar to checkpoints that take time."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if sum(path.stat().st_size for path in Path(source).glob("*.safetensors")) < PROGRESS_FROM:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def load_tokenizer(source: str, bpe: str | None = None, *, auto: bool = False) -> Any:
    """The checkpoint's own tokenizer, without remote code; None where it has none.

    Where there is no tokenizer.json, the transformers class ``bpe`` reads the family's vocab.json and merges.txt. With
    ``auto`` the family's tokenizers are transformers' own, which chooses the class.
    """
    there = {path.name for path in Path(source).iterdir()}
    if auto and there & {"tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json"}:
        kind = "AutoTokenizer"
    elif "tokenizer.json" in there:
        kind = "PreTrainedTokenizerFast"
    elif bpe is not None and {"vocab.json", "merges.txt"} <= there:
        kind = bpe
    else:
        return None
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(
            source, local_files_only=True, trust_remote_code=False, clean_up_tokenization_spaces=False
        )
    except Exception as error:
        raise MdmError(f"{source}: the tokenizer cannot be read: {first_line(error)}") from None


def tokenizer_of(name: str, *, offline: bool = False) -> Any:
    """The tokenizer of a checkpoint, named as in ``load_model``.

    Raises:
        MdmError: there is no such checkpoint, or it has no tokenizer.
    """
    folder = locate(name, offline, weights=False)
    check_files(folder)
    if (tokenizer := load_tokenizer(str(folder), bpe="Qwen2Tokenizer")) is None:
        raise MdmError(f"{folder} has no tokenizer")
    return tokenizer


def check_mask(mask_id: int, vocabulary: int, tokenizer: Any, source: str) -> None:
    """Refuse a mask token that is not among the network's ``vocabulary`` tokens, or not among the tokenizer's.

    Raises:
        MdmError: the id is behind the vocabulary of the one or the other.
    """
    if not 0 <= mask_id < vocabulary:
        raise MdmError(f"{source}: the mask token is {mask_id}, and the network has {vocabulary} tokens")
    if tokenizer is not None and mask_id >= len(tokenizer):
        raise MdmError(
            f"{source}: the mask token is {mask_id}, and the tokenizer has no token of that id "
            f"(it has {len(tokenizer)}): these files do not belong together"
        )


def mask_token(
    config: Mapping[str, Any], source: str, tokenizer: Any, *names: str, published: int | None = None
) -> int:
    """The mask token: config.json's ``mask_token_id``, the tokenizer's token of one of these ``names``, or, where
    neither is there, the ``published`` id.

    Raises:
        MdmError: nothing names it, two name others, or the network or the tokenizer has no such token.
    """
    said = config.get("mask_token_id")
    vocabulary = {} if tokenizer is None else tokenizer.get_vocab()
    name = next((name for name in names if name in vocabulary), None)
    if said is not None and name is not None and vocabulary[name] != said:
        raise MdmError(
            f"{source}: config key 'mask_token_id' is {said}, and the tokenizer's {name} is {vocabulary[name]}"
        )
    mask = said if said is not None else published if name is None else vocabulary[name]
    if mask is None:
        raise MdmError(f"{source}: neither config.json's 'mask_token_id' nor a token {names[0]} names the mask")
    check_mask(mask, config["vocab_size"], tokenizer, source)
    return int(mask)


def affixes(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer puts before and behind a text of its own accord (BOS; [CLS] and [SEP])."""
    if tokenizer is None:
        return (), ()
    bare, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    return (), ()
