"""A window's rollouts as columns: the flat form used everywhere, the wire form in the file.

The wire form nests a commit object and stores its commitments and beacon as JSON text
(grail-protocol §5.1, §8.2). The flat form has one plain column for every value, so that a check
is an operation on columns. The read form is the flat one but for the sketches, which are still
text, checked: most rows of a file are never asked for their numbers, and what the network hashes
of a commitment is its text.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from windrow.networks.grail.commitments import (
    IrregularJson,
    check_spaced,
    decode_sketches,
    encode_spaced,
    parse_json,
)


def _list(value: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", value))


FLAT_SCHEMA: Final = pa.schema(
    {
        "window_start": pa.int64(),
        "block": pa.int64(),
        "nonce": pa.int64(),
        "block_hash": pa.string(),
        "randomness": pa.string(),
        "use_drand": pa.bool_(),
        "rollout_group": pa.int64(),
        "rollout_index": pa.int32(),
        "total_in_group": pa.int32(),
        "checkpoint_window": pa.int64(),
        "tokens": _list(pa.int32()),
        "sketches": _list(pa.int64()),
        "proof_version": pa.string(),
        "model_name": pa.string(),
        "layer_index": pa.int32(),
        "commit_signature": pa.string(),
        "beacon_randomness": pa.string(),
        "total_reward": pa.float64(),
        "advantage": pa.float64(),
        "success": pa.bool_(),
        "token_logprobs": _list(pa.float32()),
        "prompt_length": pa.int32(),
        "completion_length": pa.int32(),
        "timestamp": pa.float64(),
        "challenge": pa.string(),
        "hotkey": pa.string(),
        "signature": pa.string(),
    }
)
"""One row a rollout; tokens, sketches and token_logprobs run over prompt and completion."""

_SKETCHES: Final = FLAT_SCHEMA.get_field_index("sketches")
READ_SCHEMA: Final = FLAT_SCHEMA.set(_SKETCHES, pa.field("commitments", pa.string()))
"""FLAT_SCHEMA with the sketches as canonical JSON text (§8.2); null where a row has none."""

_MODEL: Final = pa.struct({"name": pa.string(), "layer_index": pa.int32()})
_ROLLOUT: Final = pa.struct(
    {
        "total_reward": pa.float64(),
        "advantage": pa.float64(),
        "success": pa.bool_(),
        "token_logprobs": _list(pa.float32()),
        "prompt_length": pa.int32(),
        "completion_length": pa.int32(),
    }
)
_COMMIT: Final = pa.struct(
    {
        "tokens": _list(pa.int32()),
        "commitments": pa.string(),
        "proof_version": pa.string(),
        "model": _MODEL,
        "signature": pa.string(),
        "beacon": pa.string(),
        "rollout": _ROLLOUT,
    }
)
_ROW_BEFORE: Final = FLAT_SCHEMA.names[:10]
_ROW_AFTER: Final = FLAT_SCHEMA.names[23:]

WIRE_SCHEMA: Final = pa.schema(
    [
        *(FLAT_SCHEMA.field(name) for name in _ROW_BEFORE),
        pa.field("commit", _COMMIT),
        *(FLAT_SCHEMA.field(name) for name in _ROW_AFTER),
    ]
)
"""The file's columns (§8.2), all nullable."""

_BEACON_OPENING: Final = '{"randomness": "'
_BEACON_CLOSING: Final = '"}'
_PLAIN_TEXT: Final = r"[ !#-\[\]-~]*"  # printable ASCII that JSON does not escape
_CANONICAL_BEACON: Final = rf'\A\{{"randomness": "{_PLAIN_TEXT}"\}}\z'


@dataclass(frozen=True)
class IrregularText:
    """A row's JSON text that its flat columns do not carry exactly.

    row: row number within the file. column: "sketches" or "beacon_randomness".
    """

    row: int
    column: str
    json: IrregularJson


