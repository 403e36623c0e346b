"""Any masked language model of transformers (BERT, RoBERTa, ModernBERT, ESM-2 and DPLM-style protein models)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.models import BaseFamily, is_stock

if TYPE_CHECKING:
    from mdm.models import Model

OTHER_HEADS = r"(pooler|seq_relationship|contact_head|position_ids|score|classifier)"
"""Weights that checkpoints hold beside the masked-language-model head."""


class Mlm(BaseFamily):
    """Any masked language model of transformers."""

    name = "mlm"

    def claims(self, config: Mapping[str, Any]) -> bool:
        return is_stock(config, "ForMaskedLM", "EsmForDPLM")

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import affixes, check_mask, end_tokens, load_network, load_tokenizer, stock_config
        from mdm.protocols import ModelSpec
        from transformers import AutoModelForMaskedLM

        from mdm_mlm.model import MlmModel

        stock = stock_config(source)
        if getattr(stock, "is_decoder", False):
            raise MdmError(f"{source}: config key 'is_decoder' is True: a masked language model looks both ways")
        tokenizer = load_tokenizer(source, auto=True)
        mask = config.get("mask_token_id")
        mask = getattr(tokenizer, "mask_token_id", None) if mask is None else mask
        if mask is None:
            raise MdmError(f"{source}: neither config.json's 'mask_token_id' nor a tokenizer names the mask token")
        check_mask(mask, stock.vocab_size, tokenizer, source)
        named = (config.get(f"{kind}_token_id") for kind in ("bos", "cls", "eos", "pad", "sep"))
        special = {i for i in (*named, *(tokenizer.all_special_ids if tokenizer is not None else ())) if i is not None}
        # A head may be wider than the vocabulary (ESM-C: 64 rows for 33 tokens), and what has no token has no text.
        nameless = (
            set(range(stock.vocab_size)) - set(tokenizer.get_vocab().values()) if tokenizer is not None else set()
        )
        prefix, suffix = affixes(tokenizer)
        spec = ModelSpec(
            family=self.name,
            vocab_size=stock.vocab_size,
            mask_id=mask,
            # It never writes one; a text that is read back ends there all the same.
            eos_ids=end_tokens(config, source, stock.vocab_size, tokenizer, [str(getattr(tokenizer, "sep_token", ""))]),
            pad_id=stock.pad_token_id,
            has_kv=False,
            suppressed=tuple(sorted((special | nameless) - {mask})),
            prefix=prefix,
            suffix=suffix,
            prompt_style="compact",
        )
        network = load_network(
            AutoModelForMaskedLM, source, stock, device=device, dtype=dtype, surplus=OTHER_HEADS, **options
        )
        return MlmModel(spec, network, tokenizer, name=source)


FAMILY = Mlm()
