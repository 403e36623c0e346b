"""One example as a figure, with matplotlib: the order of decoding under each sampler, and the cumulative entropy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from mdm.errors import MdmError

from mdm_report import pictures
from mdm_report.view.data import DECODED, PAID


def draw(data: Mapping[str, Any], path: Path, by: str) -> None:
    """Draw the first sample of ``data`` (from ``mdm_report.view.data.load``) into ``path``; ``by``: step or entropy.

    Raises:
        MdmError: matplotlib is absent, or the name says no kind of picture.
    """
    sample = data["samples"][0]
    variants = [
        (label, it) for label, it in zip(data["variants"], sample["variants"], strict=True)
        if it and any(frame["p"] for frame in it["frames"] if frame["k"] != "remask")
    ]  # fmt: skip
    if not variants:
        raise MdmError(f"the trace of {sample['id']} decodes nothing: there is nothing to draw")
    figure = pictures.figure(path, figsize=(3.2 * (len(variants) + 1), 3.0))
    from matplotlib.ticker import MaxNLocator

    # One axis of steps and one scale of colours, so that the panels can be compared.
    *panels, chart = figure.subplots(1, len(variants) + 1, squeeze=False)[0]
    steps = max(len(decoding["frames"]) for _, decoding in variants)
    entropies = [e for _, decoding in variants for frame in decoding["frames"] for e in frame["e"] if e is not None]
    most = max(entropies, default=0) or 1
    for panel, (label, decoding) in zip(panels, variants, strict=True):
        marks = [
            (position, number, (entropy or 0.0) if by == "entropy" else number)
            for number, frame in enumerate(decoding["frames"], 1)
            for position, entropy in zip(frame["p"], frame["e"], strict=True)
            if frame["k"] != "remask"
        ]
        positions, numbers, values = zip(*marks, strict=True)
        dots = panel.scatter(
            positions,
            numbers,
            c=values,
            s=14,
            marker="s",
            cmap="viridis",
            vmin=0,
            vmax=most if by == "entropy" else steps,
        )
        panel.set(title=label, xlabel="position", ylabel="step", ylim=(steps + 0.7, 0.3))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        paid = [0.0, *accumulate(sum(e or 0.0 for e in f["e"]) if f["k"] in PAID else 0.0 for f in decoding["frames"])]
        count = [0, *accumulate(DECODED[f["k"]] * len(f["p"]) for f in decoding["frames"])]
        chart.plot(count, paid, label=f"{label} ({paid[-1]:.3f})", linewidth=1.5)
    figure.colorbar(dots, ax=panels, label="entropy (nats)" if by == "entropy" else "step")
    chart.set(title=sample["id"], xlabel="tokens decoded", ylabel="cumulative entropy (nats)")
    chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.legend(fontsize="small")
    pictures.save(figure, path, dpi=200)
