"""Overlap of the stages: a window in simulation, against one that ends a group before the next.

Generation and proofs take a fixed time a group and nothing else works, so what is measured is the
loop itself: twenty groups of a stage that takes T must end within 1.15 x 20 T.
"""

import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from benchmarks.ratio import Ratio
from tests.engine.scripted import PLAN, ScriptedGenerator, ScriptedProver, loop
from windrow.engine.mining.spool import Spool

SECONDS = 0.1
LIMIT = 1.15
SPARE = 2
"""Groups in flight beyond the lanes: one is stored and one waits while every lane is at work."""


def run() -> list[Ratio]:
    """One lane a stage, and four."""
    _seconds(groups=1, lanes=1, groups_in_flight=1)  # the first Parquet file of a process is slow
    return [
        _ratio("20 simulated groups, one lane a stage", groups=20, lanes=1),
        _ratio("160 simulated groups, four lanes a stage", groups=160, lanes=4),
    ]


def _ratio(name: str, groups: int, lanes: int) -> Ratio:
    overlapped = _seconds(groups, lanes, 2 * lanes + SPARE)
    one_by_one = _seconds(groups, lanes, 1)
    slowest_stage = groups / lanes * SECONDS
    return Ratio(
        name,
        ours=overlapped,
        plain=one_by_one,
        unit="s",
        ratio=overlapped / slowest_stage,
        target=f"<= {LIMIT}x the slowest stage's {slowest_stage:g} s",
        met=overlapped <= LIMIT * slowest_stage,
    )


def _seconds(groups: int, lanes: int, groups_in_flight: int) -> float:
    def work(_call: int, told_to_stop: threading.Event) -> None:
        told_to_stop.wait(SECONDS)

    plan = replace(PLAN, max_groups=groups, groups_in_flight=groups_in_flight)
    with tempfile.TemporaryDirectory() as folder:
        report = loop(
            Spool(Path(folder), plan.window_start, plan.hotkey, "a" * 16),
            plan,
            generator=ScriptedGenerator(generating=work, lanes=lanes),
            prover=ScriptedProver(proving=work, lanes=lanes),
        ).run()
    if len(report.finished) != groups:
        raise RuntimeError(f"{len(report.finished)} of {groups} groups were finished")
    return report.seconds
