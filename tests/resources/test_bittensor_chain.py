"""The live chain over a local node: bittensor's own client on one end of a real websocket."""

from collections.abc import Iterator

import pytest

from tests.resources.substrate_state import hotkey_of
from tests.support.bittensor import HOTKEYS, MINER, NETUID, TRAINER, WINDOW, Network, network
from tests.support.bittensor import own_client_files as client_files
from windrow.resources.bittensor.endpoints import UnknownNetwork, endpoints, shown
from windrow.resources.chain import (
    ChainError,
    CommitmentRefused,
    EmptySubnet,
    FutureBlock,
    NotRegistered,
    UnknownSubnet,
    UnreadableChain,
    WeightsRefused,
    ensure_committed,
)


@pytest.fixture(scope="module", autouse=True)
def own_client_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with client_files(tmp_path_factory):
        yield


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as running:
        yield running


def test_blocks_have_numbers_hashes_and_times(net: Network) -> None:
    chain = net.chain()
    assert chain.block() == WINDOW + 2
    assert chain.block_hash(WINDOW) == net.state.hash_at(WINDOW)
    assert chain.timestamp(WINDOW) == chain.timestamp(WINDOW + 2) - 24 == net.state.time - 24
    assert chain.timestamp(WINDOW - 100) == net.state.time - 24 - 1200
    net.advance(3)
    assert chain.block() == WINDOW + 5
    assert chain.concerns() == []


def test_a_future_block_says_when_it_opens(net: Network) -> None:
    chain = net.chain()
    for ask in (chain.block_hash, chain.timestamp):
        with pytest.raises(FutureBlock, match="in 23 s") as caught:
            ask(WINDOW + 4)
        assert caught.value.opens_at == net.state.time + 24
    net.advance(2)
    assert chain.block_hash(WINDOW + 4) == net.state.hash_at(WINDOW + 4)
    with pytest.raises(ChainError, match="counted from 0"):
        chain.block_hash(-1)


def test_a_deadline_is_expected_and_then_known(net: Network) -> None:
    chain = net.chain()
    assert chain.deadline(WINDOW) == net.state.time + 28 * 12 - 4
    net.state.advance(27)
    late = net.state.time + 31
    net.state.advance(1, seconds=31)
    assert chain.deadline(WINDOW) == late - 4


def test_the_newest_block_at_a_time(net: Network) -> None:
    chain = net.chain()
    net.state.advance(1, seconds=60)
    net.advance(20)
    net.clock.time = net.state.time + 1
    for block in (WINDOW - 300, WINDOW, WINDOW + 2, WINDOW + 3, WINDOW + 23):
        assert chain.block_at_time(chain.timestamp(block)) == block
        assert chain.block_at_time(chain.timestamp(block) - 0.001) == block - 1
    with pytest.raises(ChainError, match="to come"):
        chain.block_at_time(net.clock.time + 1)


def test_times_of_pruned_blocks_come_from_their_extrinsics(net: Network) -> None:
    before = net.chain().timestamp(WINDOW + 1)
    net.advance(5)
    net.state.discarded_below = WINDOW + 4
    assert net.chain().timestamp(WINDOW + 1) == before
    with pytest.raises(UnreadableChain, match="archive"):
        net.chain().timestamp(WINDOW - 50)


def test_the_metagraph_is_whole_or_an_error(net: Network) -> None:
    chain = net.chain()
    subnet = chain.metagraph()
    assert (subnet.block, subnet.hotkeys) == (WINDOW + 2, HOTKEYS)
    assert [neuron.uid for neuron in subnet.neurons] == [0, 1, 2]
    assert subnet.neurons[1].registered_at == WINDOW - 5 - 1000 + 1
    assert chain.registered(MINER) == 1
    net.state.drop("Keys", [NETUID, 1])
    with pytest.raises(UnreadableChain, match="2 of the 3 neurons"):
        chain.metagraph()


def test_a_subnet_of_many_pages_is_read_whole() -> None:
    many = [*HOTKEYS, *(f"{i:064x}" for i in range(1, 254))]
    with network(["0x" + key if len(key) == 64 else key for key in many]) as net:
        assert len(set(net.chain().metagraph().hotkeys)) == 256


