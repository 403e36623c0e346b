"""MMaDA (arXiv:2505.15809) on transformers' own Llama: MMaDA-8B Base and MixCoT write, draw and see.

Its vocabulary holds image codes behind the text, from ``ModelSpec.image_offset`` on. Text is decoded over all of it, as
published; ``allowed_tokens`` of ``mdm.decode`` keeps to a part. Codes of pictures are made and read by MAGVIT-v2, which
``load_picture_tokenizer`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model

    from mdm_mmada.picture_tokenizer import load_picture_tokenizer

__all__ = ["FAMILY", "Mmada", "load_picture_tokenizer"]


CHAT = (
    "{% for m in messages %}{% if loop.first %}<|startoftext|>{% endif %}<|start_header_id|>{{ m['role'] }}"
    "<|end_header_id|>\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}"
)
"""The template that MMaDA's scripts set, for a checkpoint that carries none: one newline behind a header, not two."""


class Mmada(BaseFamily):
    """MMaDA on transformers' Llama."""

    name = "mmada"

    def claims(self, config: Mapping[str, Any]) -> bool:
        # Its config.json may call itself llada: the architecture decides.
        return config.get("model_type") == "mmada" or "MMadaModelLM" in (config.get("architectures") or ())

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm_llada.layout import load

        from mdm_mmada.canvases import SpecialTokens
        from mdm_mmada.model import MmadaModel

        size = config.get("new_vocab_size") or config.get("embedding_size") or config.get("vocab_size")
        layout = {**config, "embedding_size": config.get("embedding_size") or size}
        model = load(
            self.name, source, layout, device=device, dtype=dtype, model_class=MmadaModel, chat_template=CHAT, **options
        )
        codes = _count(config, "codebook_size", 8192, source)
        # The published generator puts code c behind the text tokenizer's last token, whatever llm_vocab_size says.
        offset = None if model.tokenizer is None else len(model.tokenizer)
        if "image_token_offset" in config:
            offset = _count(config, "image_token_offset", 0, source)
        if offset is not None and offset + codes > model.spec.vocab_size:
            raise MdmError(
                f"{source}: {codes} image codes (config key 'codebook_size') behind the tokenizer's {offset} tokens "
                f"do not fit into a vocabulary of {model.spec.vocab_size}"
            )
        model.spec = replace(model.spec, image_offset=offset, image_codes=codes)
        model.special = SpecialTokens.of(config, source)
        model.slots = _count(config, "num_vq_tokens", MmadaModel.slots, source)
        return model

    def example(self, folder: Path) -> None:
        """Write a tiny random checkpoint into ``folder``, and its image tokenizer into ``magvit`` in there."""
        from mdm_mmada.example import write

        write(folder)


def _count(config: Mapping[str, Any], key: str, default: int, source: str) -> int:
    """A number of a config.json; raises an MdmError where it is no whole number from 1."""
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MdmError(f"{source}: config key {key!r} is {value!r}: it is a whole number from 1")
    return value


FAMILY = Mmada()


def __getattr__(name: str) -> Any:
    if name == "load_picture_tokenizer":  # it imports torch, and the family's entry point does not
        from mdm_mmada.picture_tokenizer import load_picture_tokenizer

        return load_picture_tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
