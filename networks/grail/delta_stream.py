"""A delta's zstd frame: inflated piece by piece up to a bound, never trusted for its size."""

from collections.abc import Iterator
from typing import BinaryIO, Final

import zstandard

from windrow.networks.grail.delta import MalformedDelta

LEVEL: Final = 1
MAX_WINDOW_BYTES: Final = 128 * 1024 * 1024
PIECE_BYTES: Final = 8 * 1024 * 1024
_FRAME_HEADER_BYTES: Final = 18


def compress(payload: bytes) -> bytes:
    """One frame that names its size, as the network writes it (grail-validation §20)."""
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(payload)


def inflate(source: BinaryIO, limit: int) -> Iterator[bytes]:
    """The content of a frame in pieces of at most 8 MiB; an empty source has none.

    source: at the frame's first byte, seekable. Raises MalformedDelta for a damaged or truncated
    frame, one that does not name its size, or one larger than ``limit`` bytes, before any of it
    is inflated.
    """
    head = source.read(_FRAME_HEADER_BYTES)
    source.seek(-len(head), 1)
    if not head:
        return
    try:
        size = zstandard.frame_content_size(head)
        if size < 0:
            raise MalformedDelta("the zstd frame of a delta does not name its size; it is refused")
        if size > limit:
            raise MalformedDelta(
                f"a delta inflates to {size} bytes, but at most {limit} can be honest here"
            )
        total = 0
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        with decompressor.stream_reader(source, closefd=False) as reader:
            while piece := reader.read(min(PIECE_BYTES, size - total + 1)):
                total += len(piece)
                if total > size:
                    break
                yield piece
    except zstandard.ZstdError as error:
        raise MalformedDelta(f"a delta is no sound zstd frame: {error}") from error
    if total != size:
        raise MalformedDelta(
            f"the zstd frame of a delta names {size} bytes but holds {total}; it was cut short"
        )
