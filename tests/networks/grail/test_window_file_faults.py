"""Files that anyone may have uploaded: damaged, mistyped, oversized, or not what they claim."""

import datetime as dt
import decimal
import hashlib
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.window_rollouts import window_rollouts
from windrow.networks.grail import window_guards
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.networks.grail.window_file import read_window_file, write_window_file
from windrow.networks.grail.window_guards import (
    CorruptWindowFile,
    FileTooLarge,
    MistypedWindowFile,
    OversizedWindowFile,
    UnknownWindowFile,
    WindowFileError,
)
from windrow.networks.grail.window_schema import WIRE_SCHEMA, flat_to_wire


@pytest.fixture(scope="module")
def rollouts() -> pa.Table:
    return window_rollouts()


@pytest.fixture(scope="module")
def good(rollouts: pa.Table) -> bytes:
    sink = io.BytesIO()
    write_window_file(sink, rollouts.to_batches(), wallet="w", window_start=30, timestamp=0.0)
    return sink.getvalue()


@pytest.fixture(scope="module")
def wire(rollouts: pa.Table) -> pa.Table:
    return pa.Table.from_batches([flat_to_wire(batch) for batch in rollouts.to_batches()])


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets files expand to 1 MiB plus 16 times their size, so that small bombs suffice."""
    monkeypatch.setattr(window_guards, "EXPANSION_ALLOWANCE", (2**20, 16))


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, values)


def with_commit(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with one field of its commit struct replaced; the field's type may change."""
    commit = table["commit"].combine_chunks()
    names = [field.name for field in commit.type]
    arrays = [values if field == name else commit.field(field) for field in names]
    return with_column(table, "commit", pa.StructArray.from_arrays(arrays, names))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_corrupt(good: bytes, share: float) -> None:
    with pytest.raises(CorruptWindowFile, match="not a usable window file") as caught:
        read_window_file(good[: int(len(good) * share)])
    assert caught.value.network_reason == "corrupt_parquet"


def test_any_damaged_byte_is_read_or_refused_by_name(good: bytes) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[position] ^= int(rng.integers(1, 256))
        try:
            read_window_file(bytes(damaged))
        except WindowFileError:
            refused += 1
    assert refused


def test_a_null_group_is_corrupt(wire: pa.Table) -> None:
    groups = [None if row == 5 else 0 for row in range(wire.num_rows)]
    table = with_column(wire, "rollout_group", [pa.array(groups, pa.int64())])
    with pytest.raises(CorruptWindowFile, match="without a rollout_group: row 5") as caught:
        read_window_file(parquet(table))
    assert caught.value.network_reason == "corrupt_parquet"


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("nonce", pa.int32()),
        ("nonce", pa.float64()),
        ("nonce", pa.string()),
        ("rollout_group", pa.decimal128(20)),
        ("rollout_group", pa.float32()),
        ("window_start", pa.uint64()),
        ("checkpoint_window", pa.float64()),
        ("block_hash", pa.large_string()),
    ],
)
def test_another_type_of_a_column_makes_no_difference(
    wire: pa.Table, rollouts: pa.Table, column: str, type_: pa.DataType
) -> None:
    table = with_column(wire, column, wire[column].cast(type_))
    window = read_window_file(parquet(table))
    assert window.rollouts[column].equals(rollouts[column])
    assert window.foreign == () or len(window.foreign) == wire.num_rows


