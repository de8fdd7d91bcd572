"""The development chain: deterministic, honest about the future, shared by processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import run_together
from windrow.resources.chain import ChainError, CommitmentRefused, FutureBlock, WeightsRefused
from windrow.resources.development_chain import ChainStateMismatch, DevelopmentChain

GENESIS = 1_704_067_200.0
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


class HandClock:
    def __init__(self, time: float) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> HandClock:
    return HandClock(GENESIS + 12_000.0)


Make = Callable[..., DevelopmentChain]


@pytest.fixture
def make(tmp_path: Path, clock: HandClock) -> Make:
    def chain(**options: object) -> DevelopmentChain:
        given = {"seed": "test", "genesis": GENESIS, "clock": clock} | options
        return DevelopmentChain(tmp_path / "chain.sqlite", **given)  # type: ignore[arg-type]

    return chain


def test_the_wall_clock_moves_the_chain(make: Make, clock: HandClock) -> None:
    chain = make()
    assert chain.block() == 1000
    clock.time += 11.9
    assert chain.block() == 1000
    clock.time += 0.2
    assert chain.block() == 1001
    assert chain.timestamp(1001) == GENESIS + 1001 * 12


def test_today_is_a_block_of_real_size(tmp_path: Path) -> None:
    chain = DevelopmentChain(tmp_path / "chain.sqlite", seed="test", genesis=GENESIS)
    assert chain.block() > 7_000_000


def test_hashes_depend_on_seed_and_block_only(make: Make, tmp_path: Path, clock: HandClock) -> None:
    chain = make()
    first = chain.block_hash(990)
    assert first.startswith("0x")
    assert len(bytes.fromhex(first[2:])) == 32
    assert first == first.lower()
    other = DevelopmentChain(tmp_path / "b", seed="test", genesis=GENESIS - 7, clock=clock)
    assert other.block_hash(990) == first
    assert chain.block_hash(989) != first
    sown = DevelopmentChain(tmp_path / "c", seed="tes", genesis=GENESIS, clock=clock)
    assert sown.block_hash(990) != first


def test_a_future_block_is_refused_and_says_when_it_opens(make: Make) -> None:
    chain = make()
    for ask in (chain.block_hash, chain.timestamp):
        with pytest.raises(FutureBlock, match=r"2024-01-01T03:20:36\+00:00, in 36 s") as caught:
            ask(1003)
        assert caught.value.opens_at == GENESIS + 1003 * 12
    with pytest.raises(ChainError, match="counted from 0"):
        chain.block_hash(-1)


def test_a_chain_before_its_genesis_is_refused(make: Make, clock: HandClock) -> None:
    clock.time = GENESIS - 1
    with pytest.raises(ChainError, match="still to come"):
        make()


def test_a_jump_goes_to_the_block_and_the_clock_runs_on(make: Make, clock: HandClock) -> None:
    chain = make()
    assert chain.advance_to(1020) == 1020
    assert chain.block() == 1020
    clock.time += 4 + 12
    assert chain.block() == 1021
    assert chain.timestamp(1021) - chain.timestamp(1020) == 12


def test_a_jump_never_goes_back(make: Make) -> None:
    chain = make()
    assert chain.advance_to(10) == 1000
    assert chain.advance_to(1000) == 1000
    assert chain.block() == 1000


def test_a_jump_changes_no_timestamp_of_the_past(make: Make, clock: HandClock) -> None:
    chain = make()
    before = [chain.timestamp(block) for block in range(1001)]
    clock.time += 5.0
    for target in (1020, 1050, 1050, 1110):
        chain.advance_to(target)
    after = [chain.timestamp(block) for block in range(1111)]
    assert after[:1001] == before
    assert after == sorted(after)


def test_what_was_uploaded_before_a_jump_is_on_time_and_after_it_late(
    make: Make, clock: HandClock
) -> None:
    chain = make()
    chain.advance_to(1020)
    clock.time += 7.0
    uploaded = clock.time
    assert chain.deadline(1020) == chain.timestamp(1020) + 30 * 12 - 4
    clock.time += 0.5
    jumped = clock.time
    chain.advance_to(1050)
    assert uploaded <= chain.deadline(1020) == jumped
    chain.advance_to(1080)
    assert chain.deadline(1020) == jumped


def test_block_at_time_is_the_inverse_of_timestamp(make: Make, clock: HandClock) -> None:
    chain = make()
    clock.time += 5.0
    chain.advance_to(1020)
    clock.time += 40.0
    chain.advance_to(1100)
    clock.time += 40.0
    for block in range(900, chain.block() + 1):
        found = chain.block_at_time(chain.timestamp(block))
        assert found >= block
        assert chain.timestamp(found) == chain.timestamp(block)
    assert chain.block_at_time(clock.time) == chain.block()
    assert chain.block_at_time(GENESIS + 25) == 2
    with pytest.raises(ChainError, match="before the first block"):
        chain.block_at_time(GENESIS - 1)
    with pytest.raises(ChainError, match="to come"):
        chain.block_at_time(clock.time + 1)


def test_a_stepped_chain_stands_still(make: Make, clock: HandClock) -> None:
    chain = make(stepped=True)
    clock.time += 600
    assert chain.block() == 1000
    with pytest.raises(FutureBlock, match="only when it is advanced") as caught:
        chain.block_hash(1001)
    assert caught.value.opens_at is None
    chain.advance_to(1001)
    assert chain.block() == 1001
    assert chain.timestamp(1001) == clock.time + 4
    assert make(stepped=True).block() == 1001


def test_a_state_file_belongs_to_one_chain(make: Make) -> None:
    make()
    make()
    for other in ({"seed": "other"}, {"genesis": GENESIS - 12}, {"block_seconds": 1.0}):
        with pytest.raises(ChainStateMismatch, match="delete the file"):
            make(**other)


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "chain.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ChainError, match=r"chain\.sqlite"):
        DevelopmentChain(tmp_path / "chain.sqlite", seed="test", genesis=GENESIS)


def test_commitments_are_kept(make: Make) -> None:
    chain = make()
    assert chain.commitment(HOTKEY) is None
    chain.commit(HOTKEY, "x" * 128)
    chain.commit(HOTKEY, "y" * 128)
    assert make().commitment(HOTKEY) == "y" * 128
    for text in ("", "x" * 129, "é" * 65):
        with pytest.raises(CommitmentRefused):
            chain.commit(HOTKEY, text)


def test_weights_are_kept_with_their_block(make: Make) -> None:
    chain = make()
    assert chain.weights(HOTKEY) is None
    chain.set_weights(HOTKEY, {HOTKEY: 0.1, "burn": 0.9})
    kept = make().weights(HOTKEY)
    assert kept is not None
    assert (kept.block, kept.weights) == (1000, {HOTKEY: 0.1, "burn": 0.9})
    for bad in ({}, {"a": -0.1}, {"a": float("nan")}, {"a": 0.6, "b": 0.6}, {"a": 0.0}):
        with pytest.raises(WeightsRefused):
            chain.set_weights(HOTKEY, bad)


HAMMER = """
import sys
from pathlib import Path
from windrow.resources.development_chain import DevelopmentChain

worker, path, genesis = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
chain = DevelopmentChain(path, seed="test", genesis=genesis, stepped=True)
for turn in range(25):
    chain.advance_to(chain.block() + 1)
    chain.commit(f"hotkey-{worker}", str(turn))
    print(chain.block())
"""


def test_processes_share_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    outputs = run_together(HAMMER, 4, path, GENESIS)
    heights = [[int(line) for line in output.split()] for output in outputs]
    chain = DevelopmentChain(path, seed="test", genesis=GENESIS, stepped=True)
    assert chain.block() == max(max(seen) for seen in heights)
    assert all(len(seen) == 25 and seen == sorted(seen) for seen in heights)
    assert all(chain.commitment(f"hotkey-{worker}") == "24" for worker in range(4))
    stamps = [chain.timestamp(block) for block in range(chain.block() - 30, chain.block() + 1)]
    assert stamps == sorted(stamps)
