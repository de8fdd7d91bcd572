"""What must hold on chain before a miner's work can count: registered, and its bucket published."""

from dataclasses import dataclass
from typing import Protocol

from windrow.networks.grail.bucket import BucketCommitment
from windrow.resources.chain import Chain, NotRegistered
from windrow.resources.storage.object_store import ObjectStore
from windrow.resources.storage.read_credentials import commit_read_credentials
from windrow.resources.storage.rights import check_key_pair


class Admission(Protocol):
    """The door to a subnet."""

    def ensure(self) -> None:
        """Raises a WindrowError where this miner's work would not count."""
        ...


class Open:
    """The embedded network takes everyone."""

    def ensure(self) -> None:
        """Nothing."""


class Registry(Protocol):
    """Who is registered."""

    def registered(self, hotkey: str) -> int | None:
        """The hotkey's number, None without one."""
        ...


@dataclass(frozen=True)
class SubnetAdmission:
    """A Bittensor subnet: a registered hotkey, whose read key is on chain and can only read.

    chain, registry: one and the same chain. writer, reader: the bucket, by its two keys.
    """

    chain: Chain
    registry: Registry
    hotkey: str
    writer: ObjectStore
    reader: ObjectStore
    commitment: BucketCommitment

    def ensure(self) -> None:
        """Raises NotRegistered, WrongRights, ChainError, BucketUnavailable.

        A read key is tried before it is published: whoever can read the chain has it from then on.
        """
        if self.registry.registered(self.hotkey) is None:
            raise NotRegistered(
                f"{self.hotkey} is not registered on the subnet, so nothing it uploads counts. "
                "Register it: btcli subnet register --netuid N --wallet.hotkey NAME."
            )
        if self.chain.commitment(self.hotkey) != self.commitment.encode():
            check_key_pair(self.writer, self.reader)
            commit_read_credentials(self.chain, self.hotkey, self.commitment)