@pytest.mark.parametrize("column", ["block_hash", "challenge", "hotkey", "signature"])
def test_bytes_in_the_place_of_a_text_are_no_text(wire: pa.Table, column: str) -> None:
    table = with_column(wire, column, wire[column].cast(pa.binary()))
    assert read_window_file(parquet(table)).rollouts[column].null_count == wire.num_rows


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("tokens", pa.list_(pa.int64())),
        ("tokens", pa.large_list(pa.uint16())),
        ("token_logprobs", pa.list_(pa.float64())),
        ("prompt_length", pa.int64()),
        ("prompt_length", pa.float64()),
        ("success", pa.int8()),
        ("total_reward", pa.float32()),
    ],
)
def test_another_type_in_a_commit_is_read_and_digested_as_it_is(
    wire: pa.Table, rollouts: pa.Table, path: str, type_: pa.DataType
) -> None:
    commit = wire["commit"].combine_chunks()
    if path == "tokens":
        table = with_commit(wire, path, commit.field(path).cast(type_))
    else:
        rollout = commit.field("rollout")
        names = [field.name for field in rollout.type]
        parts = [
            rollout.field(name).cast(type_) if name == path else rollout.field(name)
            for name in names
        ]
        table = with_commit(wire, "rollout", pa.StructArray.from_arrays(parts, names))
    window = read_window_file(parquet(table))
    wanted = rollouts if path != "total_reward" else rollouts.drop([path])
    assert window.rollouts.select(wanted.column_names).equals(wanted)
    if window.foreign:  # a large list is read as the list it is
        first = table["commit"][0].as_py()
        for name in ("commitments", "beacon"):
            first[name] = json.loads(first[name])
        text = json.dumps(first, sort_keys=True, separators=(",", ":"))
        assert window.foreign[0].digest == hashlib.sha256(text.encode()).digest()
        assert window.foreign[0].schema_faults == ()


@pytest.mark.parametrize(
    ("values", "faults"),
    [([1.0], ("tokens", "tokens")), ([1.5], ("tokens.0",)), ([None, 2], ("tokens.0",))],
)
def test_tokens_that_are_no_integers_are_told_of(
    wire: pa.Table, values: list[float | None], faults: tuple[str, ...]
) -> None:
    table = with_commit(wire, "tokens", pa.array([values] * wire.num_rows, pa.list_(pa.float64())))
    window = read_window_file(parquet(table))
    assert all(set(faults) <= {*told.schema_faults, "tokens"} for told in window.foreign)
    assert not any(told.whole_tokens for told in window.foreign)


@pytest.mark.parametrize("values", [["a"], [[1]], "x", {"a": 1}, True])
def test_a_type_whose_meaning_is_not_known_is_a_limit(wire: pa.Table, values: object) -> None:
    table = with_commit(wire, "tokens", pa.array([values] * wire.num_rows))
    with pytest.raises(UnknownWindowFile, match=r"column commit\.tokens") as caught:
        read_window_file(parquet(table))
    assert caught.value.limit
    assert caught.value.network_reason is None


@pytest.mark.parametrize("value", ["007", "x", 5.5, float("nan"), 2.0**70, True, b"1"])
def test_a_group_that_is_no_integer_is_a_limit(wire: pa.Table, value: object) -> None:
    table = with_column(wire, "rollout_group", pa.array([value] * wire.num_rows))
    if value is True:
        assert read_window_file(parquet(table)).rollouts["rollout_group"][0].as_py() == 1
        return
    with pytest.raises(UnknownWindowFile, match="column rollout_group holds"):
        read_window_file(parquet(table))


@pytest.mark.parametrize("part", ["commit", "model", "rollout"])
@pytest.mark.parametrize("value", [1, "x", [1], 0.5, b"x", True])
def test_a_value_in_the_place_of_a_struct_is_a_limit(
    wire: pa.Table, part: str, value: object
) -> None:
    values = pa.array([value] * wire.num_rows)
    table = with_column(wire, part, values) if part == "commit" else with_commit(wire, part, values)
    with pytest.raises(UnknownWindowFile, match=r"column commit\S* is (?!struct)"):
        read_window_file(parquet(table))


