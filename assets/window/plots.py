"""Small pictures for asset metadata, as PNG data URIs that the UI shows without any request."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MAX_BYTES = 20_000
"""Dagster stores a picture with every materialization event."""


def rewards_plot(rewards: NDArray[np.float64]) -> dg.MarkdownMetadataValue:
    """Rewards of a window, a column of dots a group. rewards: float64 [groups, 16]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 1.6), dpi=80, layout="constrained")
    axes = figure.subplots()
    groups = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    axes.scatter(groups, rewards.ravel(), s=6, alpha=0.35, color="#2a6f97", linewidths=0)
    axes.plot(rewards.mean(axis=1), color="#d1495b", linewidth=1)
    axes.set_xlabel("group, in file order")
    axes.set_ylabel("reward")
    return _markdown(figure, "rewards by group; the line is the group mean")


def stages_plot(utilisation: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """How busy each stage was, 0 to 1 by name; the longest bar limits the window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 1.2), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.barh(list(utilisation), [100 * s for s in utilisation.values()], color="#2a6f97")
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of its lanes' time at work")
    axes.invert_yaxis()
    return _markdown(figure, "utilisation by stage")


def margins_plot(verdicts: pa.Table) -> dg.MarkdownMetadataValue:
    """Margins by check, as a share of the check's threshold; left of 0 is refused.

    verdicts: VERDICT_SCHEMA. Only checks that compare numbers have a margin.
    """
    from matplotlib.figure import Figure

    shares: dict[str, NDArray[np.float64]] = {}
    compared = verdicts.select(["check", "margin", "threshold"]).drop_null()
    for check in sorted(pc.unique(compared["check"]).to_pylist()):
        of_check = compared.filter(pc.equal(compared["check"], check))
        thresholds = np.maximum(np.abs(of_check["threshold"].to_numpy()), 1e-12)
        share = of_check["margin"].to_numpy() / thresholds
        shares[check] = np.clip(share[np.isfinite(share)], -1.0, 1.0)
    if not shares:
        return dg.MetadataValue.md("(no check compared numbers)")
    figure = Figure(figsize=(4.2, 0.5 + 0.55 * len(shares)), dpi=80, layout="constrained")
    panels = figure.subplots(len(shares), sharex=True, squeeze=False)[:, 0]
    for axes, (check, share) in zip(panels, shares.items(), strict=True):
        axes.hist(share, bins=40, range=(-1, 1), color="#2a6f97")
        axes.axvline(0, color="#d1495b", linewidth=1)
        axes.set_yticks([])
        axes.set_ylabel(check.removesuffix("_valid"), rotation=0, ha="right", fontsize=7)
    panels[-1].set_xlabel("margin, as a share of the threshold")
    return _markdown(figure, "margins by check; left of the line is refused")


def timing_plot(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Seconds of a node's proofs over time, a line a GPU, what failed as a cross.

    rows: observed_at (unix seconds), gpu, seconds, passed; in any order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 1.6), dpi=80)
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.28, top=0.95)
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda row: row["observed_at"])
    newest = ordered[-1]["observed_at"]
    for gpu in sorted({row["gpu"] for row in ordered}):
        points = [row for row in ordered if row["gpu"] == gpu]
        hours = [(row["observed_at"] - newest) / 3600 for row in points]
        seconds = [row["seconds"] for row in points]
        (line,) = axes.plot(hours, seconds, marker="o", markersize=3, linewidth=1, label=gpu[:12])
        failed = [(h, s) for h, s, row in zip(hours, seconds, points, strict=True)
                  if row["passed"] is False]  # fmt: skip
        if failed:
            axes.plot(*zip(*failed, strict=True), "x", color="#d1495b", markersize=6)
        line.set_alpha(0.8)
    axes.set_xlabel("hours before the newest")
    axes.set_ylabel("s")
    axes.set_ylim(bottom=0)
    if len({row["gpu"] for row in ordered}) <= 8:
        axes.legend(fontsize=6)
    return _markdown(figure, "seconds of each proof by GPU; a cross did not pass")


def _markdown(figure: "object", alt: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # type: ignore[attr-defined]
    png = buffer.getvalue()
    if len(png) > MAX_BYTES:
        return dg.MetadataValue.md(f"({alt}: {len(png)} bytes are too many to keep)")
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")
