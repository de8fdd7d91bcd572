"""What a Bittensor chain is asked, and the checks that an answer is its state.

Storage that is not there and a read that failed look alike in the client: both come back as a
default. So every reader says what must be true of its answer and raises when it is not.
"""

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bittensor as bt

from windrow.engine.fleet.membership import Membership
from windrow.resources.bittensor.connection import Session
from windrow.resources.chain import EmptySubnet, SetWeights

_HASH = re.compile(r"0x[0-9a-f]{64}")
_COMMITMENTS = ("Commitments", "CommitmentOf")
_U16 = 65535


@dataclass(frozen=True)
class Head:
    """The newest block of an endpoint's best chain; timestamp in unix seconds."""

    number: int
    hash: str
    timestamp: float


@dataclass(frozen=True)
class Neuron:
    """One place on a subnet. registered_at: block of its registration."""

    uid: int
    hotkey: str
    registered_at: int


@dataclass(frozen=True)
class Metagraph:
    """The neurons of a subnet as of one block, by uid."""

    block: int
    neurons: tuple[Neuron, ...]

    @property
    def hotkeys(self) -> list[str]:
        return [neuron.hotkey for neuron in self.neurons]


@dataclass(frozen=True)
class Commitment:
    """A hotkey's one raw field and the block it was committed in (grail-validation §17.2)."""

    data: bytes
    block: int


@dataclass(frozen=True)
class WeightRules:
    """What a subnet demands of weights (its hyperparameters)."""

    version_key: int
    rate_limit: int
    min_weights: int
    max_share: float
    commit_reveal: bool
    tempo: int


async def read_number(session: Session) -> int:
    return int(await session.substrate.block_number())


async def read_head(session: Session) -> Head:
    number = await read_number(session)
    block_hash = await read_hash(session, number)
    return Head(number, block_hash, await read_timestamp(session, number))


async def read_hash(session: Session, block: int) -> str:
    """Of the best chain. The client keeps hashes of finalized blocks only."""
    block_hash = await session.substrate.block_hash(block)
    if not isinstance(block_hash, str) or not _HASH.fullmatch(block_hash):
        raise ValueError(f"the hash of block {block} is {block_hash!r}")
    return block_hash


async def read_timestamp(session: Session, block: int) -> float:
    """From the timestamp pallet; where its state is pruned, from the block's own extrinsic."""
    try:
        milliseconds = await session.client.query(("Timestamp", "Now"), block=block)
    except bt.ChainError:
        information = await session.client.block_info(block)
        milliseconds = information.timestamp.timestamp() * 1000 if information else 0
    if not milliseconds:
        raise ValueError(f"block {block} has no timestamp")
    return float(milliseconds) / 1000.0


async def read_metagraph(session: Session, netuid: int) -> Metagraph:
    """Raises EmptySubnet; ValueError when a part of the subnet is missing from the answer."""
    at = await session.substrate.block_hash(number := await read_number(session))
    await _require_subnet(session, netuid, at)
    count, keys, registered = await asyncio.gather(
        _value(session, "SubnetworkN", [netuid], at),
        _map(session, "Keys", netuid, at),
        _map(session, "BlockAtRegistration", netuid, at),
    )
    if count == 0 and not keys:
        raise EmptySubnet(
            f"Subnet {netuid} has no neurons at block {number} of {session.url}. NETUID or "
            "BT_NETWORK is another one than the network's."
        )
    by_uid, since = dict(keys), dict(registered)
    if sorted(by_uid) != list(range(int(count))):
        raise ValueError(f"{len(by_uid)} of the {count} neurons of subnet {netuid} came back")
    neurons = (Neuron(uid, str(by_uid[uid]), int(since.get(uid, 0))) for uid in range(int(count)))
    return Metagraph(number, tuple(neurons))


async def read_uid(session: Session, netuid: int, hotkey: str) -> int | None:
    """Raises EmptySubnet where there is no such subnet: nobody is registered on it."""
    await _require_subnet(session, netuid, None)
    uid = await _value(session, "Uids", [netuid, hotkey])
    return None if uid is None else int(uid)


async def read_membership(session: Session, netuid: int, hotkey: str) -> Membership:
    """What a subnet says of a hotkey, of its coldkey's others and of its axon, as of one block.

    Raises EmptySubnet where there is no such subnet.
    """
    at = await session.substrate.block_hash(await read_number(session))
    await _require_subnet(session, netuid, at)
    uid, owner, axon, incentives, keys = await asyncio.gather(
        _value(session, "Uids", [netuid, hotkey], at),
        _value(session, "Owner", [hotkey], at),
        _value(session, "Axons", [netuid, hotkey], at),
        _value(session, "Incentive", [netuid], at),
        _map(session, "Keys", netuid, at),
    )
    owned = set(await _value(session, "OwnedHotkeys", [owner], at) or ())
    if uid is not None:
        owned.add(hotkey)
    shares = [int(share) for share in incentives or ()]
    earned = shares[uid] / _U16 if uid is not None and uid < len(shares) else 0.0
    siblings = sum(str(key) in owned for _, key in keys)
    return Membership(netuid, uid, siblings, _announced(axon), earned)