def flat_to_wire(flat: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of FLAT_SCHEMA as rows of WIRE_SCHEMA. A null beacon_randomness becomes `{}`.

    Raises CommitmentsError where a sketch is null.
    """
    flat = flat.cast(FLAT_SCHEMA)
    column = flat.column
    model = {"name": column("model_name"), "layer_index": column("layer_index")}
    commit = {
        "tokens": column("tokens"),
        "commitments": encode_spaced(column("sketches")),
        "proof_version": column("proof_version"),
        "model": _struct(_MODEL, model),
        "signature": column("commit_signature"),
        "beacon": _encode_beacon(column("beacon_randomness")),
        "rollout": _struct(_ROLLOUT, {field.name: column(field.name) for field in _ROLLOUT}),
    }
    wire = [*map(column, _ROW_BEFORE), _struct(_COMMIT, commit), *map(column, _ROW_AFTER)]
    return pa.RecordBatch.from_arrays(wire, schema=WIRE_SCHEMA)


def wire_to_read(
    wire: pa.RecordBatch, *, first_row: int = 0
) -> tuple[pa.RecordBatch, list[IrregularText]]:
    """Rows of WIRE_SCHEMA as rows of READ_SCHEMA, with every text the columns cannot carry.

    first_row: row number within the file of the batch's first row. A null struct gives nulls.
    """
    commit = wire.column("commit")

    def nested(*path: str) -> pa.Array:
        return pc.struct_field(commit, list(path))

    commitments = check_spaced(nested("commitments").cast(pa.string()))
    randomness, irregular_beacons = _decode_beacon(nested("beacon").cast(pa.string()))
    columns = {name: wire.column(name) for name in (*_ROW_BEFORE, *_ROW_AFTER)}
    columns |= {field.name: nested("rollout", field.name) for field in _ROLLOUT}
    columns |= {
        "tokens": nested("tokens"),
        "commitments": commitments.texts,
        "proof_version": nested("proof_version"),
        "model_name": nested("model", "name"),
        "layer_index": nested("model", "layer_index"),
        "commit_signature": nested("signature"),
        "beacon_randomness": randomness,
    }
    arrays = [columns[field.name].cast(field.type) for field in READ_SCHEMA]
    irregular = [
        IrregularText(first_row + row, column, text)
        for column, texts in (
            ("sketches", commitments.irregular),
            ("beacon_randomness", irregular_beacons),
        )
        for row, text in texts.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=READ_SCHEMA), irregular


def with_sketches(rows: pa.Table) -> pa.Table:
    """Rows of READ_SCHEMA as rows of FLAT_SCHEMA; such rows are returned as they are."""
    if "sketches" in rows.column_names:
        return rows
    chunks = [decode_sketches(texts) for texts in rows.column("commitments").chunks]
    field = FLAT_SCHEMA.field(_SKETCHES)
    sketches = pa.chunked_array(chunks, pa.list_(pa.int64())).cast(field.type)
    return rows.set_column(_SKETCHES, field, sketches).cast(FLAT_SCHEMA)


def _struct(type_: pa.StructType, children: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays([children[field.name] for field in type_], fields=list(type_))


def _encode_beacon(randomness: pa.StringArray) -> pa.StringArray:
    if pc.all(pc.match_substring_regex(randomness, rf"\A{_PLAIN_TEXT}\z")).as_py():
        texts = pc.binary_join_element_wise(_BEACON_OPENING, randomness, _BEACON_CLOSING, "")
        return pc.fill_null(texts, "{}")
    values = randomness.to_pylist()
    return pa.array(["{}" if v is None else json.dumps({"randomness": v}) for v in values])


def _decode_beacon(texts: pa.StringArray) -> tuple[pa.StringArray, dict[int, IrregularJson]]:
    canonical = pc.fill_null(pc.match_substring_regex(texts, _CANONICAL_BEACON), False)
    inner = pc.binary_slice(texts.cast(pa.binary()), len(_BEACON_OPENING), -len(_BEACON_CLOSING))
    randomness = pc.if_else(canonical, inner, pa.scalar(None, pa.binary())).cast(pa.string())
    if pc.all(canonical).as_py():
        return randomness, {}
    values: list[Any] = randomness.to_pylist()
    irregular: dict[int, IrregularJson] = {}
    for row in pc.indices_nonzero(pc.invert(canonical)).to_pylist():
        values[row], problem = _decode_beacon_row(texts[row])
        if problem is not None:
            irregular[row] = problem
    return pa.array(values, pa.string()), irregular


def _decode_beacon_row(text: pa.StringScalar) -> tuple[str | None, IrregularJson | None]:
    beacon, problem = parse_json(text)
    if problem is not None or beacon == {}:
        return None, problem
    if not isinstance(beacon, dict):
        kind = type(beacon).__name__
        return None, IrregularJson(text.as_py(), f"a {kind} instead of an object", is_json=True)
    randomness = beacon.get("randomness")
    if not isinstance(randomness, str) or not _is_unicode(randomness):
        return None, IrregularJson(text.as_py(), "'randomness' is no text", is_json=True)
    if len(beacon) > 1:
        reason = f"{len(beacon) - 1} keys beside 'randomness'"
        return randomness, IrregularJson(text.as_py(), reason, is_json=True)
    return randomness, None


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON escapes can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
