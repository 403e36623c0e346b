"""CLIP: embeddings of pictures and texts by transformers' own model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mdm.errors import MdmError, first_line
from mdm.models.checkpoints import check_weights, locate, read_config
from PIL import Image

from mdm_imagescores.pictures import Picture
from mdm_imagescores.statistics import Array, cosines

FILES = ("preprocessor_config.json", "tokenizer_config.json")


class Clip:
    """A CLIP with its tokenizer and the way it looks at pictures (Pillow's resizing, wherever it runs).

    Raises:
        MdmError: there is no such checkpoint, it is of another kind, or a part of it is missing.
    """

    def __init__(self, name: str, device: str) -> None:
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        folder = locate(name, offline=False)
        kind = read_config(folder).get("model_type")
        if kind != "clip":
            raise MdmError(
                f"{name} is a checkpoint of {kind!r}, and no CLIP: give one such as openai/clip-vit-large-patch14"
            )
        check_weights(folder)
        for file in FILES:
            if not (folder / file).is_file():
                raise MdmError(f"{folder} has no {file}: it is not a whole CLIP checkpoint")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(str(folder), local_files_only=True)
            model, info = CLIPModel.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # whatever a damaged checkpoint leads transformers to
            raise MdmError(f"{name} cannot be loaded: {first_line(error)}") from None
        if missing := sorted(info["missing_keys"]):
            raise MdmError(
                f"{folder}: its weights lack {missing[0]} and {len(missing) - 1} more: it is not a whole CLIP"
            )
        self._model: Any = model.to(device).eval()
        self.longest: int = min(77, model.config.text_config.max_position_embeddings)
        """Tokens of a text that are read."""

    def cosines(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Array:
        """The cosine ``[N]`` between each picture and its text, in float64.

        Raises:
            MdmError: the device has no memory for them.
        """
        device = self._model.device
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        pixels = self._processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                out = self._model(
                    input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device),
                    pixel_values=pixels["pixel_values"].to(device),
                )  # fmt: skip
        except torch.OutOfMemoryError:
            raise MdmError(f"no memory for {len(texts)} pictures at once: take a smaller --batch-size") from None
        return cosines(out.image_embeds.cpu().numpy(), out.text_embeds.cpu().numpy())

    def is_cut(self, text: str) -> bool:
        """Whether a text has more tokens than are read."""
        return len(self._tokenizer(text)["input_ids"]) > self.longest
