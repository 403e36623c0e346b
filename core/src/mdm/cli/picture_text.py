"""A picture as text, for terminals of 24-bit colour: two pixels a character."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.text import Text


def half_blocks(image: NDArray[np.uint8], width: int) -> Text:
    """A uint8 image ``[H, W, 3]`` as lines of at most ``width`` characters, each the mean colour of two areas."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    columns = max(1, min(width, image.shape[1]))
    means = _means(_means(image, max(1, round(image.shape[0] * columns / image.shape[1])), 0), columns, 1)
    rows = [[Color.from_rgb(*pixel) for pixel in row] for row in means.round().astype(int).tolist()]
    out = Text(no_wrap=True, overflow="crop")
    for y in range(0, len(rows), 2):
        out.append("\n" if y else "")
        for x, top in enumerate(rows[y]):
            out.append("▀", Style(color=top, bgcolor=rows[y + 1][x] if y + 1 < len(rows) else None))
    return out


def _means(values: NDArray[np.generic], count: int, axis: int) -> NDArray[np.float64]:
    """The means of ``count`` parts of an axis, as equal as whole pixels allow."""
    begins = np.arange(count + 1) * values.shape[axis] // count
    sizes = np.diff(begins).reshape([-1 if axis == a else 1 for a in range(values.ndim)])
    means: NDArray[np.float64] = np.add.reduceat(values.astype(np.float64), begins[:-1], axis) / sizes
    return means