def test_columns_of_any_types_end_in_rows_or_a_named_error(wire: pa.Table) -> None:
    """Every leaf in turn as something else, and nothing but a named error comes of it."""
    others = [
        pa.array([None] * wire.num_rows),
        pa.array([{"z": 1}] * wire.num_rows),
        pa.array([[{"a": [None]}]] * wire.num_rows),
        pa.array([dt.datetime(2026, 1, 1)] * wire.num_rows),  # noqa: DTZ001
        pa.array([float("inf")] * wire.num_rows),
        pa.array([2**63] * wire.num_rows, pa.uint64()),
        pa.array(["\ud83d".encode("utf-8", "surrogatepass")] * wire.num_rows),
        pa.array([decimal.Decimal("1.5")] * wire.num_rows),
    ]
    commit = [field.name for field in wire.schema.field("commit").type]
    rollout = [field.name for field in wire.schema.field("commit").type.field("rollout").type]
    ended = 0
    for values in others:
        tables = [with_column(wire, name, values) for name in wire.column_names]
        tables += [with_commit(wire, name, values) for name in commit]
        parts = wire["commit"].combine_chunks().field("rollout")
        for changed in rollout:
            made = [values if name == changed else parts.field(name) for name in rollout]
            tables.append(with_commit(wire, "rollout", pa.StructArray.from_arrays(made, rollout)))
        for table in tables:
            try:
                read_window_file(parquet(table))
            except WindowFileError:
                ended += 1
    assert ended > 50


def test_two_columns_of_one_name_are_a_limit(wire: pa.Table) -> None:
    raw = parquet(wire.append_column("nonce", wire["nonce"]))
    with pytest.raises(UnknownWindowFile, match="2 columns nonce"):
        read_window_file(raw)


def test_a_missing_column_is_null_in_every_row(wire: pa.Table) -> None:
    for name in ("challenge", "block", "rollout_group"):
        rows = read_window_file(parquet(wire.drop(name))).rollouts
        assert rows[name].null_count == wire.num_rows
    without = read_window_file(parquet(wire.drop("commit")))
    assert "tokens" in without.foreign[0].schema_faults


def test_commitments_and_beacon_may_be_values_instead_of_texts(
    wire: pa.Table, rollouts: pa.Table
) -> None:
    commit = wire["commit"].combine_chunks()
    table = wire
    for name in ("commitments", "beacon"):
        values = [json.loads(text) for text in commit.field(name).to_pylist()]
        table = with_commit(table, name, pa.array(values))
    assert read_window_file(parquet(table)).rollouts.equals(rollouts)


@pytest.mark.parametrize("name", ["tokens", "model", "rollout"])
def test_a_null_part_of_any_row_loses_the_file(wire: pa.Table, name: str) -> None:
    values = wire["commit"].combine_chunks().field(name)
    some = pa.array([row != 3 for row in range(wire.num_rows)])
    table = with_commit(wire, name, pc.if_else(some, values, pa.scalar(None, values.type)))
    with pytest.raises(MistypedWindowFile, match=rf"row 3 has no commit\.{name}") as caught:
        read_window_file(parquet(table))
    assert caught.value.network_reason is None
    assert not caught.value.limit


def test_texts_of_other_arrow_forms_are_read(wire: pa.Table, rollouts: pa.Table) -> None:
    table = with_column(wire, "hotkey", wire["hotkey"].dictionary_encode())
    texts = table["commit"].combine_chunks().field("commitments")
    table = with_commit(table, "commitments", texts.cast(pa.large_string()))
    back = read_window_file(parquet(table))
    assert back.rollouts.equals(rollouts)


def test_columns_beyond_the_protocol_are_ignored(wire: pa.Table, rollouts: pa.Table) -> None:
    table = wire.append_column("note", pa.array(["x"] * wire.num_rows))
    assert read_window_file(parquet(table)).rollouts.equals(rollouts)


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80"])
def test_text_that_is_not_utf8_is_named(wire: pa.Table, raw: bytes) -> None:
    texts = pa.array([raw] * wire.num_rows).cast(pa.string(), safe=False)
    with pytest.raises(MistypedWindowFile, match="column hotkey"):
        read_window_file(parquet(with_column(wire, "hotkey", texts)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("window_start", "timestamp") for value in ("x", "", b"\xff")),
        ("inference_count", "9" * 5000),
    ],
)
def test_metadata_that_is_no_number_is_named(wire: pa.Table, key: str, value: str | bytes) -> None:
    with pytest.raises(MistypedWindowFile, match=f"metadata {key}"):
        read_window_file(parquet(wire.replace_schema_metadata({key: value})))


