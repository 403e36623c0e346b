"""Finds objects in a picture: transformers' Mask2Former, with what mmdet does before and after it.

GenEval's own detector is mmdet's Mask2Former with a Swin-S backbone, a pickle in mmdet's layout. The published
checkpoint that is nearest to it was trained separately, so single verdicts differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mdm.errors import MdmError
from mdm.models.loading import load_network, stock_config
from PIL import Image
from torch.nn.functional import interpolate

from mdm_geneval.metadata import CLASSES
from mdm_geneval.pictures import normalised

SHORTEST, LONGEST = 800, 1333
"""Pixels of a picture's sides as the detector sees it: the first where the second allows it."""
MULTIPLE = 32
"""The sides are padded to multiples of so many pixels."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""ImageNet's, of red, green and blue."""
MOST = 100
"""Pairs of a query and a class that are looked at, the most probable ones."""
Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Instances:
    """Detected objects, by descending score."""

    labels: torch.Tensor
    """int64 ``[N]``: COCO's classes by index."""
    scores: torch.Tensor
    """float32 ``[N]``"""
    boxes: torch.Tensor
    """float32 ``[N, 4]``: x0, y0, x1, y1 in pixels, where x1 and y1 lie behind the last pixel."""
    masks: torch.Tensor
    """bool ``[N, H, W]``"""

    def rows(self, names: Sequence[str]) -> list[list[Any]]:
        """``[class, x0, y0, x1, y1, score]`` of each, whose classes are called ``names``."""
        numbers = zip(names, self.boxes.tolist(), self.scores.tolist(), strict=True)
        return [[name, *box, score] for name, box, score in numbers]


class Detector:
    """A Mask2Former for COCO's classes."""

    def __init__(self, folder: Path, device: str) -> None:
        from transformers import Mask2FormerForUniversalSegmentation

        config = stock_config(str(folder))
        if config.num_labels != len(CLASSES):
            raise MdmError(f"{folder} knows {config.num_labels} classes: a detector of COCO's {len(CLASSES)} is needed")
        self._model = load_network(
            Mask2FormerForUniversalSegmentation, str(folder), config, device=device, dtype="float32",
            bidirectional=False, surplus=".",
        )  # fmt: skip

    @torch.inference_mode()
    def __call__(self, picture: Image.Image) -> Instances:
        """What an RGB picture holds, on the CPU."""
        height, width = seen_size(picture.height, picture.width)
        pixels = normalised(picture.resize((width, height), Image.Resampling.BILINEAR), MEAN, STD)
        padded = tuple(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
        pixels = torch.nn.functional.pad(pixels, (0, padded[1] - width, 0, padded[0] - height))
        outputs = self._model(pixel_values=pixels.to(self._model.device))
        return instances(
            outputs.class_queries_logits[0], outputs.masks_queries_logits[0],
            (padded[0], padded[1]), (height, width), (picture.height, picture.width),
        )  # fmt: skip


def seen_size(height: int, width: int) -> Size:
    """The size at which the detector sees a picture, whose shape it keeps."""
    scale = min(SHORTEST / min(height, width), LONGEST / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def instances(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, padded: Size, seen: Size, original: Size, most: int = MOST
) -> Instances:
    """The objects that a Mask2Former's outputs stand for, as mmdet reads them.

    Args:
        class_logits: ``[Q, C + 1]`` of each query; the last class is that there is nothing.
        mask_logits: ``[Q, h, w]`` of each query, of any size.
        padded: the size of what the network was given.
        seen: that of the picture in it, without the padding.
        original: that of the picture before it was resized.
        most: how many pairs of a query and a class are looked at.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    classes = probabilities.shape[1]
    best, pairs = probabilities.flatten().topk(min(most, probabilities.numel()))
    queries, place = (pairs // classes).unique(return_inverse=True)
    large = interpolate(mask_logits[queries][None].float(), padded, mode="bilinear", align_corners=False)
    inside = large[..., : seen[0], : seen[1]]
    logits = interpolate(inside, original, mode="bilinear", align_corners=False)[0]
    masks = logits > 0
    area = masks.sum((1, 2))
    surety = (logits.sigmoid() * masks).sum((1, 2)) / (area + 1e-6)
    scores, order = (best * surety[place]).sort(descending=True, stable=True)
    of_query = place[order]
    return Instances(
        (pairs[order] % classes).cpu(), scores.cpu(), _boxes(masks)[of_query].cpu(), masks.cpu()[of_query.cpu()]
    )


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """The box around each mask, float32 ``[N, 4]``; zeros for an empty one."""
    ends = []
    for dimension in (1, 2):  # over rows, which leaves x; over columns, which leaves y
        taken = masks.any(dimension).int()
        last = taken.shape[1] - taken.flip(1).argmax(1)
        ends.append((taken.argmax(1), last))
    (x0, x1), (y0, y1) = ends
    boxes = torch.stack([x0, y0, x1, y1], 1).float()
    return boxes * masks.flatten(1).any(1)[:, None]
