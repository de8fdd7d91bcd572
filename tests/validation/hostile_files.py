"""Files no honest miner makes: what a hostile one puts into its bucket, one function each.

Every function takes the bytes of a sound file and gives bytes to upload in its place. `FILES` says
of each what is stored: the state of the upload, a check that refuses it, and why in words.
"""

import gzip
import io
import itertools
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from windrow.networks.grail.window_guards import MAX_ROW_VALUES

Spoil = Callable[[bytes], bytes]


def _wire(sound: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(sound)).combine_chunks()


def _parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def _with(table: pa.Table, path: str, values: pa.Array) -> pa.Table:
    """The table with one column, or one field of nested structs, replaced."""

    def replaced(array: pa.StructArray, names: list[str]) -> pa.StructArray:
        fields = [field.name for field in array.type]
        arrays = [array.field(name) for name in fields]
        at = fields.index(names[0])
        arrays[at] = replaced(arrays[at], names[1:]) if names[1:] else values
        return pa.StructArray.from_arrays(arrays, fields)

    column, *names = path.split(".")
    if names:
        values = replaced(table[column].combine_chunks(), names)
    return table.set_column(table.schema.get_field_index(column), column, values)


def _spoilt(path: str, values: Callable[[int], pa.Array]) -> Spoil:
    def spoil(sound: bytes) -> bytes:
        table = _wire(sound)
        return _parquet(_with(table, path, values(table.num_rows)))

    return spoil


def truncated(sound: bytes) -> bytes:
    return sound[: len(sound) // 2]


def damaged(sound: bytes) -> bytes:
    """Pages of noise between a sound head and a sound footer."""
    noise = np.random.default_rng(0).bytes(len(sound) // 2)
    return sound[:64] + noise + sound[64 + len(noise) :]


def text_bomb(sound: bytes) -> bytes:
    """A few kilobytes that stand for one long text in every row: gigabytes once read."""
    table = pa.concat_tables([_wire(sound)] * 256).combine_chunks()
    text = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(table.num_rows, np.int32)), pa.array(["[" * 2**20])
    )
    return _parquet(_with(table, "commit.commitments", text))


def row_of_tokens(sound: bytes) -> bytes:
    """Some kilobytes with one row of very many equal tokens."""
    table = _wire(sound)
    tokens = table["commit"].combine_chunks().field("tokens").to_pylist()
    values = pa.array([[7] * (MAX_ROW_VALUES + 1), *tokens[1:]], pa.list_(pa.int32()))
    return _parquet(_with(table, "commit.tokens", values))


def renamed(sound: bytes, wallet: str) -> bytes:
    """The file with another miner's name on it."""
    table = _wire(sound)
    return _parquet(table.replace_schema_metadata({**table.schema.metadata, "wallet": wallet}))