def test_metadata_may_be_absent(wire: pa.Table) -> None:
    header = read_window_file(parquet(wire.replace_schema_metadata(None))).header
    assert (header.wallet, header.window_start, header.timestamp) == (None, None, None)


def test_a_null_commit_loses_the_file(wire: pa.Table) -> None:
    nothing = pa.nulls(wire.num_rows, WIRE_SCHEMA.field("commit").type)
    with pytest.raises(MistypedWindowFile, match="row 0 has no commit,"):
        read_window_file(parquet(with_column(wire, "commit", nothing)))


def test_null_texts_are_the_json_null(wire: pa.Table) -> None:
    table = with_commit(wire, "commitments", pa.nulls(wire.num_rows, pa.string()))
    window = read_window_file(parquet(table))
    assert {text.json.compact() for text in window.irregular} == {b"null"}
    assert {text.json.is_json for text in window.irregular} == {True}


@pytest.mark.parametrize(
    ("beacon", "randomness", "reason"),
    [
        ("{}", None, None),
        ('{"randomness":"ab"}', "ab", None),
        ('{"randomness": "\\u0061b"}', "ab", None),
        ('{"randomness": "ab", "round": 7}', "ab", "1 keys beside"),
        ('{"randomness": "\\ud800"}', None, "no text"),
        ('{"randomness": 5}', None, "no text"),
        ('["ab"]', None, "instead of an object"),
        ("{", None, "not JSON"),
    ],
)
def test_irregular_beacons(
    wire: pa.Table, beacon: str, randomness: str | None, reason: str | None
) -> None:
    texts = [beacon, *wire["commit"].combine_chunks().field("beacon").to_pylist()[1:]]
    window = read_window_file(parquet(with_commit(wire, "beacon", pa.array(texts))))
    assert window.rollouts["beacon_randomness"][0].as_py() == randomness
    reasons = [text.json.reason for text in window.irregular]
    assert len(reasons) == (reason is not None)
    assert all(reason in found for found in reasons)


def test_irregular_commitments_carry_their_row_in_the_file(wire: pa.Table) -> None:
    texts = wire["commit"].combine_chunks().field("commitments").to_pylist()
    texts[20] = '[{"sketch": 1e30}]'
    raw = parquet(with_commit(wire, "commitments", pa.array(texts)), row_group_size=7)
    (irregular,) = read_window_file(raw).irregular
    assert (irregular.row, irregular.column) == (20, "sketches")


def test_a_file_beyond_the_networks_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FileTooLarge, match=f"{MAX_FILE_BYTES + 1} bytes") as caught:
        read_window_file(path)
    assert not caught.value.limit


def test_a_text_repeated_by_reference_is_refused(wire: pa.Table) -> None:
    """One text of 1 MB, 3000 times: a small file that would expand to 3 GB."""
    copies = 3000
    table = wire.take(np.zeros(copies, np.int64))
    hotkeys = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(copies, np.int32)), pa.array(["x" * 2**20])
    )
    raw = parquet(with_column(table, "hotkey", hotkeys), compression="zstd")
    assert len(raw) < 2**17
    with pytest.raises(OversizedWindowFile, match="column hotkey: pages expand"):
        read_window_file(raw)


def test_a_column_that_hides_its_type_is_a_limit(good: bytes) -> None:
    """Texts that the footer calls numbers would be read as texts all the same."""
    text, number = b"\x15\x0c\x19", b"\x15\x02\x19"  # the type field before the encodings
    assert text in good
    with pytest.raises(OversizedWindowFile, match="columns are not those of its schema"):
        read_window_file(good.replace(text, number))


@pytest.mark.usefixtures("little_memory")
def test_a_page_of_zeros_is_refused(wire: pa.Table) -> None:
    zeros = pa.array(["0" * 2**22] + [""] * (wire.num_rows - 1))
    raw = parquet(with_column(wire, "challenge", zeros), compression="zstd", use_dictionary=False)
    assert len(raw) < 2**17
    with pytest.raises(OversizedWindowFile, match="column challenge: pages expand"):
        read_window_file(raw)


