"""What Windrow itself costs while SGLang generates and a worker process proves: all but the model.

Whole windows are mined by the real command with the demo model. Both models run in processes that
a window before has started, so what the command takes of the processor is Windrow's: Python,
imports, Dagster, requests and answers, rewards, checks, signatures, file and upload. A window of
one group tells what a run costs once; the rest of a long one is what rollouts cost.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ratio import Ratio
from tests.support.real_sglang import PYTHON, free_port, missing
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.resources.warehouse.lake import Lake

ROOT = Path(__file__).parents[1]
FIRST_WINDOW = 5_000_040
GROUPS = 48
SHARE = 0.05
WINDOW_SECONDS = 360.0


@dataclass(frozen=True)
class Mined:
    """One window. cpu: seconds of the command; seconds: of its window loop, by the clock."""

    cpu: float
    seconds: float
    groups: int
    tokens: int
    limited_by: str


def run() -> list[Ratio]:
    """Two windows to measure, after one that starts the server; nothing where SGLang is missing."""
    if missing():
        print(f"live_window is skipped, not installed: {missing()}", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory(prefix="windrow-live-") as folder:
        home = Path(folder)
        settings = (ROOT / "dagster.yaml").read_text()
        (home / "dagster.yaml").write_text(settings.replace("base_dir: ", f"base_dir: {home}/"))
        environment = _environment(home)
        try:
            _, short, long = (
                _mine(home, environment, FIRST_WINDOW + 30 * number, groups)
                for number, groups in enumerate((1, 1, GROUPS))
            )
        finally:
            stop = [str(Path(sys.executable).with_name("windrow")), "stop"]
            subprocess.run(stop, env=environment, check=False, capture_output=True)
    rollouts = ROLLOUTS_PER_GROUP * (long.groups - short.groups)
    of_rollouts = long.cpu - short.cpu
    print(f"{long.groups} groups, {long.tokens} tokens: {long.seconds:.1f} s, {long.limited_by}")
    print(
        f"Windrow's own: {short.cpu:.2f} s a run, {1e3 * of_rollouts / rollouts:.2f} ms a rollout"
    )
    return [
        _below(
            "all but the model, CPU time a rollout vs the loop's time a rollout",
            1e3 * of_rollouts / rollouts,
            1e3 * long.seconds / (ROLLOUTS_PER_GROUP * long.groups),
            "ms",
        ),
        _below("all but the model, CPU time of a run vs a window", long.cpu, WINDOW_SECONDS, "s"),
    ]


def _below(name: str, ours: float, whole: float, unit: str) -> Ratio:
    ratio = ours / whole
    return Ratio(name, ours, whole, unit, ratio, f"< {SHARE:g}x", ratio < SHARE)


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WINDROW_")}
    return kept | {
        "DAGSTER_HOME": str(home),
        "WINDROW_HOME": str(home / "windrow"),
        "WINDROW_GENERATION": "sglang",
        "WINDROW_GENERATION_PYTHON": str(PYTHON),
        "WINDROW_GENERATION_PORT": str(free_port()),
        "WINDROW_GENERATION_GPU": "none",
        "WINDROW_PROOF_GPU": "none",
        "WINDROW_PROOF_SUBPROCESS": "yes",
        "WINDROW_GPU_MEMORY": "0.1",
        "WINDROW_CONTEXT_LENGTH": "512",
        "OMP_NUM_THREADS": "1",
    }


def _mine(home: Path, environment: dict[str, str], window: int, groups: int) -> Mined:
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*upload"]
    command += ["-m", "windrow.pipelines.definitions", "--partition", str(window)]
    before = os.times()
    done = subprocess.run(
        command,
        env=environment | {"WINDROW_MAX_GROUPS": str(groups)},
        cwd=home,
        capture_output=True,
        text=True,
    )
    # Server and worker are not waited for by the command, so theirs is not in here.
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"window {window} failed:\n{done.stderr[-4000:]}")
    (loop,) = Lake(home / "windrow" / "lake").read("window_runs", window).to_pylist()
    shares = {
        stage: round(loop[f"{stage}_utilisation"], 3) for stage in ("generation", "reward", "proof")
    }
    cpu = sum(after[2:4]) - sum(before[2:4])
    return Mined(cpu, loop["seconds"], loop["finished"], loop["tokens"], json.dumps(shares))