def billion_rows(sound: bytes) -> bytes:
    """A footer that claims 10^9 rows: num_rows is field 3 of it, a zigzag varint."""
    length = int.from_bytes(sound[-8:-4], "little")
    footer = sound[-8 - length : -8]
    rows = pq.read_metadata(io.BytesIO(sound)).num_rows
    counted = b"\x16" + _varint(2 * rows)
    at = footer.rindex(counted + b"\x19")  # of the file: row groups, a list, come next
    footer = footer[:at] + b"\x16" + _varint(2 * 10**9) + footer[at + len(counted) :]
    return sound[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def nested_nulls(sound: bytes) -> bytes:
    """Nulls for structs, lists and their elements."""
    table = _wire(sound)
    rows = table.to_pylist()
    rows[0]["commit"] = None
    rows[1]["commit"]["rollout"] = None
    rows[2]["commit"]["model"] = None
    rows[3]["commit"]["tokens"] = None
    rows[4]["commit"]["tokens"][3] = None
    rows[5]["commit"]["rollout"]["token_logprobs"] = None
    rows[6]["nonce"] = None
    rows[7] = dict.fromkeys(rows[7]) | {"rollout_group": rows[7]["rollout_group"]}
    # Texts stay JSON, so that the rows are looked at.
    for row in (rows[0], rows[7]):
        row["commit"] = dict.fromkeys(table.schema.field("commit").type.names)
        row["commit"] |= {"commitments": "[]", "beacon": "{}"}
    return _parquet(pa.Table.from_pylist(rows, table.schema))


def _rows_of_one_token(sound: bytes, rows: int) -> pa.Table:
    """Many small rows, every one a group of its own."""
    row = _with(_wire(sound).slice(0, 1), "commit.commitments", pa.array(["[]"]))
    row = _with(row, "commit.tokens", pa.array([[1]], pa.list_(pa.int32())))
    row = _with(row, "commit.rollout.token_logprobs", pa.array([[0]], pa.list_(pa.float32())))
    table = row.take(pa.array(np.zeros(rows, np.int64))).combine_chunks()
    numbers = pa.array(np.arange(rows))
    return _with(_with(table, "rollout_group", numbers), "nonce", numbers)


def a_million_groups(sound: bytes) -> bytes:
    return _parquet(_rows_of_one_token(sound, 10**6))


def twenty_thousand_groups(sound: bytes) -> bytes:
    return _parquet(_rows_of_one_token(sound, 20_000))


def not_numbers(sound: bytes) -> bytes:
    """NaN and infinities wherever a number may be one."""
    table = _wire(sound)
    odd = np.resize([np.nan, np.inf, -np.inf], table.num_rows)
    for name in ("total_reward", "advantage"):
        table = _with(table, f"commit.rollout.{name}", pa.array(odd))
    lengths = pc.list_value_length(table["commit"].combine_chunks().field("tokens")).to_pylist()
    logprobs = [np.resize([np.nan, np.inf, -np.inf, -1.0], n).tolist() for n in lengths]
    table = _with(
        table, "commit.rollout.token_logprobs", pa.array(logprobs, pa.list_(pa.float32()))
    )
    return _parquet(_with(table, "timestamp", pa.array(odd)))


def _json(sound: bytes, text: Callable[[int], str]) -> bytes:
    table = _wire(sound)
    lengths = pc.list_value_length(table["commit"].combine_chunks().field("tokens")).to_pylist()
    return _parquet(_with(table, "commit.commitments", pa.array([text(n) for n in lengths])))


def huge_commitments(sound: bytes) -> bytes:
    """Megabytes of JSON in every row, beside the numbers there should be."""
    return _json(sound, lambda n: json.dumps([{"sketch": 1, "x": "y" * 8_000}] * n))


def endless_integers(sound: bytes) -> bytes:
    """Integers that no machine word and no float holds, but that JSON spells."""
    return _json(sound, lambda n: json.dumps([{"sketch": 10**400}] * n))


def odd_commitments(sound: bytes) -> bytes:
    """JSON of every other shape, numbers that are no numbers among them."""
    shapes = itertools.cycle(["{}", "null", "[1, 2]", '[{"sketch": NaN}]', '[{"sketch": 1e999}]'])
    return _json(sound, lambda n: next(shapes))


def deep_commitments(sound: bytes) -> bytes:
    return _json(sound, lambda n: "[" * 100_000 + "]" * 100_000)


def surrogates(sound: bytes) -> bytes:
    """JSON escapes of half a character, which no text can hold."""
    beacon = r'{"randomness": "\ud800\udfff\ud800"}'
    table = _wire(sound)
    return _parquet(_with(table, "commit.beacon", pa.array([beacon] * table.num_rows)))


def not_utf8(sound: bytes) -> bytes:
    table = _wire(sound)
    raw = pa.array([b"\xed\xa0\x80\xff"] * table.num_rows, pa.binary())
    return _parquet(_with(table, "challenge", raw.view(pa.string())))


def gzip_bomb(sound: bytes) -> bytes:
    """Less than half a megabyte that inflates to more than a window file may have."""
    return gzip.compress(bytes(2**26)) * 6


def broken_gzip(sound: bytes) -> bytes:
    whole = bytearray(gzip.compress(sound))
    whole[100:400] = bytes(range(256)) + bytes(44)
    return bytes(whole)


def half_gzip(sound: bytes) -> bytes:
    return gzip.compress(sound)[: len(sound) // 3]


wrong_types = _spoilt("commit.tokens", lambda n: pa.array([["1", "2"]] * n))
numbers_as_texts = _spoilt("nonce", lambda n: pa.array([f"0{i}" for i in range(n)]))
groups_as_floats = _spoilt("rollout_group", lambda n: pa.array([float("nan")] * n))
groups_at_the_edge = _spoilt("rollout_group", lambda n: pa.array([-(2**63)] * n, pa.int64()))
foreign_tokens = _spoilt(
    "commit.tokens", lambda n: pa.array([[-1, 2**31 - 1] * 20] * n, pa.list_(pa.int32()))
)
negative_prompts = _spoilt(
    "commit.rollout.prompt_length", lambda n: pa.array([-(2**31)] * n, pa.int32())
)
long_texts = _spoilt("challenge", lambda n: pa.array(["x" * 2**20] * n))


CHECKED, UNREADABLE, LIMIT = "checked", "unreadable", "unfinished"
FILES: dict[str, tuple[Spoil, str, str, str]] = {
    "truncated": (truncated, CHECKED, "file_readable", "not a usable window file"),
    "damaged": (damaged, UNREADABLE, "file_readable", "window file is damaged"),
    "text_bomb": (text_bomb, LIMIT, "file_readable", "pages expand to more than"),
    "row_of_tokens": (row_of_tokens, LIMIT, "file_readable", "row 0 has 131073 tokens"),
    "billion_rows": (billion_rows, LIMIT, "file_readable", "claims 1000000000 rows"),
    "a_million_groups": (a_million_groups, LIMIT, "file_readable", "claims 1000000 rows"),
    "twenty_thousand_groups": (
        twenty_thousand_groups,
        CHECKED,
        "file_structure",
        "20000 violations",
    ),
    "nested_nulls": (nested_nulls, UNREADABLE, "file_readable", "has no commit"),
    "not_numbers": (not_numbers, CHECKED, "schema_valid", "no finite number"),
    "huge_commitments": (huge_commitments, CHECKED, "proof_valid", "signature does not verify"),
    "endless_integers": (endless_integers, CHECKED, "sketches_agree", "further from the model"),
    "odd_commitments": (odd_commitments, CHECKED, "schema_valid", "no list of objects"),
    "deep_commitments": (deep_commitments, UNREADABLE, "json_text", "not JSON"),
    "surrogates": (surrogates, CHECKED, "schema_valid", "randomness"),
    "not_utf8": (not_utf8, UNREADABLE, "file_readable", "challenge"),
    "wrong_types": (
        wrong_types,
        LIMIT,
        "file_readable",
        "commit.tokens is list<element: string>",
    ),
    "numbers_as_texts": (numbers_as_texts, LIMIT, "file_readable", "column nonce holds"),
    "groups_as_floats": (
        groups_as_floats,
        LIMIT,
        "file_readable",
        "column rollout_group holds nan",
    ),
    "groups_at_the_edge": (groups_at_the_edge, CHECKED, "file_structure", "16 rollouts"),
    "foreign_tokens": (foreign_tokens, CHECKED, "tokens_valid", ""),
    "negative_prompts": (negative_prompts, CHECKED, "schema_valid", "prompt_length is negative"),
    "long_texts": (long_texts, CHECKED, "outer_signature", "does not verify"),
}

GZIPPED: dict[str, tuple[Spoil, str]] = {
    "gzip_bomb": (gzip_bomb, "inflates to more than"),
    "broken_gzip": (broken_gzip, "is not gzip"),
    "half_gzip": (half_gzip, "is not gzip"),
}
