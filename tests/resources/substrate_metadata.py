"""The metadata a test node serves: Subtensor's runtime 461 as recorded, and what later ones add.

`recorded/subtensor_461_metadata_v15.scale.xz` is the V15 metadata in the recorded answers that
bittensor 11.3.0's source distribution ships for its own tests (Apache-2.0).
"""

import lzma
from functools import cache
from pathlib import Path

from bittensor._transport.codec import RuntimeCodec

SPEC_NAME = "node-subtensor"
SPEC_VERSION = 461
TRANSACTION_VERSION = 1
GENESIS = "0x1dc00e76a13fc48b9c932e076622c5920295afaad4fd805c284a5cf3222ce452"

_RECORDED = Path(__file__).parent / "recorded" / "subtensor_461_metadata_v15.scale.xz"
_PALLET = "SubtensorModule"
# SetWeights of SDK 11.3 asks for this one; absent, a subnet's consensus is Yuma. Its real type is
# an enum; this runtime's registry has none such, so it is kept as the number the SDK also accepts.
_ADDED = "SubnetEpochConsensus"
_LIKE = "SubnetworkN"


@cache
def metadata() -> bytes:
    """`MetadataVersioned` bytes."""
    data = lzma.decompress(_RECORDED.read_bytes())
    storage = _text(_PALLET) + b"\x01" + _text(_PALLET)
    start = data.index(storage) + len(storage)
    count, after = _compact(data, start)
    entry = data.index(_text(_LIKE) + b"\x01\x01", after)
    body = entry + len(_text(_LIKE))
    added = _text(_ADDED) + data[body : _entry_end(data, body)]
    return data[:start] + _compact_bytes(count + 1) + added + data[after:]


@cache
def codec() -> RuntimeCodec:
    """Encodes and decodes what the node stores and is sent."""
    return RuntimeCodec(
        metadata(),
        spec_version=SPEC_VERSION,
        transaction_version=TRANSACTION_VERSION,
        spec_name=SPEC_NAME,
    )


def opaque_metadata() -> str:
    """The answer to `Metadata_metadata_at_version`: an optional byte string, hex."""
    data = metadata()
    return "0x01" + (_compact_bytes(len(data)) + data).hex()


def _entry_end(data: bytes, offset: int) -> int:
    """Where a map's storage entry ends: modifier, hashers, key, value, default, docs."""
    hashers, offset = _compact(data, offset + 2)
    offset += hashers
    for _ in ("key", "value"):
        _, offset = _compact(data, offset)
    size, offset = _compact(data, offset)
    lines, offset = _compact(data, offset + size)
    for _ in range(lines):
        size, offset = _compact(data, offset)
        offset += size
    return offset


def _text(text: str) -> bytes:
    return _compact_bytes(len(text)) + text.encode()


def _compact(data: bytes, offset: int) -> tuple[int, int]:
    """A SCALE compact number, and the offset after it."""
    size = (1, 2, 4)[data[offset] & 3]
    return int.from_bytes(data[offset : offset + size], "little") >> 2, offset + size


def _compact_bytes(number: int) -> bytes:
    for size, mode in ((1, 0), (2, 1), (4, 2)):
        if number < 1 << (8 * size - 2):
            return (number << 2 | mode).to_bytes(size, "little")
    raise ValueError(number)
