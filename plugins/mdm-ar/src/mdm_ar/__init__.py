"""Autoregressive baselines (Llama, Mistral, Qwen and whatever else transformers has of a ``ForCausalLM``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mdm.models import BaseFamily, is_stock

if TYPE_CHECKING:
    from mdm.models import Model


class Ar(BaseFamily):
    """Any causal language model of transformers, decoded by its own ``generate``."""

    name = "ar"
    autoregressive: ClassVar[bool] = True

    def claims(self, config: Mapping[str, Any]) -> bool:
        return is_stock(config, "ForCausalLM")

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import affixes, load_network, load_tokenizer, stock_config, token_ids
        from mdm.protocols import ModelSpec
        from transformers import AutoModelForCausalLM, GenerationConfig

        from mdm_ar.model import ArModel

        stock = stock_config(source)
        tokenizer = load_tokenizer(source, auto=True)
        try:
            stops = GenerationConfig.from_pretrained(source, local_files_only=True).eos_token_id
        except OSError:
            stops = None
        prefix, _ = affixes(tokenizer)
        spec = ModelSpec(
            family=self.name,
            vocab_size=stock.vocab_size,
            mask_id=-1,
            eos_ids=token_ids(stops if stops is not None else stock.eos_token_id),
            pad_id=stock.pad_token_id,
            shift=True,
            attention="causal",
            prefix=prefix,
            prompt_style="chat" if getattr(tokenizer, "chat_template", None) else "compact",
        )
        network = load_network(
            AutoModelForCausalLM, source, stock, device=device, dtype=dtype, bidirectional=False, **options
        )
        return ArModel(spec, network, tokenizer, name=source)


FAMILY = Ar()
