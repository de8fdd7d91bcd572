"""A chain that falls silent, jumps, changes its mind or its clock; and a hotkey used twice.

The pipeline is the real one over the live chain; the chain is a local node.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.faults.runs import Home, assert_named
from tests.support.bittensor import MINER, WINDOW, Network, network
from tests.support.bittensor import own_client_files as client_files
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.window_file import read_window_file
from windrow.pipelines.sensors import open_window
from windrow.resources.beacon import BlockHashBeacon
from windrow.resources.chain import ChainSilent, ensure_committed
from windrow.resources.progress import ProgressDisplay


@pytest.fixture(scope="module", autouse=True)
def own_client_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with client_files(tmp_path_factory):
        yield


@pytest.fixture
def net() -> Iterator[Network]:
    """A node whose newest block, the third of WINDOW, came a second ago."""
    with network(newest=time.time() - 1.0) as running:
        yield running


class AfterAGroup(ProgressDisplay):
    """Lets something happen once, when the first group of a run is finished."""

    def __init__(self, event: Callable[[], None]) -> None:
        super().__init__()
        self._event: Callable[[], None] | None = event

    @contextmanager
    def watch(self, *arguments: Any, **options: Any) -> Iterator[Callable[[Any], None]]:
        with super().watch(*arguments, **options) as show:

            def shown(progress: Any) -> None:
                show(progress)
                if progress.finished and self._event is not None:
                    event, self._event = self._event, None
                    event()

            yield shown


@dataclass(frozen=True)
class LiveHome(Home):
    """A home on the live chain."""

    def names(self) -> list[str]:
        """What the window's fault rows are called."""
        return sorted({row["reason"] for row in self.faults(WINDOW)})

    def mine_live(self, groups: int = 1) -> dg.ExecuteInProcessResult:
        return self.mine(groups, WINDOW)

    def mine_window(self, *assets: str) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("mine_window").execute_in_process(
            partition_key=str(WINDOW),
            instance=self.instance,
            run_config={"ops": {"window_stream": {"config": {"max_groups": 1}}}}
            if "rollouts" in assets
            else None,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            raise_on_error=False,
        )


PATIENT = {"call_timeout": 15.0, "patience": 15.0}
IMPATIENT = {"call_timeout": 2.0, "patience": 2.5}
"""Of a chain that is to fall silent; any other is given time on a busy machine."""


def live(
    home: Home,
    net: Network,
    event: Callable[[], None] = lambda: None,
    patience: dict[str, float] = PATIENT,
) -> LiveHome:
    """The same home over the node. event: what happens after the first group."""
    chain, made = net.chain(**patience), home.definitions
    parts = {
        **(made.resources or {}),
        "chain": chain,
        "beacon_source": BlockHashBeacon(chain),
        "progress": AfterAGroup(event),
    }
    definitions = dg.Definitions(
        assets=made.assets, jobs=made.jobs, resources=parts, executor=made.executor
    )
    return LiveHome(home.path, definitions, home.instance)


def tick(home: Home, cursor: str | None) -> Any:
    """What the sensor of open windows does now."""
    parts = {name: home.resource(name) for name in ("chain", "lake", "wallet")}
    return open_window(dg.build_sensor_context(cursor=cursor), **parts)


def test_silent_for_five_minutes_while_groups_are_made(home: Home, net: Network) -> None:
    def silence() -> None:
        net.node.silent = True
        net.clock.time += 300

    mined = live(home, net, silence, IMPATIENT)
    result = mined.mine_live(groups=50)
    assert result.success, mined.faults(WINDOW)
    # By the blocks that should have come, there was no time for another group.
    assert 1 <= len(mined.spooled(WINDOW)) < 50
    assert mined.uploaded(WINDOW) is not None
    assert mined.names() == ["ChainSilent"]
    details = " ".join(row["detail"] for row in mined.faults(WINDOW))
    assert "300 s ago" in details
    assert f"uploaded without asking whether block {WINDOW} is still" in details
    (row,) = mined.resource("lake").read("uploads", WINDOW).to_pylist()
    assert row["on_time"]


def test_silent_when_a_window_begins(home: Home, net: Network) -> None:
    net.node.silent = True
    refused = live(home, net, patience=IMPATIENT).mine_live()
    words = ("silent for", "127.0.0.1", "BT_CHAIN_ENDPOINT")
    assert_named(home, refused, "beacon", "ChainSilent", *words, window=WINDOW)
    net.node.silent = False
    assert live(home, net).mine_live().success
    assert home.uploaded(WINDOW) is not None


