"""A Bittensor subnet as a `Chain`, through bittensor's own client.

The best head is followed, not the finalized one, for a window opens with its first block and
finality comes blocks later. The price is that a young block may be replaced: its hash is read
again, a change is a `BlockReorganised` concern, and `require_same_block` refuses the window.
Nothing is kept of what may change but the head last seen (`bittensor_head`).
"""

import time
from collections.abc import Awaitable, Callable, Mapping

import bittensor as bt

from windrow.engine.fleet.membership import Membership
from windrow.networks.grail.constants import (
    BLOCK_SECONDS,
    DEADLINE_SLACK_SECONDS,
    WINDOW_BLOCKS,
)
from windrow.resources.bittensor.connection import BittensorConnection, Session
from windrow.resources.bittensor.head import HeadWatch, utc
from windrow.resources.bittensor.reads import (
    Commitment,
    Metagraph,
    WeightRules,
    read_commitment,
    read_commitments,
    read_hash,
    read_membership,
    read_metagraph,
    read_rules,
    read_timestamp,
    read_uid,
    read_weights,
)
from windrow.resources.bittensor.writes import (
    UNSETTLED,
    HotkeySigner,
    commitment_bytes,
    name_of,
    submit_commitment,
    submit_weights,
    weights_by_uid,
)
from windrow.resources.chain import (
    ChainError,
    ChainSilent,
    CommitmentRefused,
    Concern,
    NotRegistered,
    SetWeights,
    UnknownSubnet,
    WeightsRefused,
)
from windrow.resources.wallet import Wallet

SUBMIT_SECONDS = 90.0

GIVEN_HASHES = 64
"""Hashes this process remembers to have given out."""


class SubmissionLost(ChainError):
    """An extrinsic was sent, and nobody can say yet whether the chain has it."""