def _announced(axon: Mapping[str, Any] | None) -> str | None:
    """Where an axon is announced; one at no address or port is taken back (chutes §12.11)."""
    if axon is None or not int(axon["ip"]) or not int(axon["port"]):
        return None
    return f"{ipaddress.ip_address(int(axon['ip']))}:{int(axon['port'])}"


async def read_commitment(session: Session, netuid: int, hotkey: str) -> Commitment | None:
    record = await session.client.query(_COMMITMENTS, [netuid, hotkey])
    return None if record is None else commitment_of(record)


async def read_commitments(session: Session, netuid: int) -> dict[str, Commitment]:
    """By hotkey; entries of another shape are left out. Raises EmptySubnet when there are none.

    A network whose trainer has committed no bucket cannot run, so none is a failed read.
    """
    found = await session.client.query_map(_COMMITMENTS, [netuid])
    if not found:
        raise EmptySubnet(
            f"{session.url} knows no commitment on subnet {netuid}, where the trainer's bucket is "
            "committed at least. NETUID or BT_NETWORK is another one than the network's."
        )
    decoded = {str(hotkey): commitment_of(record) for hotkey, record in found}
    return {hotkey: commitment for hotkey, commitment in decoded.items() if commitment}


async def read_rules(session: Session, netuid: int) -> WeightRules:
    version, rate, least, most, hidden, tempo = await asyncio.gather(
        *(
            _value(session, item, [netuid])
            for item in (
                "WeightsVersionKey",
                "WeightsSetRateLimit",
                "MinAllowedWeights",
                "MaxWeightsLimit",
                "CommitRevealWeightsEnabled",
                "Tempo",
            )
        )
    )
    return WeightRules(
        int(version), int(rate), int(least), int(most) / _U16, bool(hidden), int(tempo)
    )


async def read_weights(session: Session, netuid: int, hotkey: str) -> SetWeights | None:
    """What a hotkey last set. A hidden commit counts by its block; its weights are the ones before.

    LastUpdate alone does not tell: a registration moves it too.
    """
    uid = await read_uid(session, netuid, hotkey)
    if uid is None:
        return None
    updates, row, commits, keys = await asyncio.gather(
        _value(session, "LastUpdate", [netuid]),
        _value(session, "Weights", [netuid, uid]),
        _map(session, "TimelockedWeightCommits", netuid),
        _map(session, "Keys", netuid),
    )
    blocks = [int(commit[1]) for _, epoch in commits for commit in epoch if commit[0] == hotkey]
    total = sum(int(value) for _, value in row)
    if total:
        blocks.append(int(updates[uid]))
    if not blocks:
        return None
    hotkeys = {int(number): str(owner) for number, owner in keys}
    weights = {hotkeys[int(to)]: int(value) / total for to, value in row if int(to) in hotkeys}
    return SetWeights(max(blocks), weights)


def commitment_of(record: Mapping[str, Any]) -> Commitment | None:
    """The bytes of a record's first field where that is a raw one."""
    match record:
        case {"block": int(block), "info": {"fields": [*fields]}} if fields:
            pass
        case _:
            return None
    field = fields[0][0] if isinstance(fields[0], list | tuple) and fields[0] else fields[0]
    match field:
        case {**variants} if len(variants) == 1:
            (name, value), *_ = variants.items()
        case _:
            return None
    if not str(name).startswith("Raw") or not isinstance(value, str):
        return None
    text = value.removeprefix("0x")
    return Commitment(bytes.fromhex(text), block)


async def _require_subnet(session: Session, netuid: int, at: str | None) -> None:
    added = await _value(session, "NetworksAdded", [netuid], at)
    if added is not True:
        raise EmptySubnet(
            f"There is no subnet {netuid} on the chain at {session.url}. Check NETUID and "
            "BT_NETWORK."
        )


async def _value(session: Session, item: str, params: list[Any], at: str | None = None) -> Any:
    return await session.substrate.query("SubtensorModule", item, params, block_hash=at)


async def _map(
    session: Session, item: str, netuid: int, at: str | None = None
) -> list[tuple[Any, Any]]:
    return await session.substrate.query_map("SubtensorModule", item, [netuid], block_hash=at)
