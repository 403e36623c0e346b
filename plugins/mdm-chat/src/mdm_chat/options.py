"""How a talk is decoded: the flags it began with, and what ``/set`` changes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.data import documents
from mdm.errors import MdmError, suggest
from mdm.runs import config as configs
from mdm.runs.config import PACES, LoadingConfig, PromptConfig

LENGTH = 128
"""Tokens of an answer at most, unless a flag or a preset says otherwise; it ends with the block that holds its end."""
NOT_OF_A_TALK = ("trace", "batch_size", "image_tokenizer", "image_size")
"""Flags of decoding that change nothing here: a talk has one row at a time, keeps no trace and shows no pictures."""
FIXED = {*LoadingConfig.model_fields, *NOT_OF_A_TALK, "model", "prompt_style", *configs.RECORDED}
"""What cannot be changed within a talk."""


class Options:
    """A configuration that can be changed by one option at a time; a change that is refused changes nothing."""

    def __init__(self, asked: Mapping[str, Any], assignments: tuple[str, ...]) -> None:
        for name in NOT_OF_A_TALK:
            if name in asked:
                raise MdmError(f"--{name.replace('_', '-')} does not apply to a talk: leave it out")
        self.asked, self.assignments = dict(asked), assignments
        self.config = self._build(self.asked, assignments)

    def _build(self, asked: dict[str, Any], assignments: tuple[str, ...]) -> PromptConfig:
        length = {} if {"gen_length", "preset"} & set(asked) else {"gen_length": LENGTH}
        config = configs.build(PromptConfig, None, length | asked, assignments)
        if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
            raise MdmError("a talk has one model and one sampler at one pace; `mdm run` compares several")
        return config

    def change(self, text: str) -> None:
        """Set ``OPTION=VALUE``, of decoding or of a plugin; without a value it is as usual again.

        Raises:
            MdmError: there is no such option, it has no such value, or a talk cannot change it.
        """
        name, equals, value = text.partition("=")
        name, value = name.strip().replace("-", "_"), value.strip()
        if not name or not equals:
            raise MdmError(f"/set {text}: expected OPTION=VALUE, such as /set temperature=0.7")
        if name in FIXED:
            raise MdmError(f"/set {name}: this cannot be changed within a talk: leave, and begin another")
        asked, assignments = dict(self.asked), self.assignments
        if name in PromptConfig.model_fields:
            for other in {name, *(PACES if name in PACES else ())}:
                asked.pop(other, None)
            if value:
                asked[name] = self._value(text, value)
        else:
            assignments = tuple(each for each in assignments if each.partition("=")[0].strip() != name)
            assignments += (f"{name}={value}",) if value else ()
        try:
            self.config = self._build(asked, assignments)
        except MdmError as error:
            near = suggest(name, set(PromptConfig.model_fields) - FIXED)
            if name not in PromptConfig.model_fields and near:
                raise MdmError(f"/set {name}: there is no such option.{near}") from None
            raise MdmError(f"/set {str(error).removeprefix('-o ')}") from None
        self.asked, self.assignments = asked, assignments

    def _value(self, text: str, value: str) -> Any:
        try:
            return documents.parse_yaml(value)
        except ValueError as error:
            raise MdmError(f"/set {text}: {error}") from None

    def shown(self) -> str:
        """What differs from the usual, as it could be set."""
        named = [f"{name}={value}" for name, value in self.asked.items() if name not in FIXED]
        return "  ".join([*named, *self.assignments]) or "all options are as usual"
