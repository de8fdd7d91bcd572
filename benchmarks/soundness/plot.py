"""The study as a plot."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.soundness.report_forged import HALF_DEFAULT, HEADLINE
from benchmarks.soundness.study import Study

PLOTTED = (
    "another seed",
    "all zero",
    "quantised to int4",
    "10 % of weights pruned",
    "quantised to int8",
    "one AdamW step, rate 1.5e-4 (its trainer's last)",
    "one AdamW step, rate 1e-5",
    "one AdamW step, rate 1e-6",
)


def plot(study: Study, path: Path) -> None:
    """Scores of honest and forged rollouts as ranges, with the limits."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    forged = {row.name: row for row in study.forged if row.section in ("sketches", "weights")}
    rows = [(f"honest {r.verifier}: {r.name}", r.scores, "tab:blue") for r in study.honest]
    rows += [(name, forged[name].scores, "tab:red") for name in PLOTTED if name in forged]
    figure, panels = plt.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    for panel, score, least in zip(
        panels, ("sketch_drift", "logit_drift"), (1e-7, 1e-7), strict=True
    ):
        for at, (_, scores, colour) in enumerate(reversed(rows)):
            low, middle, high = np.maximum(np.quantile(scores[score], (0.01, 0.5, 0.99)), least)
            panel.plot([low, high], [at, at], color=colour, linewidth=3)
            panel.plot(middle, at, "o", color=colour)
        for name, style in ((HEADLINE, "-"), (HALF_DEFAULT, ":")):
            limit = getattr(study.limits[name], score)
            panel.axvline(limit, color="black", linestyle=style, label=f"limit, {name}")
        panel.set_xscale("log")
        panel.set_title(f"{score} of a rollout", fontsize=10)
        panel.set_xlabel(f"1 %, 50 % and 99 % of rollouts; {least:g} is that or less", fontsize=8)
    panels[0].set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)], fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)
