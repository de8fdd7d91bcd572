"""Real window runs in a home of their own, and what they must leave behind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.embedded import WINDOW, mine
from windrow.networks.grail.bucket import window_file_key
from windrow.networks.grail.window_file import read_window_file
from windrow.pipelines.build import build
from windrow.pipelines.demo.network import trainer
from windrow.resources.checkpoints.files import verify_checkpoint
from windrow.resources.checkpoints.publishing import publish_full
from windrow.resources.configuration.settings import Settings
from windrow.resources.storage.object_store import ObjectInfo, open_bucket

GROUP_COLUMNS = (
    "nonce",
    "problem_seed",
    "request_seed",
    "tokens",
    "reward",
    "advantage",
    "sketches",
    "token_logprobs",
)
"""What a group is; how long it took and when it was made may differ."""


@dataclass(frozen=True)
class Home:
    """An embedded Windrow in a folder."""

    path: Path
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    @classmethod
    def make(cls, path: Path, checkpoint: Path, **variables: str) -> "Home":
        """A home whose trainer has published a checkpoint for every window after the first."""
        settings = Settings.read({"WINDROW_HOME": str(path), **variables})
        if not open_bucket(settings.bucket).list():
            publish(settings.bucket, checkpoint, ready_window=0)
        return cls(path, build(settings), dg.DagsterInstance.ephemeral())

    def resource(self, name: str) -> Any:
        return (self.definitions.resources or {})[name]

    @property
    def hotkey(self) -> str:
        return str(self.resource("wallet").hotkey)

    def mine(self, groups: int = 2, window: int = WINDOW) -> dg.ExecuteInProcessResult:
        """All of a window, in this process."""
        return mine(self.definitions, self.instance, window, groups)

    def materialize(self, *assets: str, job: str = "mine_window") -> dg.ExecuteInProcessResult:
        """Some assets of a window, in this process."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=str(WINDOW),
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            raise_on_error=False,
        )

    def faults(self, window: int = WINDOW) -> list[dict[str, Any]]:
        """The rows of the lake's faults, oldest first."""
        lake = self.resource("lake")
        if not lake.exists("faults", window):
            return []
        rows: list[dict[str, Any]] = lake.read("faults", window).sort_by("recorded_at").to_pylist()
        return rows

    def spooled(self, window: int = WINDOW) -> list[int]:
        """Numbers of the groups in the spool."""
        files = (self.path / "spool" / f"window_start={window}").rglob("group-*.parquet")
        return sorted(int(path.stem.removeprefix("group-")) for path in files)

    def groups(self, window: int = WINDOW) -> pa.Table:
        """GROUP_COLUMNS of the rollouts that are in the lake and in the bucket alike."""
        lake = self.resource("lake")
        made = lake.read("rollouts", window, self.hotkey).sort_by("nonce")
        proofs = lake.read("proofs", window, self.hotkey).sort_by("nonce")
        for name in ("sketches", "token_logprobs"):
            made = made.append_column(name, proofs[name])
        sent = read_window_file(self.resource("bucket").get(self.key(window))).rollouts
        sent = sent.sort_by("nonce")
        assert sent["tokens"].equals(made["tokens"])
        assert sent["token_logprobs"].equals(made["token_logprobs"])
        return made.select(GROUP_COLUMNS)

    def key(self, window: int = WINDOW) -> str:
        return window_file_key(self.hotkey, window)

    def uploaded(self, window: int = WINDOW) -> ObjectInfo | None:
        """The window's object in the bucket."""
        info: ObjectInfo | None = self.resource("bucket").head(self.key(window))
        return info

    def window_file(self, window: int = WINDOW) -> Path:
        """The finished file that waits for its upload."""
        folder = self.path / "lake" / "window_files" / f"window_start={window}"
        return folder / f"{self.hotkey}.parquet"


def publish(bucket: str | Path, checkpoint: Path, *, ready_window: int) -> None:
    """Publish a folder as the embedded trainer does."""
    publish_full(
        open_bucket(bucket),
        verify_checkpoint(checkpoint),
        ready_window=ready_window,
        sign=trainer().sign,
    )


def assert_refused(
    home: Home,
    result: dg.ExecuteInProcessResult,
    step: str,
    reason: str,
    *words: str,
    window: int = WINDOW,
) -> None:
    """The run failed in one step by a named error, and left nothing half done."""
    assert_named(home, result, step, reason, *words, window=window)
    assert_nothing_partial(home.path)


def assert_named(
    home: Home,
    result: dg.ExecuteInProcessResult,
    step: str,
    reason: str,
    *words: str,
    window: int = WINDOW,
) -> None:
    """The run failed in one step by an error that the lake holds as a row too."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert event.step_key == step
    said = event.step_failure_data.user_failure_data
    assert said is not None, event.step_failure_data.error
    assert said.metadata["reason"].value == reason
    for word in words:
        assert word in (said.description or "")
    rows = [
        (row["stage"], row["reason"], row["detail"])
        for row in home.faults(window)
        if row["run_id"] == result.run_id and row["rollout_group"] is None
    ]
    assert rows == [(step, reason, said.description)]


def assert_nothing_partial(path: Path) -> None:
    """Every object that can be seen in bucket, lake and cache is whole, and nothing lies about."""
    assert_visible_is_whole(path)
    leftovers = [
        file
        for pattern in ("*.tmp", "*.partial", "*#*")
        for folder in ("bucket", "lake", "cache", "spool")
        for file in (path / folder).rglob(pattern)
    ]
    assert leftovers == []


def assert_visible_is_whole(path: Path) -> None:
    """Every object that a reader of bucket, lake or cache would take up is whole."""
    for name in ("lake", "spool"):
        for file in (path / name).rglob("[!.]*.parquet"):
            pq.read_metadata(file)
    for info in open_bucket(path / "bucket").list("grail/windows/"):
        read_window_file(open_bucket(path / "bucket").get(info.key))
    for folder in (path / "cache" / "checkpoints").glob("checkpoint-*"):
        if not folder.name.endswith(".partial"):
            verify_checkpoint(folder)


def assert_completes(home: Home, expected: pa.Table, groups: int = 2) -> None:
    """Run once more, with nothing in the way: the window ends with these groups, uploaded."""
    kept = home.spooled()
    result = home.mine(groups)
    assert result.success, home.faults()
    assert set(kept) <= set(home.spooled())
    made = home.groups()
    assert made.equals(expected.slice(0, 16 * groups))
