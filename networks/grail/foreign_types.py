"""Window files whose columns have other types than the protocol's, read as the network reads them.

The network gives its reader no schema: rows become Python objects, and each rule takes what it
finds (grail-validation §27). So another number type or a column that no rule uses makes no
difference, and a used column that is missing fails the rules that use it. Here such a batch becomes
one of WIRE_SCHEMA, with what only the objects showed beside it. Where it is not known what a rule
makes of a type, the file is left unjudged: that is a limit of this reader, not the network's word.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow.networks.grail.validation.schema import schema_errors
from windrow.networks.grail.window_guards import (
    MAX_ROW_VALUES,
    OversizedWindowFile,
    UnknownWindowFile,
    leaf_types,
    wire_form,
)
from windrow.networks.grail.window_schema import WIRE_SCHEMA

_INT64: Final = range(-(2**63), 2**63)
_INT32: Final = range(-(2**31), 2**31)
_NO_TOKEN: Final = -1
"""Stands for a number that no vocabulary has."""


@dataclass(frozen=True)
class ForeignRow:
    """What the columns of a row do not say of it.

    row: within the file. digest: SHA-256 of the commit as the network renders it (§6), 32 bytes.
    schema_faults: dotted paths that C1 refuses. whole_tokens: False where C2 refuses the tokens
    because they are not integers.
    """

    row: int
    digest: bytes
    schema_faults: tuple[str, ...]
    whole_tokens: bool


def is_foreign(schema: pa.Schema) -> bool:
    """Whether a file's columns are other than the protocol's.

    Raises UnknownWindowFile where one name stands for several columns.
    """
    pending = [list(schema)]
    while pending:
        fields = pending.pop()
        for name, count in Counter(field.name for field in fields).items():
            if count > 1:
                raise UnknownWindowFile(f"window file has {count} columns {name}; one is read")
        pending += [list(field.type) for field in fields if pa.types.is_struct(field.type)]
    found = leaf_types(schema)
    return any(
        path not in found or wire_form(found[path]) != wanted
        for path, wanted in leaf_types(WIRE_SCHEMA).items()
    )


def to_wire(batch: pa.RecordBatch, first_row: int) -> tuple[pa.RecordBatch, list[ForeignRow]]:
    """A batch of any types as one of WIRE_SCHEMA, with what only its objects show.

    Raises UnknownWindowFile where it is not known what the network makes of a type or value, and
    OversizedWindowFile for a row longer than any rollout.
    """
    count = batch.num_rows
    _refuse_long(batch, first_row)
    arrays = []
    rows: list[ForeignRow] = []
    for field in WIRE_SCHEMA:
        if field.name == "commit":
            commits, rows = _commits(batch, first_row)
            arrays.append(commits)
            continue
        position = batch.schema.get_field_index(field.name)
        if position < 0:
            arrays.append(pa.nulls(count, field.type))
            continue
        column = batch.column(position)
        if wire_form(column.type) == field.type:
            arrays.append(column.cast(field.type))
        else:
            recast = _COLUMNS.get(field.name, _unused)
            values = [recast(field.name, value) for value in column.to_pylist()]
            arrays.append(_array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=WIRE_SCHEMA), rows


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Values of a column that no rule uses may not fit it; they are left out."""
    try:
        return pa.array(values, type_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.nulls(len(values), type_)


def _refuse_long(batch: pa.RecordBatch, first_row: int) -> None:
    pending = list(zip(batch.schema.names, batch.columns, strict=True))
    while pending:
        name, column = pending.pop()
        if pa.types.is_struct(column.type):
            pending += [
                (f"{name}.{column.type.field(i).name}", part)
                for i, part in enumerate(column.flatten())
            ]
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = pc.list_value_length(column)
            longest = pc.max(lengths).as_py() or 0
            if longest > MAX_ROW_VALUES:
                row = first_row + pc.index(lengths, longest).as_py()
                raise OversizedWindowFile(
                    f"window file row {row} has {longest} {name}; at most {MAX_ROW_VALUES} are read"
                )


def _identity(name: str, value: Any) -> int | None:
    """A number that rules tell rows or groups apart by: only an integer, however it is written."""
    if value is None:
        return None
    whole = _whole(value)
    if whole is None and isinstance(value, str) and value[:20].removeprefix("-").isdecimal():
        number = int(value[:20])
        whole = number if str(number) == value else None
    if whole is None or whole not in _INT64:
        raise UnknownWindowFile(f"window file column {name} holds {value!r:.80}, no 64-bit integer")
    return whole


def _compared(_: str, value: Any) -> int | None:
    """A number that is compared with one: what is no integer of 64 bits differs from each."""
    return _whole(value)


def _text(_: str, value: Any) -> str | None:
    """A text, as which no other value counts."""
    return value if isinstance(value, str) else None


def _unused(_: str, value: Any) -> Any:
    return value


def _whole(value: Any) -> int | None:
    """The integer that a number equals, None where it equals none or none of 64 bits."""
    if not isinstance(value, int | float | Decimal):
        return None
    number: Any = value
    if not -(2**63) <= number < 2**63:  # NaN is not either
        return None
    return int(number) if number == int(number) else None


_COLUMNS: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "window_start": _compared,
        "checkpoint_window": _compared,
        "nonce": _identity,
        "rollout_group": _identity,
        "block_hash": _text,
        "challenge": _text,
        "hotkey": _text,
        "signature": _text,
    }
)
"""How a column that rules use is read where its type is not the protocol's."""

