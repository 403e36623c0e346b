"""What a task of lm-eval asks of a generation: each argument is heeded, changes nothing, or is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdm.errors import MdmError

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the number of tokens to generate, first come first served."""
DEFAULT_LENGTH = 256
"""lm-eval's own."""

CUTS: dict[str, tuple[Any, ...]] = {"top_p": (None, 1, 1.0), "top_k": (None, 0, -1)}
"""What leaves out improbable tokens when one is drawn, and the values that leave out none."""

HEEDED = (*LENGTHS, "until", "do_sample", "temperature", *CUTS)

NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1), "num_return_sequences": (None, 1), "n": (None, 1), "best_of": (None, 1),
    "repetition_penalty": (None, 1.0), "length_penalty": (None, 1.0), "typical_p": (None, 1.0),
    "presence_penalty": (None, 0), "frequency_penalty": (None, 0), "no_repeat_ngram_size": (None, 0),
    "min_p": (None, 0), "min_new_tokens": (None, 0), "min_length": (None, 0), "early_stopping": (None, False),
    "skip_special_tokens": (None, True), "use_cache": (None, True, False),
}  # fmt: skip
"""Arguments that tasks spell out although they ask for what is done anyway, and the values that do."""


@dataclass(frozen=True)
class Generation:
    """How one text is to be written."""

    length: int
    settings: tuple[tuple[str, Any], ...]
    """decoding options, sorted by name: texts with the same ones are decoded together"""


def generation(asked: Mapping[str, Any], model_args: Mapping[str, Any], stop: list[str]) -> Generation:
    """A generation as a task asks for it. What the model's own arguments say comes first.

    Args:
        asked: the task's generation arguments.
        model_args: the decoding options that the model's arguments name.
        stop: texts that end every answer, beside the task's ``until``.

    Raises:
        MdmError: an argument that is unknown, or asks for what is not done here.
    """
    for name, value in asked.items():
        if name in HEEDED or value in NO_EFFECT.get(name, ()):
            continue
        plain = [wanted for wanted in NO_EFFECT.get(name, ()) if wanted is not None]
        only = f": here it can only be {' or '.join(map(str, plain))}" if plain else f"; there are {', '.join(HEEDED)}"
        raise MdmError(f"generation argument {name}={value} does not apply to mdm{only}")
    until = asked.get("until") or []
    until = [until] if isinstance(until, str) else until
    if not (isinstance(until, (list, tuple)) and all(isinstance(end, str) for end in until)):
        raise MdmError(f"generation argument until={until}: it should be a text or several")
    ends = [*stop, *filter(None, until)]
    settings: dict[str, Any] = {"stop": tuple(dict.fromkeys(ends)), "temperature": _temperature(asked)}
    settings |= {name: model_args[name] for name in ("temperature", *CUTS) if name in model_args}
    for name, none in CUTS.items():
        if name in model_args or asked.get(name) in none or not settings["temperature"]:
            continue  # the most probable token is never left out
        settings[name] = asked[name]
    lengths = (asked[name] for name in LENGTHS if asked.get(name) is not None)
    length = model_args.get("gen_length")
    length = next(lengths, DEFAULT_LENGTH) if length is None else length
    return Generation(int(length), tuple(sorted(settings.items())))


def _temperature(asked: Mapping[str, Any]) -> float:
    """0 where nothing is to be drawn; what is drawn without a temperature has 1, as in transformers."""
    draws, temperature = asked.get("do_sample"), asked.get("temperature")
    if draws is not None and not draws:
        return 0.0
    return float(temperature if temperature is not None else 1.0 if draws else 0.0)