def test_a_sensor_that_cannot_read_the_chain_stays_where_it_was(home: Home, net: Network) -> None:
    watching = live(home, net, patience=IMPATIENT)
    cursor = tick(watching, None).cursor
    assert cursor == str(WINDOW)
    net.node.silent = True
    with pytest.raises(ChainSilent):
        tick(watching, cursor)
    assert home.faults(WINDOW + WINDOW_BLOCKS) == []
    net.node.silent = False
    time.sleep(0.41)
    # Five minutes bring the last blocks of the window; then the chain jumps forty at once.
    net.advance(25)
    assert isinstance(tick(watching, cursor), dg.SkipReason)
    net.state.advance(40, seconds=0.1)
    (request,) = (result := tick(watching, cursor)).run_requests
    assert request.partition_key == result.cursor == str(WINDOW + 2 * WINDOW_BLOCKS)
    (row,) = home.faults(WINDOW + WINDOW_BLOCKS)
    assert (row["reason"], row["stage"]) == ("missed", "open_window")


def test_jumping_forty_blocks_while_groups_are_made(home: Home, net: Network) -> None:
    mined = live(home, net, lambda: (net.state.advance(40, seconds=0.01), None)[1])
    result = mined.mine_live(groups=50)
    assert result.success, mined.faults(WINDOW)
    kept = mined.spooled(WINDOW)
    assert 1 <= len(kept) < 50
    (run,) = mined.resource("lake").read("window_runs", WINDOW).to_pylist()
    assert run["stopped_by"] == "window_closed"
    (late,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "on_time"]
    assert not late.passed
    assert len(read_window_file(mined.resource("bucket").get(mined.key(WINDOW))).rollouts) == (
        16 * len(kept)
    )


def test_reorganised_while_groups_are_made(home: Home, net: Network) -> None:
    before = net.state.hash_at(WINDOW)
    mined = live(home, net, lambda: net.state.reorganise(3))
    refused = mined.mine_live(groups=50)
    assert not refused.success
    assert mined.names() == ["BlockReorganised", "ReorganisedWindow"]
    assert mined.uploaded(WINDOW) is None

    again = live(home, net)
    (request,) = tick(again, str(WINDOW)).run_requests
    assert request.partition_key == str(WINDOW)
    assert again.mine_live().success
    assert isinstance(tick(again, str(WINDOW)), dg.SkipReason)
    sent = read_window_file(again.resource("bucket").get(again.key(WINDOW))).rollouts
    (block_hash,) = set(sent["block_hash"].to_pylist())
    assert block_hash == net.state.hash_at(WINDOW) != before


def test_reorganised_before_the_upload(home: Home, net: Network) -> None:
    mined = live(home, net)
    stages = ("beacon", "checkpoint", "rollouts", "proofs", "submission")
    assert mined.mine_window(*stages).success
    net.state.reorganise(3)
    refused = mined.mine_window("upload")
    assert not refused.success
    assert "ReorganisedWindow" in mined.names()
    assert mined.uploaded(WINDOW) is None
    assert mined.window_file(WINDOW).exists()


def test_a_clock_that_disagrees_with_the_chain(home: Home, net: Network) -> None:
    net.clock.time -= 31
    slow = live(home, net)
    assert slow.mine_live().success
    assert slow.names() == ["ClockSkew"]
    details = " ".join(row["detail"] for row in slow.faults(WINDOW))
    assert "30 s from now by this machine's clock, which is slow" in details


def test_two_miners_with_one_hotkey(tiny: Path, tmp_path: Path, net: Network) -> None:
    shared = str(tmp_path / "bucket")
    first, second = (
        live(Home.make(tmp_path / name, tiny, WINDROW_BUCKET=shared), net)
        for name in ("first", "second")
    )
    assert first.mine_live(1).success
    assert second.mine_live(2).success
    assert (first.names(), second.names()) == ([], ["ForeignUpload"])
    (row,) = second.faults(WINDOW)
    assert "another miner uses the hotkey" in row["detail"]
    assert first.mine_live(3).success
    assert first.names() == ["ForeignUpload"]


def test_a_commitment_made_elsewhere_with_our_hotkey(net: Network) -> None:
    chain = net.chain()
    ours, theirs = "a" * 128, "b" * 128
    assert ensure_committed(chain, MINER, ours) is None
    assert ensure_committed(chain, MINER, ours) == ours
    net.state.commit(MINER, theirs.encode())
    assert ensure_committed(chain, MINER, ours) == theirs
    assert chain.commitment(MINER) == ours
