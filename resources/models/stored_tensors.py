"""Where each tensor of a safetensors file lies, to read and overwrite its bytes in place."""

import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import safe_open

from windrow.networks.grail.delta import ValueType

FLOAT_TYPES: Final[Mapping[str, ValueType]] = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in its file. dtype: as safetensors names it; start, stop: bytes of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file. Raises SafetensorError for a damaged file."""
    # The library's own checks come first: pieces in bounds, without gaps, of the right size.
    with safe_open(path, framework="np"):
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = _LENGTH_BYTES + length
    return {
        name: StoredTensor(
            path,
            entry["dtype"],
            tuple(entry["shape"]),
            data + entry["data_offsets"][0],
            data + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }


class TensorBytes(Mapping[str, memoryview]):
    """Raw bytes of stored tensors by name, mapped from their files rather than read."""

    def __init__(self, tensors: Mapping[str, StoredTensor], files: Mapping[Path, memoryview]):
        self._tensors = tensors
        self._files = files

    def __getitem__(self, name: str) -> memoryview:
        tensor = self._tensors[name]
        return self._files[tensor.path][tensor.start : tensor.stop]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@contextmanager
def mapped(tensors: Mapping[str, StoredTensor], *, writable: bool = False) -> Iterator[TensorBytes]:
    """The bytes of stored tensors; with writable, changes to them are on disk when it ends."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    files: dict[Path, memoryview] = {}
    maps = []
    try:
        for path in {tensor.path for tensor in tensors.values()}:
            with path.open("r+b" if writable else "rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=access))
            files[path] = memoryview(maps[-1])
        yield TensorBytes(tensors, files)
        for each in maps if writable else []:
            each.flush()
    finally:
        # Not closed: whoever still holds some of the bytes keeps the map alive.
        files.clear()
