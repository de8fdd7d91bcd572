"""Digests of the commits in a window file, which order its groups for sampling (§6).

The network hashes each commit as compact JSON with sorted keys. That text is put together from
the columns, so that no position becomes an object of its own.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from windrow.networks.grail.columns import ListColumn, RolloutColumns
from windrow.networks.grail.commitments import IrregularJson
from windrow.networks.grail.foreign_types import ForeignRow
from windrow.networks.grail.sampling import sampled_rows
from windrow.networks.grail.window_schema import IrregularText

_ROLLOUT_BEFORE_LOGPROBS: Final = ("advantage", "completion_length", "prompt_length", "success")


class CommitDigests:
    """SHA-256 of every row's commit as the network renders it (`sampling.commit_digest`)."""

    def __init__(
        self,
        columns: RolloutColumns,
        irregular: Sequence[IrregularText],
        foreign: Sequence[ForeignRow] = (),
    ) -> None:
        """columns, irregular, foreign: of the whole file."""
        self._columns = columns
        self._foreign = {told.row: told.digest for told in foreign}
        self._irregular = {(text.row, text.column): text.json for text in irregular}

    def __call__(self, row: int) -> bytes:
        """The row's digest, 32 bytes. Raises CommitmentsError where a text is not JSON."""
        return self._foreign.get(row) or hashlib.sha256(self.text(row)).digest()

    def text(self, row: int) -> bytes:
        """The row's commit as compact JSON with sorted keys (§6)."""
        value = self._value
        model = {"layer_index": value("layer_index", row), "name": value("model_name", row)}
        rollout = {name: value(name, row) for name in _ROLLOUT_BEFORE_LOGPROBS}
        rollout |= {
            "token_logprobs": _list(self._columns.logprobs, row),
            "total_reward": value("total_reward", row),
        }
        parts = {
            "beacon": self._beacon(row),
            "commitments": self._commitments(row),
            "model": _compact(model),
            "proof_version": _compact(value("proof_version", row)),
            "rollout": _compact(rollout),
            "signature": _compact(value("commit_signature", row)),
            "tokens": _compact(_list(self._columns.tokens, row)),
        }
        return b"{" + b",".join(b'"%s":%s' % (k.encode(), v) for k, v in parts.items()) + b"}"

    def _beacon(self, row: int) -> bytes:
        irregular = self._irregular.get((row, "beacon_randomness"))
        if irregular is not None:
            return irregular.compact()
        randomness = self._value("beacon_randomness", row)
        return _compact({} if randomness is None else {"randomness": randomness})

    def _commitments(self, row: int) -> bytes:
        irregular: IrregularJson | None = self._irregular.get((row, "sketches"))
        if irregular is not None:
            return irregular.compact()
        (text,) = self._columns.compact_commitments([row])
        return text

    def _value(self, name: str, row: int) -> Any:
        return self._arrays[name][row].as_py()

    @cached_property
    def _arrays(self) -> dict[str, pa.Array]:
        names = set(self._columns.table.column_names) - {"sketches", "commitments"}
        return {name: self._columns.column(name) for name in names}


def file_sample(
    columns: RolloutColumns,
    irregular: Sequence[IrregularText],
    foreign: Sequence[ForeignRow],
    hotkey: str,
    randomness: str,
) -> list[int]:
    """The rows a validator checks, ascending (§6). randomness: R_v.

    Raises CommitmentsError where a text that is not JSON has to be rendered; the network has no
    such file (§3.5).
    """
    groups = columns.column("rollout_group").to_numpy(zero_copy_only=False).astype(np.int64)
    rows = sampled_rows(groups, CommitDigests(columns, irregular, foreign), hotkey, randomness)
    return [int(row) for row in rows]


def _list(column: ListColumn, row: int) -> list[Any] | None:
    """A row's values as JSON knows them; float32 is widened to a double."""
    if not column.valid[row]:
        return None
    start = column.starts[row]
    missing = column.missing[start : start + column.lengths[row]]
    values: list[Any] = column.row(row).tolist()
    if missing.any():
        return [None if gap else value for value, gap in zip(values, missing, strict=True)]
    return values


def _compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
