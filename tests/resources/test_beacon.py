"""A window's randomness, without and with recorded drand."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.relays import OWN, relays, signed
from windrow.networks.grail.windows import drand_round, miner_randomness
from windrow.resources.beacon import (
    BlockHashBeacon,
    LiveDrand,
    MalformedRecording,
    RecordedDrand,
    RoundNotRecorded,
)
from windrow.resources.chain import FutureBlock
from windrow.resources.development_chain import DevelopmentChain

RECORDING = Path(__file__).parents[1] / "vectors" / "drand" / "quicknet_round1000.json"
# Round 1000 lasts from this second for three (1692803367 + 999 * 3).
ROUND_1000 = 1_692_806_364.0
WINDOW = 30


@pytest.fixture
def chain(tmp_path: Path) -> DevelopmentChain:
    """Block 30 came in the last second of round 1000."""
    return DevelopmentChain(
        tmp_path / "chain.sqlite",
        seed="test",
        genesis=ROUND_1000 + 2.5 - WINDOW * 12,
        clock=lambda: ROUND_1000 + 13,
    )


def test_the_block_hash_alone(chain: DevelopmentChain) -> None:
    beacon = BlockHashBeacon(chain).beacon(WINDOW)
    assert beacon.block_hash == chain.block_hash(WINDOW)
    assert beacon.randomness == hashlib.sha256(beacon.block_hash.encode()).hexdigest()
    assert (beacon.use_drand, beacon.drand_round, beacon.source) == (False, None, "block_hash")


def test_a_recorded_round_is_mixed_in(chain: DevelopmentChain) -> None:
    beacon = RecordedDrand(chain, RECORDING).beacon(WINDOW)
    drand = json.loads(RECORDING.read_text())["randomness"]
    mixed = (chain.block_hash(WINDOW) + drand).encode()
    assert beacon.randomness == hashlib.sha256(mixed).hexdigest()
    assert (beacon.use_drand, beacon.drand_round) == (True, 1000)


def test_a_round_that_is_not_recorded_is_an_error_not_a_fallback(chain: DevelopmentChain) -> None:
    with pytest.raises(RoundNotRecorded, match="drand round 880"):
        RecordedDrand(chain, RECORDING).beacon(0)


def test_a_window_that_is_not_open_has_no_beacon(chain: DevelopmentChain) -> None:
    for source in (BlockHashBeacon(chain), RecordedDrand(chain, RECORDING)):
        with pytest.raises(FutureBlock):
            source.beacon(60)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "00" * 48},
        {"signature": "zz"},
        {"signature": None},
        {"randomness": "ff" * 32},
        {"round": 0},
        {"round": True},
        {"round": "1000"},
        {"chain_hash": "ab" * 32},
    ],
)
def test_a_round_that_does_not_hold_is_refused(
    chain: DevelopmentChain, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "rounds.json"
    path.write_text(json.dumps(json.loads(RECORDING.read_text()) | change))
    with pytest.raises(MalformedRecording, match=r"rounds\.json"):
        RecordedDrand(chain, path)


def unsigned_round(number: int) -> dict[str, object]:
    """What looks like a round; no signer ever saw it."""
    signature = bytes([number % 256]) * 48
    randomness = hashlib.sha256(signature).hexdigest()
    return {"round": number, "signature": signature.hex(), "randomness": randomness}


def test_many_rounds_in_one_file(chain: DevelopmentChain, tmp_path: Path) -> None:
    path = tmp_path / "rounds.json"
    genuine = json.loads(RECORDING.read_text())
    entries = [unsigned_round(number) for number in range(880, 1000)]
    path.write_text(json.dumps({"rounds": [*entries, genuine]}))
    assert RecordedDrand(chain, path).beacon(WINDOW).drand_round == 1000
    path.write_text(json.dumps({"rounds": [*entries, genuine | {"round": 999}]}))
    with pytest.raises(MalformedRecording, match="two different rounds 999"):
        RecordedDrand(chain, path)


def test_a_recorded_round_that_nobody_signed_is_refused(
    chain: DevelopmentChain, tmp_path: Path
) -> None:
    path = tmp_path / "rounds.json"
    path.write_text(json.dumps(unsigned_round(1000)))
    with pytest.raises(MalformedRecording, match=r"rounds\.json: the signature of round 1000"):
        RecordedDrand(chain, path).beacon(WINDOW)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"rounds": {}}', '{"rounds": [1]}', "[" * 99999]
)
def test_a_file_that_is_no_recording_is_named(
    chain: DevelopmentChain, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "rounds.json"
    path.write_text(content)
    with pytest.raises(MalformedRecording, match=r"rounds\.json"):
        RecordedDrand(chain, path)
    with pytest.raises(MalformedRecording):
        RecordedDrand(chain, tmp_path / "missing.json")


def test_with_live_drand_a_miner_may_have_drawn_any_round_of_the_window(
    chain: DevelopmentChain,
) -> None:
    block_hash, opens = chain.block_hash(WINDOW), drand_round(int(chain.timestamp(WINDOW)), OWN)

    def drawn(number: int) -> str:
        return miner_randomness(block_hash, signed(number)["randomness"])

    with relays("signs") as (relay,):
        source = LiveDrand(chain, [relay.url], 5.0, OWN)
        opened = source.beacon(WINDOW)
        assert opened.randomness == drawn(opens)
        assert len(relay.asked) == 1
        without_drand = miner_randomness(block_hash, None)
        assert source.miners(opened, without_drand) == without_drand
        assert source.miners(opened, "7") == opened.randomness
        assert len(relay.asked) == 1
        later = drawn(opens + 3)
        assert source.miners(opened, later.upper()) == later
        assert len(relay.asked) == 17
        # Neither a round from before the window nor one from after it, nor one nobody signed.
        for other in (drawn(opens - 2), drawn(opens + 125), "5e" * 32):
            assert source.miners(opened, other) == opened.randomness
        assert source.miners(opened, drawn(opens + 119)) == drawn(opens + 119)
        assert len(relay.asked) == 1 + 121
    assert source.concerns() == []


def test_without_its_rounds_what_a_miner_drew_is_not_known(chain: DevelopmentChain) -> None:
    with relays("signs") as (relay,):
        source = LiveDrand(chain, [relay.url], 5.0, OWN)
        opened = source.beacon(WINDOW)
        relay.behaviour = "silent"
        asked = len(relay.asked)
        assert source.miners(opened, "5e" * 32) is None
        assert source.miners(opened, "6e" * 32) is None
        assert len(relay.asked) <= asked + 16
    assert [concern.name for concern in source.concerns()] == ["DrandUnavailable"]
