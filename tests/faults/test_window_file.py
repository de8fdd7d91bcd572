"""A window file that was damaged: refused by name by its reader, and never uploaded."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.runs import Home, assert_named
from windrow import WindrowError
from windrow.networks.grail.constants import MAX_FILE_BYTES
from windrow.networks.grail.window_file import read_window_file
from windrow.networks.grail.window_guards import (
    CorruptWindowFile,
    FileTooLarge,
    MistypedWindowFile,
)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def mistype(path: Path) -> None:
    table = pq.read_table(path)
    index = table.column_names.index("challenge")
    pq.write_table(
        table.set_column(index, "challenge", pa.array([b"\xff"] * len(table)).view(pa.string())),
        path,
    )


def oversize(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)


def empty(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 0), path)


def change_one_value(path: Path) -> None:
    table = pq.read_table(path)
    index = table.column_names.index("nonce")
    nonces = pa.array([1, *table["nonce"].to_pylist()[1:]], table["nonce"].type)
    pq.write_table(table.set_column(index, "nonce", nonces), path)


DAMAGES: list[tuple[Callable[[Path], None], type[WindrowError] | None]] = [
    (truncate, CorruptWindowFile),
    (mistype, MistypedWindowFile),
    (oversize, FileTooLarge),
    (empty, None),
    (change_one_value, None),
    (Path.unlink, None),
]


@pytest.fixture(scope="module")
def submitted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose window is uploaded."""
    home = Home.make(tmp_path_factory.mktemp("submitted") / "home", tiny)
    assert home.mine().success
    return home


@pytest.mark.parametrize(("damage", "reader_says"), DAMAGES)
def test_a_file_damaged_after_its_checks_is_not_uploaded(
    submitted: Home,
    undisturbed: pa.Table,
    damage: Callable[[Path], None],
    reader_says: type[WindrowError] | None,
) -> None:
    home = submitted
    home.resource("bucket").delete(home.key())
    damage(home.window_file())
    if reader_says is not None:
        with pytest.raises(reader_says):
            read_window_file(home.window_file())
    refused = home.materialize("upload")
    words = (str(home.window_file()), "materialize submission again")
    assert_named(home, refused, "upload", "ChangedSubmission", *words)
    assert home.uploaded() is None
    assert home.materialize("submission", "upload").success
    assert home.groups().equals(undisturbed.slice(0, 32))


def test_a_file_of_no_rows_reads_as_no_rows(submitted: Home, tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    path.write_bytes(submitted.window_file().read_bytes())
    empty(path)
    assert read_window_file(path).rollouts.num_rows == 0
