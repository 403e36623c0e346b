"""From pictures to what is scored: features by the Inception network, batch by batch, of which only moments stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from mdm.errors import MdmError

from mdm_imagescores.inception import FEATURES, SPATIAL, Inception, resize
from mdm_imagescores.pictures import Picture
from mdm_imagescores.statistics import Array, Moments


@dataclass(frozen=True)
class Measured:
    """A set of pictures as the network sees it."""

    pooled: Moments
    spatial: Moments
    logits: Array
    """float32 ``[N, 1008]``, in the order of the pictures."""
    features: Array | None
    """float32 ``[N, 2048]``, where they are kept"""


def measure(
    network: Inception,
    pictures: Iterable[Picture],
    *,
    batch_size: int,
    keep: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Measure pictures, which may differ in size: each is resized by itself, on the network's device.

    ``keep``: keep the features of each picture, 8 kB, for precision and recall. ``on_progress`` is given the number of
    pictures done.

    Raises:
        MdmError: the device has no memory for a batch.
    """
    pooled, spatial = Moments(FEATURES), Moments(SPATIAL)
    logits: list[Array] = []
    kept: list[Array] = []
    for batch in _batches(network, pictures, batch_size):
        try:
            # TensorFloat-32 would round the inputs of convolutions to ten bits.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features = [part.cpu().numpy() for part in network(batch)]
        except torch.OutOfMemoryError:
            raise MdmError(f"no memory for {batch_size} pictures at once: take a smaller --batch-size") from None
        if not all(np.isfinite(part).all() for part in features):
            raise MdmError("the network's features are not finite: its weights are damaged")
        pooled.add(features[0])
        spatial.add(features[1])
        logits.append(features[2])
        if keep:
            kept.append(features[0])
        on_progress(pooled.count)
    if not logits:
        raise MdmError("there are no pictures to measure")
    return Measured(pooled, spatial, np.concatenate(logits), np.concatenate(kept) if keep else None)


def _batches(network: Inception, pictures: Iterable[Picture], size: int) -> Iterator[torch.Tensor]:
    device, left = network.fc.weight.device, iter(pictures)
    while batch := [
        resize(torch.from_numpy(np.array(picture)).to(device).permute(2, 0, 1).float())
        for picture in islice(left, size)
    ]:
        yield torch.stack(batch)
