"""CLIP: embeddings of pictures and texts by transformers' own model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mdm.errors import MdmError, first_line
from mdm.models import load_network, load_tokenizer, stock_config
from mdm.models.checkpoints import locate, read_config
from mdm.models.weight_files import check_weights
from PIL import Image

from mdm_imagescores.pictures import Picture
from mdm_imagescores.statistics import Array, cosines

PROCESSOR = "preprocessor_config.json"


class Clip:
    """A CLIP with its tokenizer and the way it looks at pictures (Pillow's resizing, wherever it runs).

    Raises:
        MdmError: there is no such checkpoint, it is of another kind, or a part of it is missing.
    """

    def __init__(self, name: str, device: str) -> None:
        from transformers import CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        folder = locate(name, offline=False)
        config = read_config(folder)
        kind = config.get("model_type")
        if kind != "clip":
            raise MdmError(
                f"{name} is a checkpoint of {kind!r}, and no CLIP: give one such as openai/clip-vit-large-patch14"
            )
        check_weights(folder, config)
        if not (folder / PROCESSOR).is_file():
            raise MdmError(f"{folder} has no {PROCESSOR}, which says how it looks at pictures")
        source = str(folder)
        self._tokenizer = load_tokenizer(source, auto=True)
        if self._tokenizer is None:
            raise MdmError(f"{folder} has no tokenizer")
        try:
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(source, local_files_only=True)
        except Exception as error:
            raise MdmError(f"{folder / PROCESSOR} cannot be read: {first_line(error)}") from None
        self._model = load_network(
            CLIPModel, source, stock_config(source), device=device, dtype="float32", bidirectional=False,
            surplus=r"\.position_ids$",
        )  # fmt: skip
        self.longest: int = min(77, self._model.config.text_config.max_position_embeddings)
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

    def count_cut(self, texts: Iterable[str]) -> int:
        """How many texts have more tokens than are read."""
        tokens = self._tokenizer(list(texts), verbose=False)["input_ids"]  # too long is what is asked for
        return sum(len(ids) > self.longest for ids in tokens)