@pytest.mark.usefixtures("little_memory")
def test_a_list_of_very_many_equal_values_is_refused(wire: pa.Table) -> None:
    values = pa.array(np.zeros(1_000_000, np.int32))
    offsets = pa.array(np.minimum(np.arange(wire.num_rows + 1), 1).astype(np.int32) * len(values))
    tokens = pa.ListArray.from_arrays(offsets, values)
    raw = parquet(with_commit(wire, "tokens", tokens), compression="zstd")
    assert len(raw) < 2**17
    with pytest.raises(OversizedWindowFile, match=r"column commit\.tokens.*pages expand"):
        read_window_file(raw)


def test_front_coded_texts_are_read(wire: pa.Table, rollouts: pa.Table) -> None:
    texts = ("challenge", "hotkey", "block_hash", "commit.commitments", "commit.beacon")
    raw = parquet(
        wire, use_dictionary=False, column_encoding=dict.fromkeys(texts, "DELTA_BYTE_ARRAY")
    )
    assert read_window_file(raw).rollouts.equals(rollouts)


@pytest.mark.usefixtures("little_memory")
def test_front_coded_texts_that_repeat_a_long_one_are_a_limit(wire: pa.Table) -> None:
    """Each text is one byte more than the one before it, all of which it repeats."""
    for length, rows in ((2**20, 400), (2**16, 2000)):
        table = wire.take(np.zeros(rows, np.int64))
        texts = pa.array(["x" * (length + row) for row in range(rows)])
        raw = parquet(
            with_column(table, "challenge", texts),
            use_dictionary=False,
            column_encoding={"challenge": "DELTA_BYTE_ARRAY"},
            compression="none",
        )
        with pytest.raises(OversizedWindowFile, match="front-coded texts") as caught:
            read_window_file(raw)
        assert caught.value.limit


def test_very_many_columns_are_refused(wire: pa.Table) -> None:
    for number in range(64):
        wire = wire.append_column(f"c{number}", wire["nonce"])
    with pytest.raises(OversizedWindowFile, match="claims 91 columns"):
        read_window_file(parquet(wire))


def footer(*, rows: int, levels: int) -> bytes:
    """A Parquet file that is only a footer: `levels` nested groups and `rows` rows claimed."""

    def varint(number: int) -> bytes:
        low, rest = number & 0x7F, number >> 7
        return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])

    def group(name: bytes) -> bytes:
        return b"\x35\x02\x18" + varint(len(name)) + name + b"\x15\x02\x00"

    leaf = b"\x15\x02\x25\x02\x18\x01x\x00"
    elements = [group(b"schema"), *[group(b"a")] * levels, leaf]
    body = b"\x15\x04\x19\xfc" + varint(len(elements)) + b"".join(elements)
    body += b"\x16" + varint(2 * rows) + b"\x19\x0c\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


def test_a_footer_that_claims_a_billion_rows_is_refused() -> None:
    with pytest.raises(OversizedWindowFile, match="claims 1000000000 rows"):
        read_window_file(footer(rows=10**9, levels=1))


def test_a_footer_that_claims_rows_it_has_no_pages_for_is_corrupt() -> None:
    with pytest.raises(CorruptWindowFile, match="do not add up"):
        read_window_file(footer(rows=5, levels=1))


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_a_deeply_nested_schema_is_refused_by_name(levels: int) -> None:
    with pytest.raises(WindowFileError, match="nested"):
        read_window_file(footer(rows=0, levels=levels))


@pytest.mark.parametrize("kind", [0x19, 0x1C])
def test_a_deeply_nested_footer_is_refused_by_name(kind: int) -> None:
    """Lists (0x19) and structs (0x1c) within each other, which no reader may follow down."""
    body = bytes([kind]) * 100_000
    raw = b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"
    with pytest.raises(MistypedWindowFile, match="nested too deeply"):
        read_window_file(raw)


def test_a_file_without_rows_reads_as_the_network_reads_it() -> None:
    window = read_window_file(parquet(WIRE_SCHEMA.empty_table()))
    assert window.rollouts.num_rows == window.header.rows == 0
