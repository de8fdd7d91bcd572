"""Philox4x32-10: random bytes that any machine makes alike from a key, at any place (Random123).

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. A block of 16 bytes is a
function of the key and of the block's number, so any rows of a matrix are made without the rest.
The state lies in two 64-bit words, each a product of the last round: the half that the next round
multiplies is the upper one, and the lower one is moved up with one shift.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK_BYTES: Final = 16

_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10
_LOW: Final = 0xFFFFFFFF
_CHUNK: Final = 16384
"""Blocks at once on a CPU: four words of each stay in its second-level cache."""

Key = tuple[int, int]


def philox_words(key: Key, first: int, count: int) -> NDArray[np.uint32]:
    """Blocks `first` to `first + count` as uint32 [count, 4]. key: two 32-bit words."""
    blocks = np.empty((count, 4), np.uint32)
    size = min(_CHUNK, count)
    spaces = [np.empty(size, np.uint64) for _ in range(4)]
    schedule = [(np.uint64(one), np.uint64(two)) for one, two in _round_keys(key)]
    one, two, up = *map(np.uint64, _MULTIPLIERS), np.uint64(32)
    for start in range(0, count, _CHUNK):
        width = min(_CHUNK, count - start)
        x, y, p, q = (space[:width] for space in spaces)
        number = np.arange(first + start, first + start + width, dtype=np.uint64)
        np.bitwise_or(number << up, number >> up, out=x)
        y.fill(0)
        for key_x, key_y in schedule:
            np.multiply(np.right_shift(y, up, out=p), two, out=p)
            np.multiply(np.right_shift(x, up, out=q), one, out=q)
            _mix(x, key_x, p)
            _mix(y, key_y, q)
        block = blocks[start : start + width]
        for place, word in ((0, x), (2, y)):
            halves = word.astype("<u8", copy=False).view("<u4").reshape(-1, 2)
            block[:, place], block[:, place + 1] = halves[:, 1], halves[:, 0]
    return blocks


def philox_bytes(key: Key, first: int, count: int) -> NDArray[np.int8]:
    """The same blocks as signed bytes, int8 [16 * count]."""
    return philox_words(key, first, count).astype("<u4", copy=False).reshape(-1).view(np.int8)


def philox_bytes_on(key: Key, first: int, count: int, device: torch.device) -> Tensor:
    """The same bytes made on a device, int8 [16 * count]."""
    if device.type == "cpu":
        return torch.from_numpy(philox_bytes(key, first, count))
    return _by_torch(key, first, count, device)


def _by_torch(key: Key, first: int, count: int, device: torch.device) -> Tensor:
    number = torch.arange(first, first + count, dtype=torch.int64, device=device)
    x, y = (number << 32) | (number >> 32), torch.zeros_like(number)
    for key_x, key_y in _round_keys(key):
        p = ((y >> 32) & _LOW) * _MULTIPLIERS[1]
        q = ((x >> 32) & _LOW) * _MULTIPLIERS[0]
        x = (x << 32).bitwise_xor_(p).bitwise_xor_(_signed(key_x))
        y = (y << 32).bitwise_xor_(q).bitwise_xor_(_signed(key_y))
    halves = torch.stack((x, y), dim=1).view(torch.int32).reshape(-1, 2)
    return halves.flip(1).contiguous().view(torch.int8).reshape(-1)


def _mix(state: NDArray[np.uint64], key: np.uint64, product: NDArray[np.uint64]) -> None:
    np.left_shift(state, np.uint64(32), out=state)
    np.bitwise_xor(state, key, out=state)
    np.bitwise_xor(state, product, out=state)


def _round_keys(key: Key) -> list[tuple[int, int]]:
    """Each round's key words, where they meet the state: in the upper halves."""
    return [
        (((key[0] + step * _WEYL[0]) & _LOW) << 32, ((key[1] + step * _WEYL[1]) & _LOW) << 32)
        for step in range(_ROUNDS)
    ]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
