"""A chain for tests: blocks with hashes and times, a subnet's storage, signed extrinsics.

Everything a node would be asked for is real SCALE under the recorded metadata; what the runtime
would compute is set from outside.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bittensor._generated.errors import ERRORS
from bittensor_core import Keypair

from tests.resources.substrate_metadata import GENESIS, codec

BLOCK_SECONDS = 12.0
FINALITY_LAG = 3


@dataclass(frozen=True)
class Block:
    """One block, with the state after it."""

    number: int
    hash: str
    parent: str
    state: Mapping[str, str]
    extrinsics: tuple[str, ...] = ()


@dataclass
class Submission:
    """An extrinsic as the node took it."""

    signer: str
    function: str
    arguments: dict[str, Any]


@dataclass
class Subnet:
    """The subnet the chain begins with: hotkeys by uid."""

    netuid: int = 81
    hotkeys: Sequence[str] = ()
    storage: Mapping[str, Any] = field(default_factory=dict)


class SubstrateState:
    """A chain whose first block in memory is `height`; earlier ones have a hash and its state.

    swallow: extrinsics are taken and never included.
    time: unix seconds of block `height`; later blocks follow it every 12 s unless told otherwise.
    """

    def __init__(self, subnet: Subnet, *, height: int = 5_000_040, time: float = 1.79e9) -> None:
        self.lock = threading.RLock()
        self.netuid = subnet.netuid
        self.submissions: list[Submission] = []
        self.fail_next: str | None = None
        self.refuse_next: dict[str, Any] | None = None
        self.finality_lag = FINALITY_LAG
        self.discarded_below = 0
        self.genesis = GENESIS
        self.swallow = False
        self._fork = 0
        self._start, self._time = height, time
        self._genesis_time = time - height * BLOCK_SECONDS
        self._state: dict[str, str] = {}
        self._nonces: dict[str, int] = {}
        self._pool: list[str] = []
        self._put_subnet(subnet)
        self._put("Timestamp", "Now", [], round(time * 1000))
        self._blocks: dict[int, Block] = {}
        self._abandoned: dict[str, Block] = {}
        first = Block(height, self._hash(height), self._hash(height - 1), dict(self._state))
        self._blocks[height] = first

    # What tests do with it

    @property
    def time(self) -> float:
        """When the newest block was made, unix seconds."""
        return self._time

    @property
    def height(self) -> int:
        return max(self._blocks)

    @property
    def finalized(self) -> int:
        return max(self._start, self.height - self.finality_lag)

    def advance(self, blocks: int = 1, seconds: float = BLOCK_SECONDS) -> int:
        """Produce blocks; the first takes what waits in the pool. Returns the new height."""
        with self.lock:
            for _ in range(blocks):
                self._time += seconds
                self._produce()
            return self.height

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by others with the same numbers, times and transactions."""
        assert self.height - depth >= self.finalized, "finalized blocks stay"
        with self.lock:
            self._fork += 1
            for number in range(self.height - depth + 1, self.height + 1):
                old = self._blocks[number]
                self._abandoned[old.hash] = old
                parent = self._at(number - 1).hash
                self._blocks[number] = Block(
                    number, self._hash(number), parent, old.state, old.extrinsics
                )

    def put(self, item: str, params: Sequence[Any], value: Any, pallet: str = "") -> None:
        """Set storage of `SubtensorModule`, or of another pallet, as of the newest block."""
        with self.lock:
            self._put(pallet or "SubtensorModule", item, params, value)
            newest = self._blocks[self.height]
            self._blocks[self.height] = Block(
                newest.number, newest.hash, newest.parent, dict(self._state), newest.extrinsics
            )

    def commit(self, hotkey: str, data: bytes) -> None:
        """A commitment as another machine with this hotkey would make it."""
        field = {f"Raw{len(data)}": "0x" + data.hex()}
        value = {"deposit": 0, "block": self.height, "info": {"fields": [[field]]}}
        self.put("CommitmentOf", [self.netuid, hotkey], value, "Commitments")

    def drop(self, item: str, params: Sequence[Any]) -> None:
        """Remove a key, as if it had never been written."""
        with self.lock:
            self._state.pop(self._key("SubtensorModule", item, params), None)
            self.put("Tempo", [self.netuid], 360)

    # What the node asks

    def at(self, block_hash: str | None) -> Block | None:
        """A block of the best chain or of one given up, newest for None."""
        with self.lock:
            if block_hash is None:
                return self._blocks[self.height]
            for block in reversed(self._blocks.values()):
                if block.hash == block_hash:
                    return block
            return self._abandoned.get(block_hash) or self._old(block_hash)

    def hash_at(self, number: int) -> str | None:
        with self.lock:
            if not 0 <= number <= self.height:
                return None
            return self._at(number).hash

    def nonce(self, address: str) -> int:
        return self._nonces.get(address, 0)

    def submit(self, extrinsic: str) -> None:
        """Into the pool. Raises ValueError for a signature or nonce a node would refuse."""
        decoded = codec().decode_extrinsic(extrinsic)
        if decoded["nonce"] != self.nonce(decoded["address"]):
            raise ValueError("Transaction is outdated")
        if not self._signed(decoded):
            raise ValueError("Transaction has a bad signature")
        with self.lock:
            if not self.swallow:
                self._pool.append(extrinsic)

    # Inside

    def _signed(self, extrinsic: dict[str, Any]) -> bool:
        """Whether the signature covers this call, era and nonce on this chain."""
        call, era = extrinsic["call"], extrinsic["era"]
        arguments = {argument["name"]: argument["value"] for argument in call["call_args"]}
        birth = 0
        if era != "00":
            period, phase = era
            birth = (self.finalized - phase) // period * period + phase
            era = {"period": period, "phase": phase}
        payload = codec().signature_payload(
            codec().compose_call(call["call_module"], call["call_function"], arguments),
            era=era,
            nonce=extrinsic["nonce"],
            tip=extrinsic["tip"],
            tip_asset_id=None,
            genesis_hash=GENESIS,
            era_block_hash=self._at(birth).hash,
        )
        (signature,) = extrinsic["signature"].values()
        public = Keypair(ss58_address=extrinsic["address"])
        return bool(public.verify(payload, bytes.fromhex(signature[2:])))

    def _produce(self) -> None:
        number = self.height + 1
        self._put("Timestamp", "Now", [], round(self._time * 1000))
        self._put("System", "Number", [], number)
        extrinsics = (self._inherent(), *self._pool)
        self._pool.clear()
        events = [self._apply(i, data) for i, data in enumerate(extrinsics) if i > 0]
        self._put("System", "Events", [], events)
        parent = self._blocks[self.height].hash
        self._blocks[number] = Block(
            number, self._hash(number), parent, dict(self._state), extrinsics
        )

    def _inherent(self) -> str:
        """The unsigned extrinsic by which a block says its time."""
        call = codec().compose_call("Timestamp", "set", {"now": round(self._time * 1000)})
        body = b"\x04" + call.data
        return "0x" + (codec().encode_compact(len(body)) + body).hex()

    def _apply(self, index: int, extrinsic: str) -> dict[str, Any]:
        decoded = codec().decode_extrinsic(extrinsic)
        signer, call = decoded["address"], decoded["call"]
        self._nonces[signer] = self.nonce(signer) + 1
        arguments = {argument["name"]: argument["value"] for argument in call["call_args"]}
        information = {
            "weight": {"ref_time": 1, "proof_size": 1},
            "class": "Normal",
            "pays_fee": "No",
        }
        if self.fail_next is not None:
            pallet, error = next(k for k, v in ERRORS.items() if v.name == self.fail_next)
            self.fail_next = None
            module = {"index": pallet, "error": f"0x{error:02x}000000"}
            event = {
                "ExtrinsicFailed": {
                    "dispatch_error": {"Module": module},
                    "dispatch_info": information,
                }
            }
        else:
            self._take(signer, call["call_function"], arguments)
            event = {"ExtrinsicSuccess": {"dispatch_info": information}}
        return {"phase": {"ApplyExtrinsic": index}, "event": {"System": event}, "topics": []}

    def _take(self, signer: str, function: str, arguments: dict[str, Any]) -> None:
        self.submissions.append(Submission(signer, function, arguments))
        number, netuid = self.height + 1, self.netuid
        match function:
            case "set_commitment":
                value = {"deposit": 0, "block": number, "info": arguments["info"]}
                self._put("Commitments", "CommitmentOf", [netuid, signer], value)
            case "set_mechanism_weights":
                row = list(zip(arguments["dests"], arguments["weights"], strict=True))
                self._put("SubtensorModule", "Weights", [netuid, self._uid(signer)], row)
                self._updated(signer, number)
            case "commit_timelocked_mechanism_weights":
                commit = (signer, number, arguments["commit"], arguments["reveal_round"])
                self._put("SubtensorModule", "TimelockedWeightCommits", [netuid, 1], [commit])
                self._updated(signer, number)

    def _updated(self, hotkey: str, number: int) -> None:
        updates = list(self._get("SubtensorModule", "LastUpdate", [self.netuid]))
        updates[self._uid(hotkey)] = number
        self._put("SubtensorModule", "LastUpdate", [self.netuid], updates)

    def _uid(self, hotkey: str) -> int:
        return int(self._get("SubtensorModule", "Uids", [self.netuid, hotkey]))

    def _put_subnet(self, subnet: Subnet) -> None:
        netuid, hotkeys = subnet.netuid, subnet.hotkeys
        put = lambda item, params, value: self._put("SubtensorModule", item, params, value)  # noqa: E731
        put("NetworksAdded", [netuid], True)
        put("SubnetworkN", [netuid], len(hotkeys))
        put("SubnetEpochConsensus", [netuid], 0)
        put("LastUpdate", [netuid], [self._start] * len(hotkeys))
        put("ValidatorPermit", [netuid], [True] * len(hotkeys))
        for uid, hotkey in enumerate(hotkeys):
            put("Keys", [netuid, uid], hotkey)
            put("Uids", [netuid, hotkey], uid)
            put("BlockAtRegistration", [netuid, uid], self._start - 1000 + uid)
        settings = {
            "Tempo": 360,
            "WeightsSetRateLimit": 0,
            "MinAllowedWeights": 1,
            "MaxWeightsLimit": 65535,
            "CommitRevealWeightsEnabled": False,
            "WeightsVersionKey": 0,
            "RevealPeriodEpochs": 1,
            "LastEpochBlock": self._start - 10,
        }
        for item, value in {**settings, **subnet.storage}.items():
            put(item, [netuid], value)

    def _key(self, pallet: str, item: str, params: Sequence[Any]) -> str:
        return "0x" + codec().storage_key(codec().storage_entry(pallet, item), list(params)).hex()

    def _put(self, pallet: str, item: str, params: Sequence[Any], value: Any) -> None:
        entry = codec().storage_entry(pallet, item)
        self._state[self._key(pallet, item, params)] = (
            "0x" + codec().encode(entry.value_type, value).hex()
        )

    def _get(self, pallet: str, item: str, params: Sequence[Any]) -> Any:
        raw = self._state[self._key(pallet, item, params)]
        return codec().decode(
            codec().storage_entry(pallet, item).value_type, bytes.fromhex(raw[2:])
        )

    def _at(self, number: int) -> Block:
        if number >= self._start:
            return self._blocks[number]
        now = self._time_before(number)
        return Block(number, self._hash(number), self._hash(max(0, number - 1)), now)

    def _old(self, block_hash: str) -> Block | None:
        for number in range(self._start - 1, max(0, self._start - 700), -1):
            if self._hash(number) == block_hash:
                return self._at(number)
        return self._at(0) if block_hash == GENESIS else None

    def _time_before(self, number: int) -> dict[str, str]:
        first = self._blocks[self._start].state
        stamp = codec().encode("u64", round((self._genesis_time + number * BLOCK_SECONDS) * 1000))
        return {**first, self._key("Timestamp", "Now", []): "0x" + stamp.hex()}

    def _hash(self, number: int) -> str:
        if number == 0:
            return self.genesis
        fork = self._fork if number > self._start else 0
        return "0x" + hashlib.sha256(f"{number}/{fork}".encode()).hexdigest()


def hotkey_of(uri: str) -> str:
    """The SS58 address of a development key."""
    return str(Keypair.create_from_uri(uri).ss58_address)