def test_no_neurons_are_never_a_quiet_network(net: Network) -> None:
    for uid, hotkey in enumerate(HOTKEYS):
        net.state.drop("Keys", [NETUID, uid])
        net.state.drop("Uids", [NETUID, hotkey])
    net.state.put("SubnetworkN", [NETUID], 0)
    with pytest.raises(EmptySubnet, match="no neurons"):
        net.chain().metagraph()
    with pytest.raises(EmptySubnet, match="no commitment"):
        net.chain().commitments()
    net.state.drop("NetworksAdded", [NETUID])
    for ask in (net.chain().metagraph, lambda: net.chain().registered(MINER)):
        with pytest.raises(EmptySubnet, match="no subnet 81"):
            ask()


def test_an_unregistered_hotkey_is_told_what_to_do(net: Network) -> None:
    chain = net.chain(uri="//Nobody")
    assert chain.require_registered(MINER) == 1
    stranger = hotkey_of("//Nobody")
    assert chain.registered(stranger) is None
    with pytest.raises(NotRegistered, match=r"subnet 81 of custom.*btcli subnets register"):
        chain.require_registered(stranger)


def test_commitments_are_made_and_read(net: Network) -> None:
    chain = net.chain()
    assert chain.commitment(MINER) is None
    text = "a" * 32 + "k" * 32 + "s" * 64
    assert ensure_committed(chain, MINER, text) is None
    assert ensure_committed(chain, MINER, text) == text
    assert [s.function for s in net.state.submissions] == ["set_commitment"]
    net.state.commit(TRAINER, b"\xff\x00")
    found = chain.commitments()
    assert found[MINER].data == text.encode()
    assert found[MINER].block == WINDOW + 3
    assert found[TRAINER].data == b"\xff\x00"
    for bad in ("", "x" * 129, "é" * 65):
        with pytest.raises(CommitmentRefused, match="1 to 128"):
            chain.commit(MINER, bad)
    with pytest.raises(CommitmentRefused, match="Only"):
        chain.commit(TRAINER, text)


def test_a_commitment_the_chain_refuses(net: Network) -> None:
    net.state.fail_next = "SpaceLimitExceeded"
    with pytest.raises(CommitmentRefused, match="SpaceLimitExceeded"):
        net.chain().commit(MINER, "text")
    assert net.chain().commitment(MINER) is None


def test_plain_weights_as_the_subnet_demands_them() -> None:
    with network(WeightsVersionKey=9_012_001) as net:
        chain = net.chain()
        assert chain.weights(MINER) is None
        chain.set_weights(MINER, {TRAINER: 0.9, MINER: 0.1, HOTKEYS[2]: 0.0})
        (sent,) = net.state.submissions
        assert sent.function == "set_mechanism_weights"
        assert (sent.arguments["dests"], sent.arguments["weights"]) == ([0, 1], [65535, 7282])
        assert sent.arguments["version_key"] == 9_012_001
        last = chain.weights(MINER)
        assert last is not None
        assert last.block == WINDOW + 3
        assert last.weights[TRAINER] == pytest.approx(0.9, abs=1e-5)
        assert chain.concerns() == []


def test_weights_are_hidden_where_the_subnet_says_so() -> None:
    with network(CommitRevealWeightsEnabled=True) as net:
        chain = net.chain()
        assert chain.rules().commit_reveal
        chain.set_weights(MINER, {TRAINER: 0.9, MINER: 0.1})
        (sent,) = net.state.submissions
        assert sent.function == "commit_timelocked_mechanism_weights"
        last = chain.weights(MINER)
        assert last is not None
        assert (last.block, last.weights) == (WINDOW + 3, {})


