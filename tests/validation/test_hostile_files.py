"""Whatever is in one miner's bucket, the other nine get what they would get without it."""

from typing import Any

import pytest

from tests.validation import hostile_files
from tests.validation.hostile_files import FILES, GZIPPED, LIMIT
from tests.validation.subnet import HONEST, HOSTILE, Subnet, miner
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS
from windrow.resources.miners import FoundUpload, SharedBucket

NINE = [miner(uri) for uri in HONEST]
ONE = miner(HOSTILE)
SPOIL = {name: row[0] for name, row in (*FILES.items(), *GZIPPED.items())}
HOSTILES = {name: miner(f"//{name}") for name in SPOIL}


@pytest.fixture(scope="module")
def undisturbed(subnet: Subnet) -> dict[str, Any]:
    """What is stored of the nine when nobody else has a file."""
    assert subnet.validate("verdicts", "scores").success
    return subnet.seen()


@pytest.fixture(scope="module")
def sound(subnet: Subnet) -> bytes:
    """A file of two groups, so that groups are sampled, that nothing is wrong with."""
    return subnet.file(ONE, subnet.rollouts(ONE, groups=(0, 1)))


@pytest.fixture(scope="module")
def crowd(subnet: Subnet, undisturbed: dict[str, Any], sound: bytes) -> dict[str, Any]:
    """What is stored of everybody when every hostile file is there at once."""
    paths = []
    for name, wallet in HOSTILES.items():
        data = SPOIL[name](hostile_files.renamed(sound, wallet.hotkey))
        assert len(data) < 3_000_000
        paths.append(subnet.upload(wallet, data, suffix=".gz" if name in GZIPPED else ""))
    result = subnet.validate("verdicts", "scores")
    for path in paths:
        path.unlink()
    assert result.success
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert all(checks.values()), checks
    return subnet.seen()


def of(seen: dict[str, Any], *wallets: Any) -> dict[str, list[dict[str, Any]]]:
    hotkeys = {wallet.hotkey for wallet in wallets}
    return {name: [r for r in rows if r["hotkey"] in hotkeys] for name, rows in seen.items()}


def test_honest_files_pass_every_check(undisturbed: dict[str, Any]) -> None:
    """But for the network's own check of the distribution, which some true samples fail (§8.9)."""
    for wallet in NINE:
        found = of(undisturbed, wallet)
        refused = [row for row in found["verdicts"] if not row["windrow_verdict"]]
        assert {row["check"] for row in refused} <= {"token_distribution_valid"}
        assert len(refused) < 9
        (validation,) = found["validations"]
        assert (validation["valid"], validation["had_failure"]) == (16, 0)
        (score,) = found["scores"]
        assert score["estimated_unique"] == 16


def test_every_check_of_every_sampled_rollout_is_there_once(undisturbed: dict[str, Any]) -> None:
    for wallet in NINE:
        rows = of(undisturbed, wallet)["verdicts"]
        for check in (*HARD_CHECKS, *SOFT_CHECKS):
            assert [r["row"] for r in rows if r["check"] == check] == list(range(16)), check


def test_the_others_get_what_they_get_without_them(
    undisturbed: dict[str, Any], crowd: dict[str, Any]
) -> None:
    assert of(crowd, *NINE) == undisturbed


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_gets_a_row_with_a_reason(crowd: dict[str, Any], name: str) -> None:
    _, state, check, words = FILES[name]
    found = of(crowd, HOSTILES[name])
    (validation,) = found["validations"]
    assert validation["state"] == state
    assert bool(validation["network_reason"]) == (state != LIMIT)
    assert not validation["faults"]
    refused = [r for r in found["verdicts"] if r["check"] == check and not r["windrow_verdict"]]
    assert any(words in row["reason"] for row in refused), found["verdicts"][:3]
    (score,) = found["scores"]
    assert not score["estimated_unique"]
    assert (score["had_failure"] == 1) == (state == "checked")
    assert len(found["verdicts"]) < 5_000


@pytest.mark.parametrize("name", GZIPPED)
def test_a_gzip_object_that_is_none_gets_a_row_with_a_reason(
    subnet: Subnet, crowd: dict[str, Any], name: str
) -> None:
    found = of(crowd, HOSTILES[name])
    (validation,) = found["validations"]
    assert validation["state"] == "unreadable"
    assert GZIPPED[name][1] in validation["network_reason"]
    assert not found["verdicts"]
    assert [r["had_failure"] for r in found["scores"]] == [None]
    assert HOSTILES[name].hotkey in [fault["reason"] for fault in subnet.faults()]


def test_a_sound_file_replaced_after_it_was_found_is_not_taken(
    subnet: Subnet, undisturbed: dict[str, Any], sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = subnet.upload(ONE, sound)
    honest = SharedBucket.fetch

    def fetch(self: SharedBucket, hotkey: str, found: FoundUpload) -> bytes:
        if hotkey == ONE.hotkey:
            subnet.upload(ONE, sound, early=3600)  # as if it had been there long before
        return honest(self, hotkey, found)

    monkeypatch.setattr(SharedBucket, "fetch", fetch)
    result = subnet.validate("verdicts", "scores")
    path.unlink()
    assert result.success
    (validation,) = subnet.rows("validations", ONE)
    assert validation["state"] == "unreadable"
    assert "was replaced while it was fetched" in validation["network_reason"]
    assert subnet.seen(*NINE) == undisturbed


def test_the_replay_check_fails_when_the_file_changes(
    subnet: Subnet, undisturbed: dict[str, Any], sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = subnet.object(NINE[0])
    before = path.read_bytes()
    fetched: list[str] = []
    honest = SharedBucket.fetch

    def fetch(self: SharedBucket, hotkey: str, found: FoundUpload) -> bytes:
        if hotkey in fetched:
            subnet.upload(NINE[0], sound)
        fetched.append(hotkey)
        return honest(self, hotkey, found)

    monkeypatch.setattr(SharedBucket, "fetch", fetch)
    result = subnet.validate("verdicts", "scores")
    monkeypatch.undo()
    subnet.upload(NINE[0], before)
    assert result.success
    (replay,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "replay"]
    assert not replay.passed
    assert "was replaced" in str(replay.metadata["reason"].value)
