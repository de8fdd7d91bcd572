"""A damaged lake: what is derived is made again, a damaged file costs its own window."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.lake_rows import rows_of
from windrow.resources.warehouse import healing
from windrow.resources.warehouse.catalogue import CATALOGUE, QueryFailed
from windrow.resources.warehouse.compaction import WINDOWS_PER_FILE
from windrow.resources.warehouse.files import LakeFileUnreadable, LakeVersionUnknown
from windrow.resources.warehouse.healing import Action
from windrow.resources.warehouse.lake import Lake
from windrow.resources.warehouse.manifest import MANIFEST, Manifest

DAY = 30 * WINDOWS_PER_FILE
OPEN = 3 * DAY
WINDOWS = (0, 30, DAY, DAY + 30, OPEN)
COUNTS = "SELECT window_start, count(*) AS n FROM verdicts GROUP BY ALL ORDER BY ALL"


def made(root: Path) -> Lake:
    """Two merged days and an open one, of three rows a window."""
    lake = Lake(root)
    for window in WINDOWS:
        for name in ("a", "b") if window else ("a",):
            lake.write("verdicts", window, name, rows_of("verdicts", window, 3))
            lake.write("scores", window, name, rows_of("scores", window, 3))
    lake.compact(before=OPEN, grace_seconds=0.0)
    assert len(Manifest.load(root).files("verdicts")) == 2
    return lake


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "lake"
    made(root)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "lake"
    shutil.copytree(sound, copy)
    _ = Lake(copy).catalogue  # a copy has views of its own
    return copy


def counted(root: Path) -> dict[int, int]:
    return {row["window_start"]: row["n"] for row in Lake(root).query(COUNTS).to_pylist()}


ALL = {window: 6 if window else 3 for window in WINDOWS}


def zero(path: Path) -> None:
    path.write_bytes(bytes(100))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))


DAMAGES = [zero, Path.unlink]


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "derived",
    [
        CATALOGUE,
        MANIFEST,
        "verdicts/generations/*.parquet",
        "verdicts/window_start=-1/empty.parquet",
        "scores/generations/*.parquet",
    ],
)
def test_what_is_derived_is_made_again(
    root: Path, derived: str, damage: Callable[[Path], None]
) -> None:
    for path in root.glob(derived):
        damage(path)
    assert counted(root) == ALL
    assert {damage.action for damage in healing.repair(root)} <= {Action.REBUILD}
    assert healing.check(root) == []
    assert not (root / healing.QUARANTINE).exists()
    Lake(root).write("verdicts", OPEN + 30, "a", rows_of("verdicts", OPEN + 30, 3))
    assert counted(root) == ALL | {OPEN + 30: 3}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_summary_is_made_again(root: Path, damage: Callable[[Path], None]) -> None:
    summaries = [root / s for f in Manifest.load(root).files("verdicts") for s in f.summaries]
    assert summaries
    view = summaries[0].name.split(".")[2].rpartition("-")[0]
    before = Lake(root).query(f"SELECT * FROM {view} ORDER BY ALL")
    damage(summaries[0])
    assert [found.path for found in healing.check(root)] == [str(summaries[0].relative_to(root))]
    assert Lake(root).query(f"SELECT * FROM {view} ORDER BY ALL").equals(before)
    assert healing.check(root) == []


@pytest.mark.parametrize("damage", [empty, halve])
def test_a_damaged_file_costs_its_own_window(root: Path, damage: Callable[[Path], None]) -> None:
    damage(root / "verdicts" / f"window_start={OPEN}" / "a.parquet")
    lake = Lake(root)
    assert counted(root) == ALL | {OPEN: 3}
    assert (root / "quarantine" / "verdicts" / f"window_start={OPEN}" / "a.parquet").exists()
    (fault,) = lake.query("SELECT * FROM faults").to_pylist()
    assert (fault["window_start"], fault["stage"], fault["reason"]) == (
        OPEN,
        "verdicts",
        "LakeFileDamaged",
    )
    assert f"--select verdicts --partition {OPEN}" in fault["detail"]
    lake.write("verdicts", OPEN, "a", rows_of("verdicts", OPEN, 3))
    assert counted(root) == ALL


def test_a_damaged_file_costs_a_compaction_nothing_else(root: Path) -> None:
    halve(root / "verdicts" / f"window_start={OPEN}" / "b.parquet")
    done = Lake(root).compact(before=OPEN + DAY, grace_seconds=0.0)
    assert {each.dataset for each in done} >= {"scores"}
    assert counted(root) == ALL | {OPEN: 3}


def test_a_damaged_merged_file_costs_its_day(root: Path) -> None:
    merged = root / Manifest.load(root).files("verdicts")[0].path
    halve(merged)
    assert counted(root) == {window: n for window, n in ALL.items() if window >= DAY}
    faults = Lake(root).query("SELECT DISTINCT window_start FROM faults ORDER BY ALL").to_pylist()
    assert [row["window_start"] for row in faults] == [0, 30]


def test_a_lost_manifest_never_costs_merged_rows(root: Path) -> None:
    """Without it, a compaction would have swept the merged files away."""
    (root / MANIFEST).unlink()
    Lake(root).compact(before=OPEN, grace_seconds=0.0)
    assert counted(root) == ALL


def test_a_window_that_left_its_merged_file_stays_out_of_it(root: Path) -> None:
    lake = Lake(root)
    lake.write("verdicts", DAY, "a", rows_of("verdicts", DAY, 1), replace=True)
    assert counted(root)[DAY] == 4
    zero(root / MANIFEST)
    assert counted(root)[DAY] == 4


@pytest.mark.parametrize("name", ["window_start=abc", "window_start=", "window_start=31"])
def test_a_folder_that_is_no_window_is_moved_away(root: Path, name: str) -> None:
    shutil.copytree(root / "verdicts" / f"window_start={OPEN}", root / "verdicts" / name)
    assert [found.path for found in healing.glance(root)] == [f"verdicts/{name}"]
    assert healing.repair(root)[0].path == f"verdicts/{name}"
    assert counted(root) == ALL
    assert (root / "quarantine" / "verdicts" / name).is_dir()


def test_a_folder_of_letters_stops_no_query(root: Path) -> None:
    source = root / "verdicts" / f"window_start={OPEN}"
    shutil.copytree(source, root / "verdicts" / "window_start=abc")
    assert counted(root) == ALL


def test_check_names_foreign_files_and_other_versions(root: Path) -> None:
    folder = root / "verdicts" / f"window_start={OPEN}"
    pq.write_table(pa.table({"x": [1]}), folder / "foreign.parquet")
    shutil.copy(root / "scores" / f"window_start={OPEN}" / "a.parquet", folder / "scores.parquet")
    schema = pq.read_schema(folder / "a.parquet")
    later = schema.with_metadata({**schema.metadata, b"windrow.schema_version": b"999"})
    pq.write_table(pq.read_table(folder / "a.parquet").cast(later), folder / "later.parquet")
    (folder / "note.txt").write_text("x")
    found = {Path(damage.path).name: damage.reason for damage in healing.check(root)}
    assert set(found) == {"foreign.parquet", "scores.parquet", "later.parquet", "note.txt"}
    assert "version 999" in found["later.parquet"]
    assert "holds scores" in found["scores.parquet"]
    healing.repair(root)
    assert [Path(damage.path).name for damage in healing.check(root)] == ["later.parquet"]
    assert (folder / "later.parquet").exists()  # the release that wrote it can read it
    (folder / "later.parquet").unlink()
    assert counted(root) == ALL


def test_a_compaction_names_a_file_of_a_newer_release_and_leaves_it(root: Path) -> None:
    path = root / "verdicts" / f"window_start={OPEN}" / "a.parquet"
    schema = pq.read_schema(path)
    later = schema.with_metadata({**schema.metadata, b"windrow.schema_version": b"999"})
    pq.write_table(pq.read_table(path).cast(later), path)
    with pytest.raises(LakeVersionUnknown, match="version 999"):
        Lake(root).compact(before=OPEN + DAY, grace_seconds=0.0)
    assert path.exists()


def test_a_file_that_the_machine_cannot_read_stays_where_it_is(root: Path) -> None:
    path = root / "verdicts" / f"window_start={OPEN}" / "a.parquet"
    sound = path.read_bytes()
    path.unlink()
    path.symlink_to(path.name)  # too many levels of links: an error of the machine
    with pytest.raises(LakeFileUnreadable, match=r"a\.parquet cannot be read: "):
        Lake(root).heal(f"'{path}'")
    assert path.is_symlink()
    path.unlink()
    path.write_bytes(sound)
    assert counted(root) == ALL


def test_a_merged_file_without_its_list_is_kept_when_the_manifest_is_lost(root: Path) -> None:
    merged = Manifest.load(root).files("verdicts")[0].path
    halve(root / merged)
    (root / MANIFEST).unlink()
    lake = Lake(root)
    lake.compact(before=OPEN, grace_seconds=0.0)
    assert (root / healing.QUARANTINE / merged).exists()
    assert counted(root) == {window: n for window, n in ALL.items() if window >= DAY}
    faults = lake.query("SELECT DISTINCT window_start FROM faults ORDER BY ALL").to_pylist()
    assert {0, 30} <= {row["window_start"] for row in faults}


def test_a_repair_removes_what_a_killed_process_left(root: Path) -> None:
    merged = root / Manifest.load(root).files("verdicts")[0].path
    orphan = merged.with_name(f"{90 * DAY}-{91 * DAY - 30}.99.parquet")
    shutil.copy(merged, orphan)
    temporary = root / "verdicts" / f"window_start={OPEN}" / ".a.parquet.1.ab.tmp"
    temporary.write_bytes(b"x")
    os.utime(temporary, (0, 0))
    assert {damage.action for damage in healing.repair(root)} == {Action.REMOVE}
    assert not orphan.exists()
    assert not temporary.exists()
    assert healing.check(root) == []


def test_a_flipped_byte_is_found(root: Path) -> None:
    merged = root / Manifest.load(root).files("verdicts")[0].path
    flip(merged)
    found = healing.check(root)
    assert [damage.path for damage in found] == [str(merged.relative_to(root))]
    assert found[0].windows == (0, 30)


def test_a_wrong_query_heals_nothing(root: Path) -> None:
    before = sorted(path for path in root.rglob("*"))
    for sql in ("SELECT nothing FROM verdicts", "SELECT 'x'::INTEGER", "SELECT * FROM nowhere"):
        with pytest.raises(QueryFailed):
            Lake(root).query(sql)
    assert sorted(path for path in root.rglob("*")) == before


def test_the_command_says_what_is_wrong_and_puts_it_right(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from windrow.pipelines.cli import app

    monkeypatch.setenv("WINDROW_LAKE", str(root))
    monkeypatch.setenv("COLUMNS", "200")

    def lake(*arguments: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, ["lake", "check", *arguments])
        return ended.exit_code, ended.output

    assert lake()[0] == 0
    zero(root / "verdicts" / f"window_start={OPEN}" / "a.parquet")
    status, said = lake()
    assert status == 1
    assert "windrow lake check --repair" in said
    status, said = lake("--repair")
    assert status == 0
    assert f"--select verdicts --partition {OPEN}" in " ".join(said.split())
    assert "can be read" in lake()[1]
    assert counted(root) == ALL | {OPEN: 3}
