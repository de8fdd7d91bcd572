"""A local Bittensor node with a subnet, and the live chain over it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.resources.substrate_node import SubstrateNode
from tests.resources.substrate_state import Subnet, SubstrateState, hotkey_of
from windrow.networks.grail.constants import BLOCK_SECONDS
from windrow.resources.bittensor.chain import BittensorChain
from windrow.resources.bittensor.connection import BittensorConnection
from windrow.resources.bittensor.endpoints import endpoints
from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet

NETUID = 81
WINDOW = 5_000_040
TRAINER, MINER = hotkey_of("//Trainer"), hotkey_of("//Windrow")
HOTKEYS = [TRAINER, MINER, hotkey_of("//Bob")]


class HandClock:
    """Unix seconds that go on when told to."""

    def __init__(self, time: float) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


@dataclass
class Network:
    """One node, its chain's state, and a clock that agrees with it.

    The chain begins five blocks before WINDOW and stands at the third one of it.
    """

    node: SubstrateNode
    state: SubstrateState
    clock: HandClock
    opened: list[BittensorChain] = field(default_factory=list)

    def advance(self, blocks: int = 1) -> None:
        """Produce blocks as time goes by."""
        self.state.advance(blocks)
        self.clock.time += blocks * BLOCK_SECONDS

    def chain(self, *fallbacks: str, uri: str = "//Windrow", **options: Any) -> BittensorChain:
        """A live chain that gives up soon; options of the connection or of the chain."""
        quick = {"call_timeout": 1.0, "patience": 0.2, "backoff": 0.02, "probe": 0.4}
        given = {name: options.pop(name, value) for name, value in quick.items()}
        where = endpoints("custom", self.node.url, fallbacks)
        wallet = DevelopmentWallet(Secret(uri))
        options = {"clock": self.clock, "submit_timeout": 2.0} | options
        chain = BittensorChain(BittensorConnection(where, **given), NETUID, wallet, **options)
        self.opened.append(chain)
        return chain


@contextmanager
def network(
    hotkeys: Sequence[str] = HOTKEYS, *, newest: float = 1.79e9, **storage: Any
) -> Iterator[Network]:
    """A running node whose subnet has these hotkeys and hyperparameters.

    newest: unix seconds of its newest block, WINDOW + 2.
    """
    subnet = Subnet(NETUID, hotkeys, storage)
    state = SubstrateState(subnet, height=WINDOW - 5, time=newest - 7 * BLOCK_SECONDS)
    state.advance(7)
    with SubstrateNode(state) as node:
        running = Network(node, state, HandClock(state.time + 1.0))
        yield running
        for chain in running.opened:
            chain.close()


@contextmanager
def own_client_files(folder: pytest.TempPathFactory) -> Iterator[None]:
    """The client's cache of metadata in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        kept = os.environ.get("BITTENSOR_RUNTIME_CACHE_DIR")
        patch.setenv("BITTENSOR_RUNTIME_CACHE_DIR", kept or str(folder.mktemp("bittensor")))
        yield
