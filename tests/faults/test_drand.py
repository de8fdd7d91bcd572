"""drand that is down, slow or lying: which randomness a window has, and where that is written."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.runs import Home
from tests.support.embedded import WINDOW
from tests.support.relays import HONEST, LIES, ROUND_1000, relays
from windrow.networks.grail.window_file import read_window_file
from windrow.pipelines.commands.verify import Fate, Judged, Options, Verifier

BLOCK_SECONDS = 12


def drand_home(path: Path, tiny: Path, *urls: str) -> Home:
    """A home whose window opens in drand's round 1000."""
    genesis = datetime.fromtimestamp(ROUND_1000 + 1 - WINDOW * BLOCK_SECONDS, UTC)
    return Home.make(
        path,
        tiny,
        WINDROW_BEACON="drand",
        WINDROW_DRAND_RELAYS=",".join(urls),
        WINDROW_DRAND_SECONDS="3",
        WINDROW_CHAIN_GENESIS=genesis.isoformat(),
    )


@pytest.mark.parametrize("bad", ["silent", "slow", "WrongSignature"])
def test_a_bad_relay_costs_nothing_but_a_row(tiny: Path, tmp_path: Path, bad: str) -> None:
    with relays(bad, "honest") as (first, second):
        home = drand_home(tmp_path / "home", tiny, first.url, second.url)
        assert home.materialize("beacon").success
    (row,) = home.resource("lake").read("beacons", WINDOW).to_pylist()
    mixed = row["block_hash"] + HONEST["randomness"]
    assert row["randomness"] == hashlib.sha256(mixed.encode()).hexdigest()
    assert (row["source"], row["drand_round"], row["relay"], row["fallback"]) == (
        "drand",
        1000,
        second.address,
        None,
    )
    (fault,) = home.faults()
    assert fault["stage"] == "beacon"
    assert fault["reason"] == (bad if bad in LIES else "RelayFailed")
    assert fault["detail"].startswith(f"{first.address}: ")


def test_drand_down_falls_back_to_the_block_hash_and_says_so_everywhere(
    tiny: Path, tmp_path: Path
) -> None:
    with relays("silent", "WrongSignature") as (silent, liar):
        home = drand_home(tmp_path / "home", tiny, silent.url, liar.url)
        assert home.mine(1).success
        lake = home.resource("lake")
        (row,) = lake.read("beacons", WINDOW).to_pylist()
        assert row["randomness"] == hashlib.sha256(row["block_hash"].encode()).hexdigest()
        assert (row["source"], row["use_drand"], row["drand_round"], row["fallback"]) == (
            "block_hash",
            False,
            None,
            "block_hash",
        )
        assert [fault["reason"] for fault in home.faults()] == [
            "RelayFailed",
            "WrongSignature",
            "DrandUnavailable",
        ]
        # What relays answer later changes nothing for a window that has its randomness.
        silent.behaviour = "honest"
        assert home.materialize("beacon").success
        assert lake.read("beacons", WINDOW).to_pylist() == [row]

        silent.behaviour = "silent"
        judged = home.materialize("verdicts", job="validate_window")
        assert judged.success, home.faults()
    (validation,) = lake.read("validations", WINDOW).to_pylist()
    assert validation["randomness_source"] == "block_hash"
    assert validation["randomness_fallback"] == "block_hash"
    assert validation["drand_round"] is None


@pytest.mark.parametrize("beacon", ["drand", "block_hash"])
def test_files_with_and_without_drand_are_accepted_by_the_network(
    tiny: Path, tmp_path: Path, beacon: str
) -> None:
    with relays("honest") as (relay,):
        home = drand_home(tmp_path / "home", tiny, relay.url)
        if beacon == "block_hash":
            home = Home.make(tmp_path / "without", tiny, WINDROW_BEACON="block_hash")
        assert home.mine(1).success
        rollouts = read_window_file(home.window_file()).rollouts
        assert rollouts["use_drand"].unique().to_pylist() == [beacon == "drand"]
        parts = [home.resource(n) for n in ("chain", "beacon_source", "checkpoints", "inference")]
        options = Options(randomness="5e" * 32, hotkey=home.hotkey, window=WINDOW)
        judged = Verifier(*parts, options, 120.0).judge(str(home.window_file()))
    assert isinstance(judged, Judged)
    assert (judged.fate, judged.network_reason) == (Fate.ACCEPTED, None)
