"""Window files written and read back."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.window_rollouts import CONTEXT, altered, window_rollouts
from windrow.networks.grail.window_file import (
    open_window_file,
    read_window_file,
    write_window_file,
)
from windrow.networks.grail.window_guards import IncompleteRollouts, MistypedWindowFile
from windrow.networks.grail.window_schema import (
    FLAT_SCHEMA,
    READ_SCHEMA,
    WIRE_SCHEMA,
    with_sketches,
)


def written(rollouts: pa.Table) -> bytes:
    sink = io.BytesIO()
    write_window_file(
        sink,
        rollouts.to_batches(max_chunksize=5),
        wallet=CONTEXT.hotkey,
        window_start=CONTEXT.window,
        timestamp=1.5,
    )
    return sink.getvalue()


def test_rollouts_come_back_as_they_were() -> None:
    rollouts = window_rollouts()
    window = read_window_file(written(rollouts))
    assert window.rollouts.equals(rollouts)
    assert window.irregular == ()
    header = window.header
    assert (header.wallet, header.window_start) == (CONTEXT.hotkey, CONTEXT.window)
    assert (header.window_length, header.inference_count, header.rows) == (30, 32, 32)
    assert header.timestamp == 1.5


def test_a_path_an_open_file_and_bytes_read_the_same(tmp_path: Path) -> None:
    rollouts = window_rollouts(groups=1)
    path = tmp_path / "window.parquet"
    rows = write_window_file(
        path, rollouts.to_batches(), wallet="w", window_start=30, timestamp=0.0
    )
    assert rows == 16
    assert read_window_file(path).rollouts.equals(rollouts)
    assert read_window_file(path.read_bytes()).rollouts.equals(rollouts)
    with path.open("rb") as file:
        assert read_window_file(file).rollouts.equals(rollouts)


def test_the_file_is_one_row_group_of_the_wire_schema() -> None:
    parquet = pq.ParquetFile(io.BytesIO(written(window_rollouts())))
    assert parquet.num_row_groups == 1
    assert parquet.schema_arrow.equals(WIRE_SCHEMA)
    assert "list.element" in str(parquet.schema.column(10).path)


def test_rows_arrive_in_batches_of_the_size_asked_for() -> None:
    rollouts = window_rollouts()
    reader = open_window_file(written(rollouts))
    sizes = [batch.num_rows for batch in reader.batches(12)]
    assert sizes == [12, 12, 8]
    rows = pa.Table.from_batches(reader.batches(3))
    assert rows.schema.equals(READ_SCHEMA)
    assert with_sketches(rows).equals(rollouts)


@pytest.mark.parametrize("randomness", ['a"b\\', "é\n", "", " ", "\ud7ff\U0001f600", "0xab"])
def test_any_text_survives_as_beacon_randomness(randomness: str) -> None:
    rollouts = altered(window_rollouts(groups=1), 3, beacon_randomness=randomness)
    assert read_window_file(written(rollouts)).rollouts.equals(rollouts)


def test_extreme_numbers_survive() -> None:
    rollouts = altered(
        window_rollouts(groups=1),
        0,
        sketches=[-(2**63), 2**63 - 1, 0],
        tokens=[],
        rollout_group=-(2**63),
        advantage=float("inf"),
        token_logprobs=[float("-inf"), float("nan")],
    )
    back = read_window_file(written(rollouts)).rollouts
    assert back.drop("token_logprobs").equals(rollouts.drop("token_logprobs"))
    logprobs = back["token_logprobs"][0].as_py()
    assert logprobs[0] == -np.inf
    assert np.isnan(logprobs[1])


@pytest.mark.parametrize("batches", [[], [FLAT_SCHEMA.empty_table().to_batches()]])
def test_a_window_without_rollouts_is_not_written(batches: list[object], tmp_path: Path) -> None:
    path = tmp_path / "window.parquet"
    empty = pa.RecordBatch.from_pylist([], FLAT_SCHEMA)
    with pytest.raises(IncompleteRollouts, match="window 60 has no rollouts"):
        write_window_file(
            path, [empty] if batches else [], wallet="w", window_start=60, timestamp=0.0
        )
    assert not path.exists()


@pytest.mark.parametrize("name", FLAT_SCHEMA.names)
def test_a_null_is_not_written(name: str) -> None:
    rollouts = altered(window_rollouts(groups=1), 7, **{name: None})
    with pytest.raises(IncompleteRollouts, match=f"column {name} holds 1 null"):
        written(rollouts)


def test_a_null_inside_a_list_is_not_written() -> None:
    rollouts = altered(window_rollouts(groups=1), 7, tokens=[1, None, None])
    with pytest.raises(IncompleteRollouts, match="column tokens holds 2 null"):
        written(rollouts)


def test_other_columns_are_not_written() -> None:
    rollouts = window_rollouts(groups=1)
    with pytest.raises(MistypedWindowFile, match="differing: \\['nonce'\\]"):
        written(rollouts.drop("nonce"))
    wide = rollouts.set_column(2, "nonce", rollouts["nonce"].cast(pa.int32()))
    with pytest.raises(MistypedWindowFile, match="column nonce is int32, must be int64"):
        written(wide)
