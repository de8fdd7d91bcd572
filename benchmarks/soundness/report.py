"""The study as a page and a plot."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.soundness.statistics import lower_bound, upper_bound
from benchmarks.soundness.study import CALIBRATED, DEFAULT, Rate, Study
from benchmarks.soundness.toploc_side import TOKENS, TOP_K
from windrow.engine.calibration import MARGIN
from windrow.engine.proof_scores import LOGPROB_SCORES, SKETCH_SCORES
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP

TARGET = 1e-3
HEADLINE = f"float32 {CALIBRATED}"
HALF = f"bfloat16 {CALIBRATED}"
HALF_DEFAULT = f"bfloat16 {DEFAULT}"
SECTIONS = {
    "sketches": "Sketches that are not of these tokens, this model and this window",
    "weights": "Other weights: sketches and log-probs by another model for the same tokens",
    "log-probs": "Log-probs",
    "tokens": "Tokens changed after sampling",
    "text": "Text that was not sampled, or not as prescribed, with a true proof",
    "numbers": "Rewards, advantages, success",
    "identity": "Whose rollouts, which problem",
}
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


def missed(study: Study) -> list[str]:
    """Where the target of one in a thousand is missed by what was seen."""
    found = []
    for row in study.forged:
        rate = row.windrow[HEADLINE]
        if not row.note and rate.accepted > TARGET * rate.trials:
            found.append(f"{row.section}, {row.name}: {_percent(rate)} accepted")
    for honest in study.honest:
        refused = honest.windrow + honest.refusals[CALIBRATED]
        if honest.verifier == "float32" and refused > TARGET * honest.trials:
            found.append(f"honest, {honest.name}: {refused} of {honest.trials} refused")
    return found


def write(study: Study) -> str:
    """The page as Markdown."""
    return "\n".join(
        [
            *_summary(study),
            *_method(study),
            *_honest(study),
            *_checks(study),
            *_forged(study),
            *_limits_of_one(study),
            *_toploc(study),
        ]
    )


def _summary(study: Study) -> Iterator[str]:
    provable = [row for row in study.forged if not row.note]
    network = sum(row.network.accepted > row.network.trials / 2 for row in study.forged)
    caught = [
        row
        for row in provable
        if row.windrow[HEADLINE].accepted <= TARGET * row.windrow[HEADLINE].trials
    ]
    honest = [row for row in study.honest if row.verifier == "float32"]
    worst = max(row.windrow + row.refusals[CALIBRATED] for row in honest)
    yield "# Soundness"
    yield ""
    yield (
        "What each check refuses: honest work under numerical drift, and forgeries. This page is "
        "written by `make soundness`."
    )
    yield ""
    yield (f"* The network accepts most rollouts of {network} of {len(study.forged)} forgeries.")
    yield (
        f"* Windrow's checks, with limits calibrated on the model, refuse {len(caught)} of the "
        f"{len(provable)} that a single rollout can show, at no more than one in a thousand "
        f"accepted. The other {len(study.forged) - len(provable)} can be honest rollouts or leave "
        "too little trace in one; they are listed with what would show them."
    )
    yield (
        f"* They refuse {worst} of {study.rollouts:,} honest rollouts in float32 under the worst "
        f"of {len(honest)} kinds of drift (at most {upper_bound(worst, study.rollouts):.3%}, 95 % "
        "confidence)."
    )
    for line in missed(study):
        yield f"* **Target missed:** {line}."
    yield ""
    yield "![Scores of honest and forged rollouts with the limits](soundness.png)"
    yield ""


def _method(study: Study) -> Iterator[str]:
    yield "## How it is measured"
    yield ""
    yield (
        f"{time.strftime('%Y-%m-%d')}, {_machine()}, torch {version('torch')}, transformers "
        f"{version('transformers')}, one thread, {study.seconds:.0f} s "
        f"({study.cpu_seconds:.0f} s of CPU). Model: `windrow/demo` "
        f"(Qwen2, 1 M parameters, trained), its own policy of at most 160 tokens. "
        f"{study.rollouts:,} rollouts of 64 a miner, each from a seed of its own, "
        f"{study.distinct:,} of them distinct; equal sequences are measured once. Every file is "
        "signed with a real key, again after each change where the forger can, and goes through "
        "`engine.validation.validate_file`, all rows, in memory."
    )
    yield ""
    yield (
        "A rollout is accepted by the network if it passes all hard checks (soft ones count only "
        "for a file), by Windrow if it passes all checks. Files have 64 rollouts, of which the "
        "network samples one group. Bounds are one-sided 95 % Clopper-Pearson; they take rollouts "
        "for independent, while the 16 of a group share a prompt. Limits of the proof check:"
    )
    yield ""
    yield from _table(
        ["limits", *SKETCH_SCORES, *LOGPROB_SCORES],
        [
            [name, *(f"{getattr(limit, score):.3g}" for score in (*SKETCH_SCORES, *LOGPROB_SCORES))]
            for name, limit in study.limits.items()
        ],
    )
    yield (
        f"Calibrated limits are {MARGIN:.0f} times the largest honest score of 64 rollouts that "
        "are not judged here, within bounds (`engine/calibration.py`)."
    )
    yield ""
    groups = study.rollouts // ROLLOUTS_PER_GROUP
    yield (
        "How far this goes: rules and limits were settled on the rollouts of other miners, in four "
        "rounds (the last on a set kept back, which showed 16 honest rollouts of one group refused "
        "for equal completions, and 16 of another accepted from int8 weights), with the same model "
        "and forgeries; the rollouts of this page were drawn after that. Failures come a group at "
        f"a time: counted by its {groups} groups, none seen means at most "
        f"{upper_bound(0, groups):.1%} of groups. One small model on one kind of CPU says nothing "
        "of the drift between GPUs."
    )
    yield ""


def _honest(study: Study) -> Iterator[str]:
    yield "## Honest drift"
    yield ""
    yield (
        "The verifier runs 16 sequences at a time with sdpa attention, the prover as named. "
        "Refused: by the network's checks; by Windrow's other checks; by its proof check with "
        "calibrated and with default limits."
    )
    yield ""
    rows = []
    for row in study.honest:
        refused = min(row.windrow + row.refusals[CALIBRATED], row.trials)
        rows.append(
            [
                row.name,
                row.verifier,
                f"{row.trials:,}",
                str(row.network),
                str(row.windrow),
                f"{row.refusals[CALIBRATED]} (≤ {upper_bound(refused, row.trials):.2%} in all)",
                str(row.refusals[DEFAULT]),
                *(f"{row.scores[name].max():.2g}" for name in (*SKETCH_SCORES, *LOGPROB_SCORES)),
            ]
        )
    yield from _table(
        [
            "prover",
            "verifier",
            "n",
            "network",
            "Windrow, others",
            "calibrated",
            "default",
            *(f"max {name}" for name in (*SKETCH_SCORES, *LOGPROB_SCORES)),
        ],
        rows,
    )


def _checks(study: Study) -> Iterator[str]:
    n = study.rollouts
    first = study.honest[0]
    limits = study.limits[HEADLINE]
    refused = dict(study.whole.windrow_refusals)
    for check, names in (("sketches_agree", SKETCH_SCORES), ("logprobs_agree", LOGPROB_SCORES)):
        broken = [first.scores[name] > getattr(limits, name) for name in names]
        refused[check] = int(np.any(broken, axis=0).sum())
    of_files = {"file_structure", "json_text"}
    yield "## Honest rollouts refused, by check"
    yield ""
    yield (
        f"Claims proved {first.name} in {first.verifier}, with calibrated limits; n = {n:,}. Rules "
        "that leave a verdict only where they are broken are listed if one was."
    )
    yield ""
    yield from _table(
        ["check", "network refuses", "at most", "Windrow refuses", "at most"],
        [
            [
                f"`{check}`",
                str(study.whole.network_refusals[check]),
                f"{upper_bound(study.whole.network_refusals[check], n):.3%}",
                str(refused.get(check, 0)),
                f"{upper_bound(refused.get(check, 0), n):.3%}",
            ]
            for check in sorted((study.whole.checks | refused.keys()) - of_files)
        ],
    )
    rules = ", ".join(f"`{c}` {k}" for c, k in study.whole.file_rules.items()) or "none"
    files = len(study.whole.windrow_files)
    yield (
        f"Files: the network accepts {study.whole.network_files.sum()} and Windrow "
        f"{study.whole.windrow_files.sum()} of {files}; refused by rules for whole files: {rules}."
    )
    yield ""


def _forged(study: Study) -> Iterator[str]:
    yield "## Forgeries"
    yield ""
    yield (
        "Accepted rollouts, with bounds; files of 64 so forged. The network's column and Windrow's "
        "first are for a float32 verifier, the last two set limits for bfloat16 against a bfloat16 "
        "verifier (only where the tokens are the honest ones)."
    )
    yield ""
    toploc = study.toploc
    for section, title in SECTIONS.items():
        yield f"### {title}"
        yield ""
        yield from _table(
            [
                "forgery",
                "n",
                "network",
                "Windrow",
                "files: network / Windrow",
                "caught by",
                "Windrow bf16 calibrated",
                "bf16 default",
                "TOPLOC f32 / bf16 limits",
            ],
            [
                [
                    row.name + (" ¹" if row.note else ""),
                    f"{row.network.trials:,}",
                    _percent(row.network),
                    f"**{_percent(row.windrow[HEADLINE])}**",
                    f"{_share(row.network_files)} / {_share(row.windrow_files)}",
                    ", ".join(f"`{check}`" for check in row.windrow_checks) or "-",
                    _plain(row.windrow.get(HALF)),
                    _plain(row.windrow.get(HALF_DEFAULT)),
                    "-"
                    if toploc is None
                    or section not in ("sketches", "weights")
                    or row.name not in toploc.forged
                    else " / ".join(
                        f"{toploc.forged[row.name][d] / toploc.trials:.1%}"
                        for d in ("float32", "bfloat16")
                    ),
                ]
                for row in study.forged
                if row.section == section
            ],
        )
    yield "¹ See below."
    yield ""


def _limits_of_one(study: Study) -> Iterator[str]:
    yield "## What one rollout does not show"
    yield ""
    yield from (
        f"* **{row.name}**: {row.note}. Accepted rollouts {_percent(row.windrow[HEADLINE])}, files "
        f"{_share(row.windrow_files)}."
        for row in study.forged
        if row.note
    )
    yield ""
    yield (
        "What would show them: for text that was not sampled, a seed for each request that the "
        "validator can draw again; for greedy text and repeated rollouts, the count of distinct "
        "completions (the network's score already counts equal ones once) and the sum of the "
        "log-probs over a file against its expectation; for small steps of training, sketches "
        "with finer buckets or TOPLOC's mantissas; for copies, the other miners' files "
        "(`networks/grail/validation/copies.py`)."
    )
    yield ""


def _toploc(study: Study) -> Iterator[str]:
    yield "## TOPLOC beside it"
    yield ""
    toploc = study.toploc
    if toploc is None:
        yield (
            "Not measured: the package is not installed. Its wheel is built for another torch, so "
            "it has to be compiled: `pip install --no-deps --no-build-isolation --no-binary "
            "toploc toploc==0.1.6`."
        )
        return
    yield (
        f"`toploc` {version('toploc')} on the same hidden states of {toploc.trials} rollouts: a "
        f"proof of the {TOP_K} largest activations of every {TOKENS} tokens, in bfloat16. Its "
        "limits are taken as ours are, four times the largest honest difference: "
        + "; ".join(
            f"{dtype} {limit[0]:.0f} exponents, mantissas by {limit[1]:.2g} in the mean and "
            f"{limit[2]:.2g} in the median"
            for dtype, limit in toploc.limits.items()
        )
        + ". Honest rollouts accepted: "
        + "; ".join(
            f"{name} {found['float32']} and {found['bfloat16']}"
            for name, found in toploc.honest.items()
        )
        + f" of {toploc.trials} (float32, bfloat16 limits)."
    )
    yield ""


def _percent(rate: Rate) -> str:
    """A rate with its bounds."""
    if not rate.trials:
        return "-"
    low, high = lower_bound(rate.accepted, rate.trials), upper_bound(rate.accepted, rate.trials)
    if not rate.accepted:
        return f"0 (≤ {high:.3%})"
    return f"{rate.accepted / rate.trials:.2%} ({low:.2%}–{high:.2%})"


def _plain(rate: Rate | None) -> str:
    return "-" if rate is None or not rate.trials else f"{rate.accepted / rate.trials:.2%}"


def _share(rate: Rate) -> str:
    return f"{rate.accepted}/{rate.trials}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text(encoding="utf-8").splitlines() if "model name" in x]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return f"{os.cpu_count()} cores of {cpu}, Python {platform.python_version()}"


def plot(study: Study, path: Path) -> None:
    """Scores of honest and forged rollouts as ranges, with the limits."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    forged = {row.name: row for row in study.forged if row.section in ("sketches", "weights")}
    rows = [(f"honest {r.verifier}: {r.name}", r.scores, "tab:blue") for r in study.honest]
    rows += [(name, forged[name].scores, "tab:red") for name in PLOTTED if name in forged]
    figure, panels = plt.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    for panel, score, least in zip(
        panels, ("sketch_distance", "logprob_worst"), (1e-3, 1e-7), strict=True
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
