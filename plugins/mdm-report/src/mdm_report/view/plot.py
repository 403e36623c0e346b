"""One example as a figure, with matplotlib: the order of decoding under each sampler, and the entropy paid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from mdm_report import pictures


def draw(data: Mapping[str, Any], path: Path, by: str) -> None:
    """Draw the first sample of ``data`` (from ``mdm_report.view.data.load``) into ``path``; ``by``: step or entropy.

    Raises:
        MdmError: matplotlib is absent, or the name says no kind of picture.
    """
    sample = data["samples"][0]
    arms = [(label, arm) for label, arm in zip(data["arms"], sample["arms"], strict=True) if arm]
    figure = pictures.figure(path, figsize=(3.2 * (len(arms) + 1), 3.0))
    from matplotlib.ticker import MaxNLocator

    # One axis of steps and one scale of colours, so that the panels can be compared.
    *panels, chart = figure.subplots(1, len(arms) + 1, squeeze=False)[0]
    steps = max(len(arm["frames"]) for _, arm in arms)
    most = max((e for _, arm in arms for frame in arm["frames"] for e in frame["e"]), default=0) or 1
    for panel, (label, arm) in zip(panels, arms, strict=True):
        marks = [
            (position, number, entropy if by == "entropy" else number)
            for number, frame in enumerate(arm["frames"], 1)
            for position, entropy in zip(frame["p"], frame["e"], strict=True)
            if frame["k"] != "remask"
        ]
        at, number, value = zip(*marks, strict=True)
        dots = panel.scatter(
            at, number, c=value, s=14, marker="s", cmap="viridis", vmin=0, vmax=most if by == "entropy" else steps
        )
        panel.set(title=label, xlabel="position", ylabel="step", ylim=(steps + 0.7, 0.3))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        paid = [0.0, *accumulate(sum(f["e"]) if f["k"] != "remask" else 0.0 for f in arm["frames"])]
        count = [0, *accumulate(len(f["p"]) if f["k"] != "remask" else 0 for f in arm["frames"])]
        chart.plot(count, paid, label=f"{label} ({paid[-1]:.3f})", linewidth=1.5)
    figure.colorbar(dots, ax=panels, label="entropy (nats)" if by == "entropy" else "step")
    chart.set(title=sample["id"], xlabel="tokens decoded", ylabel="cumulative entropy (nats)")
    chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.legend(fontsize="small")
    pictures.save(figure, path, dpi=200)