_NUMBERS: Final = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
_TEXTS: Final = (
    *_NUMBERS,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_boolean,
)


def _commits(batch: pa.RecordBatch, first_row: int) -> tuple[pa.Array, list[ForeignRow]]:
    """The commits as the protocol's struct, and what C1, C2 and the sampling see of each."""
    position = batch.schema.get_field_index("commit")
    if position < 0:
        column = pa.array([{}] * batch.num_rows, pa.struct([]))
    else:
        column = batch.column(position)
    _refuse_unknown(column.type)
    commits, rows = [], []
    for number in range(batch.num_rows):
        commit = _commit(column[number].as_py(), first_row + number)
        rows.append(_foreign_row(commit, first_row + number))
        commits.append(_wire_commit(commit))
    return pa.array(commits, WIRE_SCHEMA.field("commit").type), rows


def _refuse_unknown(type_: pa.DataType) -> None:
    for path, wanted in leaf_types(pa.schema([WIRE_SCHEMA.field("commit")])).items():
        found: Any = type_
        *structs, _ = names = path.split(".")[1:]
        for depth, name in enumerate(names):
            if not pa.types.is_struct(found):
                raise _unknown(".".join(["commit", *structs[:depth]]), found)
            index = found.get_field_index(name)
            if index < 0:
                found = None
                break
            found = found.field(index).type
        if found is not None and not _is_known(names[-1], wire_form(found), wanted):
            raise _unknown(path, found)


def _is_known(name: str, found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether it is known what the rules make of such a value."""
    if found == wanted or name in ("commitments", "beacon"):
        return True
    if pa.types.is_list(wanted):
        return pa.types.is_list(found) and any(test(found.value_type) for test in _NUMBERS)
    return any(test(found) for test in (_TEXTS if pa.types.is_string(wanted) else _NUMBERS))


def _unknown(path: str, found: pa.DataType) -> UnknownWindowFile:
    return UnknownWindowFile(
        f"window file column {path} is {found}; what the network makes of that is not known"
    )


def _commit(value: dict[str, Any], row: int) -> dict[str, Any]:
    """One commit as the network has it after decoding; absent parts are empty."""
    model, rollout = value.get("model", {}), value.get("rollout", {})
    return {
        "tokens": value.get("tokens", []),
        "commitments": _decoded(value.get("commitments", []), row, "commitments"),
        "proof_version": value.get("proof_version"),
        "model": {name: model.get(name) for name in ("name", "layer_index")},
        "signature": value.get("signature"),
        "beacon": _decoded(value.get("beacon", {}), row, "beacon"),
        "rollout": {
            name: rollout.get(name, [] if name == "token_logprobs" else None)
            for name in (
                "total_reward",
                "advantage",
                "success",
                "token_logprobs",
                "prompt_length",
                "completion_length",
            )
        },
    }


@dataclass(frozen=True)
class _Text:
    """A JSON text that is not decoded here: `wire_to_read` does, with all its bounds."""

    text: str


def _decoded(value: Any, row: int, name: str) -> Any:
    if isinstance(value, str):
        return _Text(value)
    if isinstance(value, bytes):
        raise UnknownWindowFile(f"window file row {row}: {name} is bytes; a text or list is read")
    return value


def _foreign_row(commit: dict[str, Any], row: int) -> ForeignRow:
    parsed = dict(commit)
    try:
        for name in ("commitments", "beacon"):
            if isinstance(commit[name], _Text):
                parsed[name] = json.loads(commit[name].text)
        rendered = json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        # Not JSON: the file is ignored, whatever else it holds (grail-validation §3.5).
        return ForeignRow(row, b"", (), whole_tokens=True)
    except TypeError as error:
        raise UnknownWindowFile(
            f"window file row {row}: a commit that is not JSON: {error}"
        ) from None
    return ForeignRow(
        row,
        hashlib.sha256(rendered).digest(),
        tuple(schema_errors(parsed)),
        all(isinstance(token, int) for token in parsed["tokens"]),
    )


def _wire_commit(commit: dict[str, Any]) -> dict[str, Any]:
    """The same values in the protocol's types. What does not fit is what `ForeignRow` tells of."""
    rollout = commit["rollout"]
    return {
        "tokens": [_fitting(token, _NO_TOKEN) for token in commit["tokens"]],
        "commitments": _json_text(commit["commitments"]),
        "proof_version": _text("", commit["proof_version"]),
        "model": {
            "name": _text("", commit["model"]["name"]),
            "layer_index": _fitting(commit["model"]["layer_index"], None),
        },
        "signature": _text("", commit["signature"]),
        "beacon": _json_text(commit["beacon"]),
        "rollout": {
            "total_reward": _real(rollout["total_reward"]),
            "advantage": _real(rollout["advantage"]),
            "success": None if rollout["success"] is None else bool(rollout["success"]),
            "token_logprobs": [_real(value) for value in rollout["token_logprobs"]],
            "prompt_length": _fitting(rollout["prompt_length"], None),
            "completion_length": _fitting(rollout["completion_length"], None),
        },
    }


def _json_text(value: Any) -> str:
    return value.text if isinstance(value, _Text) else json.dumps(value)


def _fitting(value: Any, otherwise: int | None) -> int | None:
    whole = _whole(value)
    return whole if whole is not None and whole in _INT32 else otherwise


def _real(value: Any) -> float | None:
    return None if value is None else float(value)