class BittensorChain:
    """A `Chain` for one subnet.

    wallet: signs commitments and weights; without one the chain is only read.
    weights_version: sent with weights; None for the one the subnet demands.
    """

    def __init__(
        self,
        connection: BittensorConnection,
        netuid: int,
        wallet: Wallet | None = None,
        *,
        weights_version: int | None = None,
        block_seconds: float = BLOCK_SECONDS,
        submit_timeout: float = SUBMIT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.netuid = netuid
        self._connection, self._wallet = connection, wallet
        self._weights_version = weights_version
        self._block_seconds, self._submit_timeout = block_seconds, submit_timeout
        self._clock = clock
        self._heads = HeadWatch(connection, block_seconds, clock)
        self._given: dict[int, str] = {}

    def close(self) -> None:
        """Hang up; the next question connects again."""
        self._connection.close()

    def now(self) -> float:
        return self._clock()

    def block(self) -> int:
        return self._heads.number()

    def expected_block(self) -> int:
        return self._heads.expected_number()

    def block_hash(self, block: int) -> str:
        self._heads.require_produced(block)
        found = self._connection.ask(f"block {block}", lambda s: read_hash(s, block))
        before = self._given.get(block)
        if before not in (None, found):
            self._heads.note(
                "BlockReorganised",
                f"block {block} was {before} and is {found} now: the chain was reorganised",
            )
        self._given[block] = found
        while len(self._given) > GIVEN_HASHES:
            del self._given[next(iter(self._given))]
        return found

    def timestamp(self, block: int) -> float:
        self._heads.require_produced(block)
        return self._connection.ask(
            f"the time of block {block}", lambda s: read_timestamp(s, block)
        )

    def block_at_time(self, time: float) -> int:
        if time > self._clock():
            raise ChainError(
                f"Which block is newest at {utc(time)} is not known yet: that time is to come."
            )
        head = self._heads.newest()
        if head.timestamp <= time:
            return head.number
        # Blocks are missed, never made up for: there are at most as many as fit.
        newer, step = head.number, int((head.timestamp - time) / self._block_seconds) + 1
        older = max(0, newer - step)
        while self.timestamp(older) > time:
            if older == 0:
                raise ChainError(f"{utc(time)} is before the first block of this chain.")
            newer, older, step = older, max(0, older - step), 2 * step
        while newer - older > 1:
            middle = (older + newer) // 2
            if self.timestamp(middle) <= time:
                older = middle
            else:
                newer = middle
        return older

    def deadline(self, window: int) -> float:
        due = window + WINDOW_BLOCKS
        head = self._heads.newest_or_last_seen()
        if due <= head.number:
            return self.timestamp(due) + DEADLINE_SLACK_SECONDS
        ahead = (due - head.number) * self._block_seconds
        return head.timestamp + ahead + DEADLINE_SLACK_SECONDS

    def concerns(self) -> list[Concern]:
        return self._heads.concerns()

    def metagraph(self) -> Metagraph:
        """The subnet's neurons as of one block. Raises EmptySubnet, UnreadableChain."""
        return self._connection.ask(
            f"subnet {self.netuid}", lambda s: read_metagraph(s, self.netuid)
        )

    def registered(self, hotkey: str) -> int | None:
        """A hotkey's uid on the subnet. Raises EmptySubnet where there is no such subnet."""
        return self._connection.ask(
            f"the uid of {hotkey}", lambda s: read_uid(s, self.netuid, hotkey)
        )

    def require_registered(self, hotkey: str) -> int:
        """A hotkey's uid. Raises NotRegistered, with what an operator does about it."""
        uid = self.registered(hotkey)
        if uid is None:
            network = self._connection.endpoints.network
            raise NotRegistered(
                f"{hotkey} is not registered on subnet {self.netuid} of {network} "
                f"({self._connection.url}). Register it (btcli subnets register --netuid "
                f"{self.netuid}), or check BT_WALLET_COLD, BT_WALLET_HOT, NETUID and BT_NETWORK."
            )
        return uid

    def membership(self, netuids: Mapping[str, int], hotkey: str) -> Membership:
        """See `Chain`. Raises EmptySubnet where there is no such subnet."""
        network = self._connection.endpoints.network
        # A chain of one's own, by its endpoint, is taken for one numbered as the main network is.
        netuid = netuids.get("finney" if network in ("custom", "local") else network)
        if netuid is None:
            raise UnknownSubnet(f"no number of this network's subnet on {network} is known")
        return self._connection.ask(
            f"{hotkey} on subnet {netuid}", lambda s: read_membership(s, netuid, hotkey)
        )

    def rules(self) -> WeightRules:
        """What the subnet demands of weights."""
        return self._connection.ask("the subnet's rules", lambda s: read_rules(s, self.netuid))

    def commitments(self) -> dict[str, Commitment]:
        """Every hotkey's commitment. Raises EmptySubnet when there is none at all."""
        return self._connection.ask("commitments", lambda s: read_commitments(s, self.netuid))

    def commitment(self, hotkey: str) -> str | None:
        found = self._connection.ask(
            f"the commitment of {hotkey}", lambda s: read_commitment(s, self.netuid, hotkey)
        )
        return None if found is None else found.data.decode(errors="replace")

    def commit(self, hotkey: str, text: str) -> None:
        data, signer = commitment_bytes(hotkey, text), self._signer(hotkey, CommitmentRefused)
        what = f"the commitment of {hotkey}"
        failure = self._submitted(what, lambda s: submit_commitment(s, self.netuid, data, signer))
        if failure is None:
            return
        name, message = failure
        if name not in UNSETTLED:
            raise CommitmentRefused(f"The chain refused {what}: {name}: {message}")
        if self.commitment(hotkey) != text:
            raise SubmissionLost(f"{message} The chain does not hold {what} so far; commit again.")

    def set_weights(self, hotkey: str, weights: Mapping[str, float]) -> None:
        signer, rules = self._signer(hotkey, WeightsRefused), self.rules()
        given = weights_by_uid(hotkey, weights, self.metagraph(), rules)
        if len(given) > 1 and max(given.values()) / sum(given.values()) > rules.max_share:
            self._heads.note(
                "WeightsClipped",
                f"the subnet allows no share above {rules.max_share:.4f} (MaxWeightsLimit); what "
                "exceeded it went to the others",
            )
        version = rules.version_key if self._weights_version is None else self._weights_version
        before, what = self.block(), f"the weights of {hotkey}"
        failure = self._submitted(
            what, lambda s: submit_weights(s, self.netuid, given, version, signer)
        )
        if failure is None:
            return
        name, message = failure
        if name not in UNSETTLED:
            raise WeightsRefused(f"The chain refused {what}: {name}: {message}")
        last = self.weights(hotkey)
        if last is None or last.block < before:
            raise SubmissionLost(
                f"{message} The chain does not hold {what} so far. They are weighed and sent again "
                "only when it still does not."
            )

    def weights(self, hotkey: str) -> SetWeights | None:
        return self._connection.ask(
            f"the weights of {hotkey}", lambda s: read_weights(s, self.netuid, hotkey)
        )

    def _submitted(
        self, what: str, work: Callable[[Session], Awaitable[bt.ExtrinsicResult]]
    ) -> tuple[str | None, str] | None:
        """None when the chain took it; else the failure's name, if it has one, and its text."""
        try:
            result = self._connection.submit(what, work, timeout=self._submit_timeout)
        except ChainSilent as error:
            return None, str(error)
        return None if result.success else (name_of(result), result.message)

    def _signer(self, hotkey: str, refusal: type[ChainError]) -> HotkeySigner:
        if self._wallet is None or self._wallet.hotkey != hotkey:
            held = "none" if self._wallet is None else self._wallet.hotkey
            raise refusal(
                f"Only {hotkey} itself can sign this, and the wallet's hotkey here is {held}."
            )
        return HotkeySigner(self._wallet)