def test_weights_are_clipped_only_with_a_word() -> None:
    with network(MaxWeightsLimit=65535 * 6 // 10) as net:
        chain = net.chain()
        chain.set_weights(MINER, {TRAINER: 0.9, MINER: 0.1})
        (concern,) = chain.concerns()
        assert concern.name == "WeightsClipped"
        assert net.state.submissions[0].arguments["weights"] == pytest.approx([65535, 43690], abs=5)


@pytest.mark.parametrize(
    ("storage", "weights", "words"),
    [
        ({"MinAllowedWeights": 3}, {TRAINER: 1.0}, "no fewer than 3"),
        ({"WeightsSetRateLimit": 100}, {TRAINER: 1.0}, "rate_limited.*93 blocks"),
        ({}, {TRAINER: 0.5, HOTKEYS[0][:-1] + "x": 0.5}, "not on the subnet"),
        ({}, {TRAINER: 0.0}, "add up"),
        ({}, {TRAINER: 0.7, MINER: 0.7}, "add up"),
        ({}, {TRAINER: 0.7, MINER: -0.7}, "from 0 to 1"),
        ({}, {TRAINER: float("nan")}, "from 0 to 1"),
    ],
)
def test_weights_the_subnet_would_not_take(
    storage: dict[str, int], weights: dict[str, float], words: str
) -> None:
    with network(**storage) as net:
        with pytest.raises(WeightsRefused, match=words):
            net.chain().set_weights(MINER, weights)
        assert net.state.submissions == []


def test_refused_weights_name_the_chains_error(net: Network) -> None:
    chain = net.chain()
    net.state.fail_next = "NeuronNoValidatorPermit"
    with pytest.raises(WeightsRefused, match="NeuronNoValidatorPermit"):
        chain.set_weights(MINER, {TRAINER: 1.0})
    net.state.refuse_next = {
        "code": 1010,
        "message": "Invalid Transaction",
        "data": "bad signature",
    }
    with pytest.raises(WeightsRefused, match="refused the weights of"):
        chain.set_weights(MINER, {TRAINER: 1.0})
    assert chain.weights(MINER) is None
    with pytest.raises(WeightsRefused, match="Only"):
        chain.set_weights(TRAINER, {TRAINER: 1.0})


def test_networks_and_endpoints() -> None:
    assert endpoints("finney").urls[0].startswith("wss://entrypoint-finney")
    assert len(endpoints("finney").urls) > 1
    assert endpoints("finney").genesis
    assert endpoints("finney", "ws://node:9944").genesis is None
    own = endpoints("finney", "ws://node:9944", ["wss://other/key"])
    assert own.urls == ("ws://node:9944", "wss://other/key")
    assert endpoints("local").urls == ("ws://127.0.0.1:9944",)
    for network_name, url in (
        ("fin", None),
        ("custom", None),
        ("finney", "http://x"),
        ("custom", "node"),
    ):
        with pytest.raises(UnknownNetwork, match="BT_"):
            endpoints(network_name, url)
    assert shown("wss://user:pass@node:1/secret?key=1") == "wss://node:1"


def test_another_networks_subnet_says_who_a_miner_is(net: Network) -> None:
    """One coldkey with two hotkeys there, an announced axon, and a share of the incentive."""
    numbers, chain, cold = {"finney": NETUID}, net.chain(), hotkey_of("//Cold")
    for hotkey in (MINER, TRAINER):
        net.state.put("Owner", [hotkey], cold)
    net.state.put("OwnedHotkeys", [cold], [MINER, TRAINER, hotkey_of("//Elsewhere")])
    net.state.put("Incentive", [NETUID], [0, 65535, 0])
    found = chain.membership(numbers, MINER)
    assert (found.netuid, found.uid, found.siblings) == (NETUID, 1, 2)
    assert (found.axon, found.incentive) == (None, 1.0)
    for port, announced in ((8091, "8.8.4.4:8091"), (0, None)):
        axon = {"block": 1, "version": 1, "ip": 0x08080404, "port": port, "ip_type": 4}
        rest = {"protocol": 4, "placeholder1": 0, "placeholder2": 0}
        net.state.put("Axons", [NETUID, MINER], axon | rest)
        assert chain.membership(numbers, MINER).axon == announced
    stranger = chain.membership(numbers, hotkey_of("//Nobody"))
    assert (stranger.uid, stranger.siblings, stranger.incentive) == (None, 0, 0.0)


def test_a_subnet_that_is_not_there_is_no_place_for_a_miner(net: Network) -> None:
    with pytest.raises(EmptySubnet):
        net.chain().membership({"finney": 64}, MINER)
    with pytest.raises(UnknownSubnet, match="on custom"):
        net.chain().membership({"test": 15}, MINER)
