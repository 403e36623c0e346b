"""Names the colour of an object: CLIP, asked which of some texts is nearest to what is cut out of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mdm.errors import MdmError
from mdm.models.loading import load_network, load_tokenizer, stock_config
from PIL import Image

from mdm_geneval.metadata import COLORS
from mdm_geneval.pictures import normalised

TEXTS = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = (0x99, 0x99, 0x99)
"""What stands in place of the pixels that are not the object's."""
MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
"""CLIP's, of red, green and blue."""
Cut = tuple[Sequence[float], np.ndarray]
"""An object's box, x0, y0, x1, y1 in pixels, and its mask, bool ``[H, W]``."""


class ColorReader:
    """A CLIP model as a classifier of colours; what it makes of a class's texts is kept."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import CLIPModel

        config = stock_config(str(folder))
        self._model = load_network(
            CLIPModel, str(folder), config, device=device, dtype="float32", bidirectional=False, surplus="."
        )
        self._tokenizer = load_tokenizer(str(folder), auto=True)
        if self._tokenizer is None:
            raise MdmError(f"{folder} has no tokenizer")
        self._size = int(self._model.config.vision_config.image_size)
        self._texts: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(self, picture: Image.Image, name: str, cuts: Sequence[Cut]) -> list[str]:
        """The colour of each of some objects of the class ``name``."""
        if name not in self._texts:
            self._texts[name] = self._text_features(name)
        crops = [normalised(self._crop(picture, *cut), MEAN, STD) for cut in cuts]
        pixels = torch.cat(crops).to(self._model.device)
        features = _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)
        return [COLORS[best] for best in (features @ self._texts[name].T).argmax(1).tolist()]

    def _text_features(self, name: str) -> torch.Tensor:
        """What each colour of an object looks like to CLIP: ``[10, D]``, of length 1."""
        texts = [text.format(color=color, name=name) for color in COLORS for text in TEXTS]
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        features = self._model.get_text_features(**tokens.to(self._model.device)).pooler_output
        return _unit(_unit(features).unflatten(0, (len(COLORS), len(TEXTS))).mean(1))

    @property
    def _longest(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    def _crop(self, picture: Image.Image, box: Sequence[float], mask: np.ndarray) -> Image.Image:
        """The object on a grey background, in the size that CLIP takes.

        The shorter side becomes that size, and of the longer one the middle is taken. Both are one resizing of the
        middle, so that a long and narrow object takes no more memory than another.
        """
        grey = Image.new("RGB", picture.size, BACKGROUND)
        x0, y0, x1, y1 = map(round, box)
        crop = Image.composite(picture, grey, Image.fromarray(mask)).crop((x0, y0, x1, y1))
        (left, right), (top, bottom) = (_middle(side, min(crop.size), self._size) for side in crop.size)
        return crop.resize((self._size, self._size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _middle(side: int, shorter: int, size: int) -> tuple[float, float]:
    """Which part of a side is left where ``shorter`` becomes ``size`` pixels, and all but the middle ones are cut."""
    resized = size * side // shorter
    start = round((resized - size) / 2) * side / resized
    return start, min(float(side), start + size * side / resized)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)
