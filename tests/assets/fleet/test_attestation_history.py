"""Which earlier times an attestation is held against: like with like."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import FleetHome, Machine, served, told
from windrow.assets.fleet.attestation_rounds import _expectations
from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.attestation_plan import plan_for
from windrow.engine.fleet.attestation_wire import Claimed
from windrow.resources.warehouse.schema import DATASETS

CARD = {
    "index": 0,
    "uuid": "GPU-1",
    "name": "NVIDIA L40S",
    "vram_bytes": 48 << 30,
    "vram_used_bytes": 0,
}
PLAN = plan_for(48 << 30)
BEFORE = {
    "node": "n",
    "kind": "attestation",
    "gpu_uuid": "GPU-1",
    "backend": "cuda",
    "driver": "570",
    "way": "int8",
    "size": PLAN.n,
    "bytes": PLAN.resident_bytes,
    "seconds": 7.0,
    "passed": True,
}
OTHERS = (
    {"driver": "600"},
    {"driver": None},
    {"backend": "cpu"},
    {"way": "float32"},
    {"way": None},
    {"size": PLAN.n // 2},
    {"bytes": PLAN.resident_bytes // 2},
    {"gpu_uuid": "GPU-2"},
    {"node": "m"},
    {"kind": "gemm_proof"},
    {"passed": False},
)


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Stage]:
    """A step on a card of driver 570 with seven seconds of a run alike, and times of others."""
    home = FleetHome.make(tmp_path)
    with served(home.agent(Machine({"facts": told(gpus=[CARD], driver="570")}))) as port:
        home.declare({"n": port}, gpu="l40s", gpu_count=1)
        assert home.verify("n", ["inventory", "facts"])
    table = DATASETS["attestations"]
    blank = dict.fromkeys(table.columns) | {"window_start": 30, "seconds": 99.0}
    rows = [
        blank | BEFORE | {"observed_at": float(at), "seconds": 99.0 if change else 7.0} | change
        for at, change in enumerate(({}, *OTHERS))
    ]
    home.lake.write("attestations", 30, "n.before", table.table(rows))
    yield Stage("attestation", home.fleet.node("n"), home.fleet, home.lake, "r", 60, 0.0)
    home.fleet.close()


def history(step: Stage, claim: Claimed | None, driver: str | None = "570") -> tuple[float, ...]:
    claims = {} if claim is None else {"GPU-1": claim}
    return _expectations(step, {"GPU-1": PLAN}, driver, claims)["GPU-1"].history


def test_only_runs_alike_count(step: Stage) -> None:
    assert step.facts().driver == "570"
    assert history(step, Claimed("cuda", "int8", 0, 1.0, 1.0)) == (7.0,)


def test_others_have_their_own(step: Stage) -> None:
    assert history(step, Claimed("cpu", "int8", 0, 1.0, 1.0)) == (99.0,)
    assert history(step, Claimed("cuda", "float32", 0, 1.0, 1.0)) == (99.0,)
    assert history(step, Claimed("cuda", "int8", 0, 1.0, 1.0), driver="600") == (99.0,)


def test_what_is_not_known_has_none(step: Stage) -> None:
    assert history(step, Claimed("cuda", "int8_by_columns", 0, 1.0, 1.0)) == ()
    assert history(step, None) == ()
    assert history(step, Claimed("cuda", "int8", 0, 1.0, 1.0), driver=None) == ()
