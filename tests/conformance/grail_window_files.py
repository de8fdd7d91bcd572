"""Window files: the format, damage, and the verdict on a whole file (grail-protocol §8, §11.1)."""

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from windrow.networks.grail.bucket import parse_window_file_key, window_file_key
from windrow.networks.grail.commitments import encode_compact
from windrow.networks.grail.file_checks import FILE_COLUMNS, file_violations, network_reason
from windrow.networks.grail.sampling import completion_digests
from windrow.networks.grail.window_file import read_window_file, write_window_file
from windrow.networks.grail.window_guards import CorruptWindowFile
from windrow.networks.grail.window_schema import FLAT_SCHEMA, flat_to_wire

from ._validation_values import column_integer
from .framework import Case, VectorFile, handles

ROLLOUT_FIELDS = (
    "total_reward",
    "advantage",
    "success",
    "token_logprobs",
    "prompt_length",
    "completion_length",
)
ROW_FIELDS = (*FLAT_SCHEMA.names[:10], *FLAT_SCHEMA.names[23:])
DEFAULTS = {pa.string(): "", pa.bool_(): False, pa.float64(): 0.0}


@handles("grail/parquet.json", uses=("grail/*-window-*.parquet", "grail/empty-window.parquet"))
def window_files(file: VectorFile) -> Iterator[Case]:
    vectors = file.load_json()
    info = vectors["file_info"]
    path = file.folder / info["file"]
    yield Case("key", partial(check_key, info))
    yield Case("read", partial(check_reading, path, info))
    yield Case("write", partial(check_writing, path, info))
    for index, case in enumerate(vectors["error_and_default_cases"]):
        yield Case(f"input-{index}", partial(check_input, path, case))
    for case in vectors["cases"]:
        yield Case(f"row-{case['row']}", partial(check_row, path, case))
        yield Case(f"row-{case['row']}-round-trip", partial(check_round_trip, case))


def check_key(info: dict[str, Any]) -> None:
    key, metadata = info["object_key"], info["key_value_metadata"]
    named = parse_window_file_key(key)
    assert named == (metadata["wallet"], int(metadata["window_start"]))
    assert window_file_key(*named) == key


def check_reading(path: Path, info: dict[str, Any]) -> None:
    raw = path.read_bytes()
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (info["bytes"], info["sha256"])
    window = read_window_file(raw)
    metadata = info["key_value_metadata"]
    assert window.rollouts.num_rows == window.header.rows == info["num_rows"]
    assert window.header.wallet == metadata["wallet"]
    assert window.header.window_start == int(metadata["window_start"])
    assert window.header.timestamp == float(metadata["timestamp"])
    assert not window.irregular


def check_writing(path: Path, info: dict[str, Any]) -> None:
    """Windrow's own file of the same rollouts has the same form and the same rows."""
    window = read_window_file(path)
    written = io.BytesIO()
    write_window_file(
        written,
        window.rollouts.to_batches(max_chunksize=7),
        wallet=window.header.wallet or "",
        window_start=window.header.window_start or 0,
        timestamp=window.header.timestamp or 0.0,
    )
    parquet = pq.ParquetFile(io.BytesIO(written.getvalue()))
    metadata = parquet.metadata
    texts = {key.decode(): value.decode() for key, value in metadata.metadata.items()}
    stored_schema = base64.b64decode(texts.pop("ARROW:schema"))
    assert pa.ipc.read_schema(pa.BufferReader(stored_schema)).names == parquet.schema_arrow.names
    assert {**texts, "ARROW:schema": "(arrow ipc schema, base64)"} == info["key_value_metadata"]
    assert str(parquet.schema_arrow.remove_metadata()) == info["arrow_schema"]
    assert str(parquet.schema).split("\n", 1)[1].strip() == info["parquet_schema"].strip()
    assert metadata.format_version == info["format_version"]
    assert metadata.num_row_groups == info["num_row_groups"]
    group = metadata.row_group(0)
    assert group.num_columns == len(info["columns"])
    for index, column in enumerate(info["columns"]):
        own = group.column(index)
        assert own.path_in_schema == column["path"]
        assert own.physical_type == column["physical_type"]
        assert own.compression == column["compression"]
        assert sorted(own.encodings) == sorted(column["encodings"])
        assert own.is_stats_set == column["has_statistics"]
    assert parquet.read().equals(pq.read_table(path))


