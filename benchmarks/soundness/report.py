"""The study as a page."""

import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.soundness.markdown import percent, table
from benchmarks.soundness.report_forged import HEADLINE, forged, limits_of_one, toploc
from benchmarks.soundness.statistics import upper_bound
from benchmarks.soundness.study import CALIBRATED, DEFAULT, FIRST_MINER, Study
from windrow.engine.validation.calibration import MARGIN
from windrow.engine.validation.proof_scores import LOGPROB_SCORES, SKETCH_SCORES
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP

TARGET = 1e-3


def missed(study: Study) -> list[str]:
    """Where the target of one in a thousand is missed by what was seen."""
    found = []
    for row in study.forged:
        rate = row.windrow[HEADLINE]
        if not row.note and rate.accepted > TARGET * rate.trials:
            found.append(f"{row.section}, {row.name}: {percent(rate)} accepted")
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
            *forged(study),
            *limits_of_one(study),
            *toploc(study),
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
        "written by `make soundness`; cheats of nodes are in [soundness of the fleet's checks]"
        "(soundness-fleet.md)."
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
    yield from table(
        ["limits", *SKETCH_SCORES, *LOGPROB_SCORES],
        [
            [name, *(f"{getattr(limit, score):.3g}" for score in (*SKETCH_SCORES, *LOGPROB_SCORES))]
            for name, limit in study.limits.items()
        ],
    )
    yield (
        f"Calibrated limits are {MARGIN:.0f} times the largest honest score of 64 rollouts that "
        "are not judged here, within bounds (`engine/validation/calibration.py`). `sketch_drift` "
        "is the relative change of one activation that the least explicable sketch takes, "
        "`logit_drift` the change of logits, in nats, that the least explicable log-prob takes: "
        "both follow from the verifier's own pass (`engine/validation/proof_scores.py`). The "
        "other scores add up or average what single tokens show."
    )
    yield ""
    groups = study.rollouts // ROLLOUTS_PER_GROUP
    yield (
        "How far this goes: the model and the forgeries are the same that rules and limits were "
        "settled with, on rollouts of other miners, in five rounds. The fourth was published from "
        "miners 2000 to 2047: int8 weights passed in 1.04 % of rollouts (32 of 3,072), and 1 "
        "honest rollout was refused under eager attention, because differences were judged by "
        "their size alone. The fifth judges them by what explains them, and looks at the sketches "
        "of prompts too; it was settled on miners 0 to 15 and on three rollouts of each of 2,000 "
        "groups (miners 20000 to 20499), where it refused no honest rollout and accepted none made "
        "with int8 weights; the rules on how completions were drawn (`within_nucleus`, "
        "`repeated_completions`) on miners 0 to 7. The rollouts of this page, miners "
        f"{FIRST_MINER} and up, were drawn after that, once. Failures come a group at a time: "
        "counted by its "
        f"{groups} groups, none seen means at most {upper_bound(0, groups):.1%} of groups. One "
        "small model on one kind of CPU says nothing of the drift between GPUs, where the limits "
        "have to be calibrated again. Sketches of the prompt count too, which the network never "
        "compares: a prover that leaves them out, against the protocol's format, is refused. Other "
        "weights show most surely there, in the beginning that all prompts share; two rows below "
        "show what is left where a forger has those sketches right."
    )
    yield ""


def _honest(study: Study) -> Iterator[str]:
    yield "## Honest drift"
    yield ""
    yield (
        "The verifier runs several sequences at a time with sdpa attention, the prover as named. "
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
    yield from table(
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
    yield from table(
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


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text(encoding="utf-8").splitlines() if "model name" in x]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return f"{os.cpu_count()} cores of {cpu}, Python {platform.python_version()}"
