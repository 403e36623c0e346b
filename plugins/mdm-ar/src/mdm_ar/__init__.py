"""Autoregressive baselines (Llama, Mistral, Qwen and whatever else transformers has of a ``ForCausalLM``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError

if TYPE_CHECKING:
    from mdm.model import Model


class Ar:
    name = "ar"
    causal = True

    def claims(self, config: Mapping[str, Any]) -> bool:
        if not any(name.endswith("ForCausalLM") for name in config.get("architectures") or ()):
            return False
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        return config.get("model_type") in CONFIG_MAPPING_NAMES  # others would need remote code

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.loading import affixes, load_network, load_tokenizer, token_ids
        from mdm.protocols import ModelSpec
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

        from mdm_ar.model import ArModel

        try:
            ours = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        except ValueError as error:
            raise MdmError(f"{source}: transformers cannot read its config.json: {error}") from None
        tokenizer = load_tokenizer(source, auto=True)
        try:
            stops = GenerationConfig.from_pretrained(source, local_files_only=True).eos_token_id
        except OSError:
            stops = None
        prefix, _ = affixes(tokenizer)
        spec = ModelSpec(
            family=self.name,
            vocab_size=ours.vocab_size,
            mask_id=-1,
            eos_ids=token_ids(stops if stops is not None else ours.eos_token_id),
            pad_id=ours.pad_token_id,
            shift=True,
            attention="causal",
            prefix=prefix,
            prompt_style="chat" if getattr(tokenizer, "chat_template", None) else "compact",
        )
        network = load_network(
            AutoModelForCausalLM, source, ours, device=device, dtype=dtype, bidirectional=False, **options
        )
        return ArModel(spec, network, tokenizer, name=source)


FAMILY = Ar()
