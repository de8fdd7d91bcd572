"""A node that is silent, gone, cut off, garbled, lagging or another chain's; and what is kept."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.resources.substrate_node import SubstrateNode
from tests.resources.substrate_state import Subnet, SubstrateState
from tests.support.bittensor import HOTKEYS, MINER, NETUID, TRAINER, WINDOW, Network, network
from tests.support.bittensor import own_client_files as client_files
from windrow.resources.bittensor.chain import SubmissionLost
from windrow.resources.chain import (
    ChainSilent,
    ReorganisedWindow,
    UnreadableChain,
    WindowClock,
    require_same_block,
)


@pytest.fixture(scope="module", autouse=True)
def own_client_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with client_files(tmp_path_factory):
        yield


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as running:
        yield running


@pytest.fixture
def other(net: Network) -> Iterator[SubstrateNode]:
    """A second node of the same chain."""
    with SubstrateNode(net.state) as node:
        yield node


def test_nothing_is_opened_before_it_is_asked(net: Network) -> None:
    net.chain()
    assert net.node.connections == 0


def test_silence_is_an_error_and_ends(net: Network) -> None:
    chain = net.chain()
    assert chain.block() == WINDOW + 2
    net.node.silent = True
    for ask in (chain.block, chain.metagraph, chain.commitments, lambda: chain.registered(MINER)):
        with pytest.raises(ChainSilent, match=r"silent for .* at ws://127\.0\.0\.1"):
            ask()
        time.sleep(0.41)
    assert net.node.connections > 3
    net.node.silent = False
    net.advance(25)
    assert chain.block() == WINDOW + 27
    assert net.node.open == 1


def test_a_silent_chain_is_not_asked_all_the_time(net: Network) -> None:
    chain = net.chain(probe=5.0)
    chain.block()
    net.node.silent = True
    with pytest.raises(ChainSilent):
        chain.block()
    assert net.node.open <= 1
    asked = len(net.node.asked)
    for _ in range(20):
        with pytest.raises(ChainSilent):
            chain.block()
    assert len(net.node.asked) == asked


def test_time_left_is_reckoned_on_through_silence(net: Network) -> None:
    chain = net.chain()
    deadline = chain.deadline(WINDOW)
    assert chain.expected_block() == WINDOW + 2
    net.node.silent = True
    for seconds, block in ((11.0, 2), (1.0, 3), (288.0, 27)):
        net.clock.time += seconds
        assert chain.expected_block() == WINDOW + block
        assert chain.deadline(WINDOW) == deadline
    (concern,) = chain.concerns()
    assert concern.name == "ChainSilent"
    assert f"block {WINDOW + 2}, seen 300 s ago" in concern.detail
    with pytest.raises(ChainSilent):
        chain.block()
    net.clock.time += 301
    with pytest.raises(ChainSilent):
        chain.expected_block()


def test_a_process_that_never_saw_the_chain_reckons_nothing(net: Network) -> None:
    net.node.silent = True
    for ask in (net.chain().expected_block, lambda: net.chain().deadline(WINDOW)):
        with pytest.raises(ChainSilent):
            ask()


def test_a_cut_connection_is_made_again(net: Network) -> None:
    chain = net.chain()
    chain.block()
    net.node.reset()
    assert chain.block() == WINDOW + 2
    net.node.stop()
    with pytest.raises(ChainSilent):
        chain.block()
    net.node.start()
    time.sleep(0.41)
    assert chain.block() == WINDOW + 2
    assert net.node.connections >= 2


def test_another_endpoint_answers_when_one_is_silent(net: Network, other: SubstrateNode) -> None:
    chain = net.chain(other.url, patience=10.0, probe=2.0)
    chain.block()
    assert (net.node.connections, other.connections) == (1, 0)
    net.node.silent = True
    assert chain.block() == WINDOW + 2
    assert chain.metagraph().hotkeys == HOTKEYS
    assert other.connections == 1
    other.stop()
    net.node.silent = False
    assert chain.block() == WINDOW + 2


def test_an_endpoint_of_another_chain_is_never_believed(net: Network) -> None:
    stranger = SubstrateState(Subnet(NETUID, HOTKEYS), height=7_000_000)
    stranger.genesis = "0x" + "ab" * 32
    with SubstrateNode(stranger) as node:
        chain = net.chain(node.url, patience=5.0, probe=1.0)
        chain.block()
        net.node.stop()
        with pytest.raises(UnreadableChain, match="is another chain"):
            chain.block()


def test_garbage_and_refusals_are_errors_with_the_nodes_words(net: Network) -> None:
    chain = net.chain()
    chain.block()
    net.node.refuse_reads = "database is on fire"
    for ask in (chain.block, chain.metagraph, chain.commitments):
        with pytest.raises(UnreadableChain, match="on fire"):
            ask()
    net.node.refuse_reads = None
    net.node.garbage = True
    with pytest.raises(ChainSilent):
        chain.block()


def test_a_reorganised_block_is_read_again_and_refused(net: Network) -> None:
    chain = net.chain()
    recorded = chain.block_hash(WINDOW)
    require_same_block(chain, WINDOW, recorded)
    clock = WindowClock(chain, WINDOW, recorded)
    assert clock.block() == WINDOW + 2
    net.state.reorganise(3)
    with pytest.raises(ReorganisedWindow, match="Run the window again"):
        clock.block()
    assert chain.block_hash(WINDOW) == net.state.hash_at(WINDOW) != recorded
    (concern,) = chain.concerns()
    assert concern.name == "BlockReorganised"
    assert recorded in concern.detail


def test_a_clock_of_a_window_outlasts_silence_after_a_reorganisation(net: Network) -> None:
    chain = net.chain()
    clock = WindowClock(chain, WINDOW, chain.block_hash(WINDOW))
    net.node.silent = True
    net.clock.time += 24
    assert clock.block() == WINDOW + 4


def test_the_clock_is_held_against_the_blocks(net: Network) -> None:
    net.clock.time = net.state.time - 30
    chain = net.chain()
    chain.block()
    (slow,) = chain.concerns()
    assert slow.name == "ClockSkew"
    assert "30 s" in slow.detail
    net.clock.time = net.state.time + 61
    chain.deadline(WINDOW)
    (fast,) = chain.concerns()
    assert fast.name == "LaggingChain"
    assert "61 s old" in fast.detail
    net.clock.time = net.state.time + 40
    chain.deadline(WINDOW)
    assert chain.concerns() == []


def test_what_was_sent_when_the_line_broke_is_looked_up_and_never_sent_twice(net: Network) -> None:
    chain = net.chain()
    net.node.lose_submissions = True
    chain.commit(MINER, "text")
    chain.set_weights(MINER, {TRAINER: 1.0})
    functions = [submission.function for submission in net.state.submissions]
    assert functions == ["set_commitment", "set_mechanism_weights"]


def test_what_a_broken_line_swallowed_is_said_to_be_unknown(net: Network) -> None:
    chain = net.chain()
    chain.block()
    net.state.swallow = True
    with pytest.raises(SubmissionLost, match="commit again"):
        chain.commit(MINER, "text")
    with pytest.raises(SubmissionLost, match="sent again"):
        chain.set_weights(MINER, {TRAINER: 1.0})
    assert net.state.submissions == []


def test_many_threads_ask_one_connection(net: Network) -> None:
    chain = net.chain()
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda _: chain.block(), range(64)))
    assert set(blocks) == {WINDOW + 2}
    assert net.node.connections == 1