def check_input(path: Path, case: dict[str, Any]) -> None:
    expected = case.get("result")
    if expected is not None:
        described = described_file(path, case["input"])
        # A size is given of files that lie beside this one, not of what is written here.
        assert not case["input"].endswith(".parquet") or len(described) == case["bytes"]
        window = read_window_file(described)
        header = window.header
        assert {
            "wallet": header.wallet,
            "window_start": header.window_start,
            "window_length": header.window_length,
            "inference_count": header.inference_count,
            "timestamp": header.timestamp,
            "inferences": [packaged(row) for row in window.rollouts.to_pylist()],
        } == expected
        return
    damaged = described_file(path, case["input"])
    if case["error"] == "none":
        read_window_file(damaged)
        return
    with pytest.raises(CorruptWindowFile) as caught:
        read_window_file(damaged)
    assert caught.value.network_reason == "corrupt_parquet"


def described_file(path: Path, description: str) -> bytes:
    """The bytes that a case describes in words, made from the good file."""
    good = path.read_bytes()
    if description.endswith(".parquet"):
        return (path.parent / description).read_bytes()
    if description == "one row with null rollout_group":
        table = pq.read_table(path)
        groups = table["rollout_group"].to_pylist()
        groups[len(groups) // 2] = None
        column = table.schema.get_field_index("rollout_group")
        table = table.set_column(column, table.schema.field(column), [groups])
        return parquet_bytes(table)
    if description.startswith("window dict with one empty inference"):
        row = {field.name: DEFAULTS.get(field.type, 0) for field in FLAT_SCHEMA}
        row |= {"tokens": [], "sketches": [], "token_logprobs": [], "beacon_randomness": None}
        wire = flat_to_wire(pa.RecordBatch.from_pylist([row], FLAT_SCHEMA))
        numbers = {"window_start": "0", "window_length": "0", "timestamp": "0.0"}
        header = {"wallet": "", "inference_count": "1", **numbers}
        return parquet_bytes(pa.Table.from_batches([wire]).replace_schema_metadata(header))
    if short := re.fullmatch(r"(\d+) bytes", description):
        return good[: int(short[1])]
    if garbage := re.fullmatch(r"garbage (\d+)", description):
        return hashlib.shake_256(good).digest(int(garbage[1]))
    made = {
        "empty bytes": b"",
        "truncated": good[: len(good) // 2],
        "flipped magic": bytes([good[0] ^ 0xFF]) + good[1:],
    }
    assert description in made, f"no way known to make {description!r}"
    return made[description]


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def check_row(path: Path, case: dict[str, Any]) -> None:
    row = read_window_file(path).rollouts.slice(case["row"], 1)
    assert packaged(row.to_pylist()[0]) == case["as_read_back"]


def check_round_trip(case: dict[str, Any]) -> None:
    """What the miner packaged comes back from Windrow's file as it did from the network's."""
    batch = pa.RecordBatch.from_pylist([flat(case["as_packaged"])], FLAT_SCHEMA)
    sink = io.BytesIO()
    write_window_file(sink, [batch], wallet="w", window_start=0, timestamp=0.0)
    back = read_window_file(sink.getvalue()).rollouts.to_pylist()[0]
    assert packaged(back) == case["as_read_back"]
    compact = encode_compact(batch.column("sketches"))[0].as_py()
    entries = case["as_packaged"]["commit"]["commitments"]
    assert compact == "[" + ",".join(f'{{"sketch":{e["sketch"]}}}' for e in entries) + "]"


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A FLAT_SCHEMA row of the nested object that the network works with."""
    commit = row["commit"]
    return {
        **{name: row[name] for name in ROW_FIELDS},
        **{name: commit["rollout"][name] for name in ROLLOUT_FIELDS},
        "tokens": commit["tokens"],
        "sketches": [entry["sketch"] for entry in commit["commitments"]],
        "proof_version": commit["proof_version"],
        "model_name": commit["model"]["name"],
        "layer_index": commit["model"]["layer_index"],
        "commit_signature": commit["signature"],
        "beacon_randomness": commit["beacon"]["randomness"],
    }


def packaged(row: dict[str, Any]) -> dict[str, Any]:
    """The network's nested object of a FLAT_SCHEMA row."""
    randomness = row["beacon_randomness"]
    return {
        **{name: row[name] for name in ROW_FIELDS},
        "commit": {
            "tokens": row["tokens"],
            "commitments": [{"sketch": sketch} for sketch in row["sketches"]],
            "proof_version": row["proof_version"],
            "model": {"name": row["model_name"], "layer_index": row["layer_index"]},
            "signature": row["commit_signature"],
            "beacon": {} if randomness is None else {"randomness": randomness},
            "rollout": {name: row[name] for name in ROLLOUT_FIELDS},
        },
    }


@handles("grail/verdicts_file.json", uses=("grail/windows/*.parquet", "grail/window_context.json"))
def file_verdicts(file: VectorFile) -> Iterator[Case]:
    for case in file.load_json()["cases"]:
        name = Path(case["file"]).stem
        yield Case(f"{name}-file", partial(check_file_verdict, file.folder, case))


def check_file_verdict(folder: Path, case: dict[str, Any]) -> None:
    """What the network says of the file as a whole, before it looks at rollouts."""
    recorded = case["failure_reason"] or ""
    expected = recorded.removeprefix("file:") if recorded.startswith("file:") else None
    raw = (folder / case["file"]).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == case["sha256"]
    assert file_reason(raw, case) == expected


def file_reason(raw: bytes, case: dict[str, Any]) -> str | None:
    try:
        window = read_window_file(raw)
    except CorruptWindowFile as error:
        return error.network_reason
    violations = file_violations(
        window.rollouts,
        wallet=window.header.wallet,
        metadata_window=window.header.window_start,
        hotkey=case["miner_hotkey"],
        window=case["window"],
        block_hash=case["window_hash"],
    )
    return network_reason(violations)


@handles("grail-validation/file_structure.json")
def file_structure(file: VectorFile) -> Iterator[Case]:
    for case in file.load_json()["cases"]:
        yield Case(case["name"], partial(check_structure, case))


def check_structure(case: dict[str, Any]) -> None:
    content = case["file"]
    rows = [
        # The file's column is int64; the cases also write group ids as text.
        {**row, "rollout_group": None if (group := row["rollout_group"]) is None else int(group)}
        for row in content["inferences"]
    ]
    schema = pa.schema([FLAT_SCHEMA.field(name) for name in FILE_COLUMNS])
    violations = file_violations(
        pa.Table.from_pylist(rows, schema),
        wallet=content["wallet"],
        metadata_window=content["window_start"],
        hotkey=case["expected_hotkey"],
        window=case["window"],
        block_hash=case["window_hash"],
    )
    reason = network_reason(violations)
    assert (reason is None) == case["expected"]["valid"]
    assert reason == case["expected"].get("reason")


@handles("grail-validation/completion_digest.json")
def digests(file: VectorFile) -> Iterator[Case]:
    for index, case in enumerate(file.load_json()["cases"]):
        yield Case(f"case-{index}", partial(check_digest, case))


def check_digest(case: dict[str, Any]) -> None:
    tokens = pa.array([case["tokens"]], pa.list_(pa.int32()))
    lengths = pa.array([column_integer(case["prompt_length"])], pa.int32())
    assert completion_digests(tokens, lengths) == [case["digest"]]
