"""Full disks and a read-only bucket: the groups stay, nothing half done shows, a re-run completes.

One process meets them all, because starting one costs more than its windows. The full cache comes
last: weights in use take up their room on a disk even when they are deleted.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.runs import (
    Home,
    assert_completes,
    assert_nothing_partial,
    assert_refused,
)
from tests.support.disks import run_on_failing_disks
from tests.support.embedded import WINDOW
from windrow.resources.storage.object_store import Bucket, ObjectInfo

FAULTS = (
    "full_spool",
    "full_lake",
    "full_window_files",
    "full_locks",
    "full_bucket",
    "read_only_bucket",
    "full_cache",
)


def test_disks_that_fail(tiny: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    """The faults of this module, by name, in a process with failing disks."""
    pq.write_table(undisturbed, tmp_path / "undisturbed.parquet")
    run_on_failing_disks(
        f"""
from tests.faults import test_disks
disks = test_disks.Disks(Path({str(tmp_path)!r}), Path({str(tiny)!r}), small, read_only)
for fault in test_disks.FAULTS:
    getattr(test_disks, fault)(disks)
    disks.empty()
""",
        small=tmp_path / "small",
        read_only=tmp_path / "read_only",
    )


class Disks:
    """What the process on failing disks works with."""

    def __init__(self, folder: Path, tiny: Path, small: Path, read_only: Path) -> None:
        self.folder, self.tiny, self.small, self.read_only = folder, tiny, small, read_only
        self.undisturbed = pq.read_table(folder / "undisturbed.parquet")

    def home(self, name: str, linked: str, target: Path) -> Home:
        """A home with one of its folders on another disk."""
        path = self.folder / name
        (path / linked).parent.mkdir(parents=True)
        target.mkdir(exist_ok=True)
        (path / linked).symlink_to(target)
        return Home.make(path, self.tiny)

    def empty(self) -> None:
        """Make the small disk as it was."""
        for path in self.small.iterdir():
            shutil.rmtree(path)

    def fill(self, leaving: int) -> None:
        """Fill the small disk up to some bytes."""
        free = shutil.disk_usage(self.small).free
        (self.small / "filler").write_bytes(bytes(free - leaving))

    def free(self) -> None:
        (self.small / "filler").unlink()
        assert not [*self.small.rglob("*.tmp"), *self.small.rglob("*.partial")]
        assert not list(self.small.rglob("*#*"))


def full_spool(disks: Disks) -> None:
    home = disks.home("full spool", "spool", disks.small / "spool")
    disks.fill(leaving=28 * 1024)  # one group of 16 KiB
    refused = home.mine()
    assert_refused(home, refused, "window_stream", "SpoolError", "No space left", "make room")
    assert home.spooled() == [0]
    disks.free()
    assert_completes(home, disks.undisturbed)


def full_lake(disks: Disks) -> None:
    home = disks.home("full lake", "lake", disks.small / "lake")
    assert home.materialize("beacon", "checkpoint").success
    disks.fill(leaving=36 * 1024)  # the rollouts and a row of the faults, not the proofs
    refused = home.mine(groups=4)
    assert_refused(home, refused, "window_stream", "DiskFull", "proofs", "free space")
    assert not home.resource("lake").exists("proofs", WINDOW)
    disks.free()
    disks.fill(leaving=0)
    refused = home.mine(groups=4)
    (event,) = [event for event in refused.all_events if event.is_step_failure]
    said = event.step_failure_data.user_failure_data
    assert said.metadata["reason"].value == "DiskFull"
    assert "could not be kept in the lake" in said.description
    assert_nothing_partial(home.path)
    disks.free()
    assert home.spooled() == list(range(4))
    assert_completes(home, disks.undisturbed, groups=4)


def full_window_files(disks: Disks) -> None:
    home = disks.home("full window files", "lake/window_files", disks.small / "window_files")
    disks.fill(leaving=8 * 1024)
    refused = home.mine()
    assert_refused(home, refused, "submission", "DiskFull", "window_files", "free space")
    assert not home.window_file().exists()
    disks.free()
    assert_completes(home, disks.undisturbed)


def full_locks(disks: Disks) -> None:
    home = disks.home("full locks", "locks", disks.small / "locks")
    disks.fill(leaving=0)
    refused = home.mine()
    assert_refused(home, refused, "window_stream", "DiskFull", "locks", "free space")
    disks.free()
    assert_completes(home, disks.undisturbed)


def full_bucket(disks: Disks) -> None:
    home = disks.home("full bucket", "bucket/grail/windows", disks.small / "windows")
    disks.fill(leaving=8 * 1024)
    refused = home.mine()
    assert_refused(home, refused, "upload", "BucketFull", home.key(), "make room")
    assert home.uploaded() is None
    disks.free()
    assert_completes(home, disks.undisturbed)


def full_cache(disks: Disks) -> None:
    home = disks.home("full cache", "cache", disks.small / "cache")
    disks.fill(leaving=8 * 1024)
    refused = home.mine()
    assert_refused(home, refused, "checkpoint", "CheckpointTooLarge", "make room")
    disks.free()
    cache, bucket = home.resource("checkpoints"), home.resource("bucket")
    object.__setattr__(cache, "store", Filling(bucket._store, "filling", disks))
    refused = home.mine()
    assert_refused(home, refused, "checkpoint", "DiskFull", "free space")
    object.__setattr__(cache, "store", bucket)
    disks.free()
    assert_completes(home, disks.undisturbed)


class Filling(Bucket):
    """A real bucket, fetched from while somebody else fills the disk."""

    def __init__(self, store: Any, name: str, disks: Disks) -> None:
        super().__init__(store, name)
        self.disks = disks

    def get_to_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        if key.endswith(".safetensors"):
            self.disks.fill(leaving=8 * 1024)
        return super().get_to_file(key, path, **options)


def read_only_bucket(disks: Disks) -> None:
    home = disks.home("read-only bucket", "bucket/grail/windows", disks.read_only)
    refused = home.mine()
    assert_refused(home, refused, "upload", "BucketRefused", home.key(), "Check its permissions")
    assert home.uploaded() is None
    (home.path / "bucket/grail/windows").unlink()
    assert_completes(home, disks.undisturbed)
