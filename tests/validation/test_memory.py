"""From window to window: bans, counts, copies and weights, out of rows that earlier runs left."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.validation.subnet import HONEST, Subnet, miner
from windrow.networks.grail.validation.service import BAN_WINDOWS
from windrow.networks.grail.windows import validator_target
from windrow.pipelines.build import build
from windrow.resources.chain import WeightsRefused
from windrow.resources.configuration.settings import Settings
from windrow.resources.development_chain import DevelopmentChain
from windrow.resources.warehouse.schema import DATASETS

A, B, C = (miner(uri).hotkey for uri in HONEST[:3])
RULES = {"ops": {"weights": {"config": {"exponent": 1.0, "burn_percentage": 50.0}}}}


@pytest.fixture
def subnet(tmp_path: Path) -> Iterator[Subnet]:
    """A subnet of which the validator has seen nothing yet, with nine worthless files."""
    subnet = Subnet.make(tmp_path, WINDROW_CALIBRATION="no")
    for uri in HONEST:
        subnet.upload(miner(uri), bytes(300))
    with subnet.instance:
        yield subnet


@pytest.fixture
def newest(subnet: Subnet) -> int:
    """The window that closed last."""
    return validator_target(subnet.resource("chain").block())


def put(subnet: Subnet, dataset: str, window: int, *rows: dict[str, Any], name: str = "") -> None:
    """Rows as an earlier run would have stored them; what is not given is null."""
    null = dict.fromkeys(DATASETS[dataset].schema.names)
    filled = [null | {"window_start": window, "validator": subnet.validator} | row for row in rows]
    kept = [{key: row[key] for key in null} for row in filled]
    table = DATASETS[dataset].table(kept)
    subnet.resource("lake").write(dataset, window, name or subnet.validator, table, replace=True)


def scored(hotkey: str, unique: int | None = 16, failed: int = 0, **more: Any) -> dict[str, Any]:
    """A scores row of a miner that was looked at."""
    seen = dict.fromkeys(("active", "eligible", "selected"), True)
    return {"hotkey": hotkey, "estimated_unique": unique, "had_failure": failed} | seen | more


def present(hotkey: str) -> dict[str, Any]:
    """A scores row of a miner that was there and not looked at."""
    return scored(hotkey, None, selected=False, had_failure=None)


def checked(hotkey: str, unique: int = 16, failed: int = 0, **more: Any) -> dict[str, Any]:
    """A validations row of a file that was looked at."""
    state = {"state": "checked", "total": 32, "uploaded_at": 0.0}
    return {"hotkey": hotkey, "estimated_unique": unique, "had_failure": failed} | state | more


def by_hotkey(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["hotkey"]: row for row in rows}


def draw(subnet: Subnet) -> dict[str, str]:
    """Run the verdicts as the network draws miners: the state of each."""
    config = {"verdicts": {"config": {"every_miner": False}}}
    assert subnet.validate("verdicts", config=config).success
    return {row["hotkey"]: row["state"] for row in subnet.rows("validations")}


def test_a_failure_bans_for_fourteen_windows(subnet: Subnet, newest: int) -> None:
    for age in range(BAN_WINDOWS + 1):
        window = newest + 30 * (age - BAN_WINDOWS)
        if age not in {0, 1, BAN_WINDOWS - 1, BAN_WINDOWS}:
            put(subnet, "scores", window, scored(A), scored(B))
            continue
        put(subnet, "validations", window, checked(A, 0, failed=int(age == 0)), checked(B))
        assert subnet.validate("scores", window=window).success
        scores = by_hotkey(subnet.rows("scores", window=window))
        assert scores[A]["ban_windows_left"] == BAN_WINDOWS - age
        assert scores[B]["ban_windows_left"] == 0


def test_the_banned_are_not_looked_at_and_the_long_unseen_are(subnet: Subnet) -> None:
    window = 5_000_040
    hotkeys = [miner(uri).hotkey for uri in HONEST]
    put(subnet, "scores", window - 30 * BAN_WINDOWS, scored(A, 0, failed=1))
    put(subnet, "scores", window - 30, *map(scored, hotkeys[1:6]))
    states = draw(subnet)
    assert states[A] == "banned"
    # Two of the eight eligible are drawn, both of those that were not drawn in the last window.
    drawn = {h for h, state in states.items() if state == "checked"}
    assert len(drawn) == 2
    assert drawn < set(hotkeys[6:])
    assert set(states) - drawn - {A} == {h for h, s in states.items() if s == "not_selected"}
    put(subnet, "scores", window - 30 * BAN_WINDOWS, scored(A, 0))
    put(subnet, "scores", window - 30 * (BAN_WINDOWS + 1), scored(A, 0, failed=1))
    assert draw(subnet)[A] != "banned"


def test_weights_follow_from_every_factor_of_the_rules(subnet: Subnet, newest: int) -> None:
    """A: 3000 + 4000 in two of four windows. B: the cap. C: much, and one failure (§15)."""
    for age in range(11, 0, -1):
        rows = [scored(B, 6000), scored(C, 5000, failed=int(age == 3))]
        rows += [scored(A, 3000)] if age == 1 else [present(A)] if age < 4 else []
        put(subnet, "scores", newest - 30 * age, *rows)
    put(subnet, "validations", newest, checked(A, 4000), checked(B, 6000), checked(C, 5000))
    assert subnet.validate("scores", "weights", window=newest).success
    rows = by_hotkey(subnet.rows("weights", window=newest))
    a, b, c = rows[A], rows[B], rows[C]
    assert (a["windows_checked"], a["windows_available"], a["unique_sum"]) == (2, 4, 7000)
    assert a["extrapolated"] == pytest.approx(7000 * 4 / 2)
    assert a["raw_score"] == pytest.approx((14_000 / 60_000) ** 4)
    assert (b["windows_checked"], b["extrapolated"], b["raw_score"]) == (12, 60_000.0, 1.0)
    assert (c["windows_checked"], c["extrapolated"], c["weight"]) == (12, 0.0, 0.0)
    total = 1.0 + (14_000 / 60_000) ** 4
    assert b["weight"] == pytest.approx(0.1 / total)
    assert a["weight"] == pytest.approx(0.1 * (14_000 / 60_000) ** 4 / total)
    (burner,) = [row for row in rows.values() if row["uid"] == 0]
    assert burner["weight"] == pytest.approx(0.9)
    assert not any(row["submitted"] for row in rows.values())


def test_a_miner_with_anothers_completions_is_gated(subnet: Subnet, newest: int) -> None:
    """B has four of the 32 completions that A uploaded before it; C has none of them."""

    def completions(hotkey: str, first: int) -> None:
        digests = [hashlib.sha256(b"%d" % n).digest() for n in range(first, first + 32)]
        rows = [{"hotkey": hotkey, "row": n, "digest": d} for n, d in enumerate(digests)]
        put(subnet, "completions", newest, *rows, name=hotkey)

    for hotkey, first in ((A, 0), (B, 28), (C, 1000)):
        completions(hotkey, first)
    put(
        subnet,
        "validations",
        newest,
        checked(A, uploaded_at=100.0),
        checked(B, uploaded_at=200.0),
        checked(C, uploaded_at=300.0),
    )
    assert subnet.validate("scores", "weights", window=newest).success
    scores = by_hotkey(subnet.rows("scores", window=newest))
    copier = scores[B]
    assert (copier["network_copier"], copier["windrow_copier"]) == (True, True)
    assert (copier["copied_from"], copier["copy_ratio"]) == (A, 4 / 32)
    assert (copier["had_failure"], copier["estimated_unique"]) == (1, 0)
    assert copier["ban_windows_left"] == BAN_WINDOWS
    for hotkey in (A, C):
        assert not scores[hotkey]["network_copier"]
        assert (scores[hotkey]["had_failure"], scores[hotkey]["estimated_unique"]) == (0, 16)
    weights = by_hotkey(subnet.rows("weights", window=newest))
    assert weights[B]["weight"] == 0.0 < weights[A]["weight"] == weights[C]["weight"]


def test_other_rules_change_the_weights_of_a_range_and_nothing_else(
    subnet: Subnet, newest: int
) -> None:
    lake = subnet.resource("lake")
    backfilled = [newest - 60, newest - 30, newest]
    for age, window in enumerate(backfilled):
        put(subnet, "validations", window, checked(A, 4000 + age), checked(B, 3000))
        assert subnet.validate("scores", "weights", window=window).success

    def stored(dataset: str) -> list[pa.Table]:
        return [lake.read(dataset, window, subnet.validator) for window in backfilled]

    before = {name: stored(name) for name in ("validations", "scores", "weights")}
    for window in backfilled:
        assert subnet.validate("weights", window=window, config=RULES["ops"]).success
    for name in ("validations", "scores"):
        assert stored(name) == before[name]
    for age, (old, new) in enumerate(zip(before["weights"], stored("weights"), strict=True)):
        assert new["weight"] != old["weight"]
        same = ["hotkey", "uid", "unique_sum", "extrapolated", "cap_share"]
        assert new.select(same) == old.select(same)
        a = by_hotkey(new.to_pylist())[A]
        sums = (sum(range(4000, 4001 + age)), 3000 * (age + 1))
        # Linear, little enough to share, and half of it burnt: nobody is normalised.
        signal = sum(sums) / 60_000
        assert a["weight"] == pytest.approx(0.5 * signal * sums[0] / sum(sums))
    for window in backfilled:
        assert subnet.validate("weights", window=window).success
    assert stored("weights") == before["weights"]


@pytest.fixture
def sending(subnet: Subnet, newest: int) -> Subnet:
    """The same subnet, twelve windows later, with weights enabled."""
    for age in range(11, -1, -1):
        put(subnet, "scores", newest - 30 * age, scored(A, 4000), scored(B, 3000))
    settings = Settings.read(
        {
            "WINDROW_HOME": str(subnet.path),
            "WINDROW_CHAIN_CLOCK": "stepped",
            "WINDROW_SET_WEIGHTS": "yes",
        }
    )
    return Subnet(subnet.path, settings, build(settings), subnet.instance)


def sent(subnet: Subnet, window: int, **options: Any) -> bool:
    assert subnet.validate("weights", window=window, **options).success
    (submitted,) = {row["submitted"] for row in subnet.rows("weights", window=window)}
    return bool(submitted)


def test_weights_are_sent_when_they_are_enabled_and_due(
    subnet: Subnet, sending: Subnet, newest: int
) -> None:
    chain = subnet.resource("chain")
    assert not sent(subnet, newest)  # not enabled
    assert not sent(sending, newest - 30)  # not the newest window
    assert not sent(sending, newest, config=RULES["ops"])  # not the network's rules
    assert chain.weights(subnet.validator) is None
    assert sent(sending, newest)
    rows = sending.rows("weights", window=newest)
    first = chain.weights(subnet.validator)
    assert first.weights == {row["hotkey"]: row["weight"] for row in rows}
    assert not sent(sending, newest)  # done in this interval
    assert chain.weights(subnet.validator) == first
    chain.advance_to(chain.block() + 360)
    later = validator_target(chain.block())
    put(subnet, "scores", later, scored(A, 4000), scored(B, 3000))
    assert sent(sending, later)
    assert chain.weights(subnet.validator).block > first.block


def test_weights_of_too_few_windows_are_not_sent(sending: Subnet, newest: int) -> None:
    sending.resource("lake").path("scores", newest - 330, sending.validator).unlink()
    assert not sent(sending, newest)


def test_refused_weights_fail_the_step(
    sending: Subnet, newest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise WeightsRefused("the extrinsic failed: setting weights too fast")

    monkeypatch.setattr(DevelopmentChain, "set_weights", refuse)
    result = sending.validate("weights", window=newest)
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    said: Any = event.step_failure_data.user_failure_data
    assert said.metadata["reason"].value == "WeightsRefused"
    (fault,) = sending.faults(newest)
    assert (fault["stage"], fault["reason"]) == ("weights", "WeightsRefused")
    assert "too fast" in fault["detail"]
    assert not sending.resource("lake").exists("weights", newest)
