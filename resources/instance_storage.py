"""Dagster's SQLite files: created by one process at a time, examined and repaired.

Several processes that create these files at once leave two revisions in `alembic_version`, and
Dagster then refuses the file for good. `dagster.yaml` names `SqliteStorage`, so every process that
opens the instance takes the lock: `windrow`, `dagster`, the webserver, the daemon and run workers.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sql import get_alembic_config
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Engine
from yaml import YAMLError

from windrow import WindrowError
from windrow.resources.locks import file_lock

REPAIR: Final = "windrow doctor --repair"
LOCK: Final = ".opening.lock"
BACKUP: Final = ".before-repair"
BUSY_SECONDS: Final = 30.0
_DAGSTERS_OWN: Final = DagsterSqliteStorage.__name__


class BrokenInstance(WindrowError):
    """A database of the Dagster instance cannot be used."""


class SqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage, whose files only one process at a time creates.

    Configured in dagster.yaml as `storage: {custom: {module, class, config: {base_dir}}}`.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the files, created where missing. Raises BrokenInstance, DiskFull, PathRefused."""
        folder = Path(base_dir).absolute()
        with file_lock(folder / LOCK), explaining(folder):
            super().__init__(base_dir, inst_data)
        self._event_log_storage = SqliteEventLogs(str(folder / "history" / "runs"))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return the storage of a configuration."""
        return cls.from_local(inst_data=inst_data, **config_value)


class SqliteEventLogs(SqliteEventLogStorage):
    """Event logs with one file a run: the run and whoever watches it may open it first."""

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        with file_lock(Path(self._base_dir) / LOCK):
            super()._initdb(engine, for_index_shard)


@contextlib.contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Raise BrokenInstance with the remedy where Dagster finds two revisions in a file."""
    try:
        yield
    except CommandError as error:
        if "more than one head" not in str(error):
            raise
        broken = [database.path.name for database in databases(folder) if database.broken]
        raise BrokenInstance(
            f"Dagster's databases below {folder} have more than one revision: "
            f"{', '.join(broken[:5]) or error}. Stop every Windrow and Dagster process, then run "
            f"`{REPAIR}`. It keeps all runs."
        ) from error


@dataclass(frozen=True)
class Database:
    """One SQLite file of the instance. revisions: rows of its alembic_version.

    problem: why SQLite cannot read it, empty where it can.
    """

    path: Path
    revisions: tuple[str, ...] = ()
    problem: str = ""

    @property
    def broken(self) -> bool:
        """Whether Dagster refuses the file because of its revisions."""
        return len(self.revisions) > 1


def databases(folder: Path) -> list[Database]:
    """Every database below a storage folder: runs, schedules, the index, and one log a run."""
    found = [folder / "history" / "runs.db", folder / "schedules" / "schedules.db"]
    found += sorted((folder / "history" / "runs").glob("*.db"))
    return [_examined(path) for path in found if path.exists()]


def _examined(path: Path) -> Database:
    try:
        with contextlib.closing(_connected(path, "ro")) as connection:
            return Database(path, _revisions(connection))
    except sqlite3.Error as error:
        return Database(path, problem=str(error))


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _revisions(connection: sqlite3.Connection) -> tuple[str, ...]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    if ("alembic_version",) not in tables.fetchall():
        return ()  # being created, or created by a process that was killed: opening completes it
    rows = connection.execute("SELECT version_num FROM alembic_version ORDER BY version_num")
    return tuple(str(revision) for (revision,) in rows)


def repair(folder: Path) -> list[Database]:
    """Leave one revision in every database that has more; return those that were changed.

    A copy of each stays beside it, as `NAME.db.before-repair`. Raises BrokenInstance where a
    revision is unknown to the installed Dagster, before anything is changed.
    """
    with file_lock(folder / LOCK):
        broken = [database for database in databases(folder) if database.broken]
        kept = {database.path: _newest(database) for database in broken}
        for path, revision in kept.items():
            _keep_only(path, revision)
    if broken:
        head = _scripts().get_current_head()
        _complete(folder, migrate=any(revision != head for revision in kept.values()))
    return broken


def _scripts() -> ScriptDirectory:
    import dagster._core.storage.runs.sqlite.sqlite_run_storage as module

    return ScriptDirectory.from_config(get_alembic_config(str(module.__file__)))


def _newest(database: Database) -> str:
    """The revision of a file that every other one of it leads to."""
    try:
        ancestors = {
            revision: {script.revision for script in _scripts().iterate_revisions(revision, "base")}
            for revision in database.revisions
        }
    except (CommandError, RevisionError) as error:
        raise BrokenInstance(
            f"{database.path} has revisions that Dagster here does not know ({error}). Install the "
            f"Dagster version that wrote it, then run `{REPAIR}`."
        ) from error
    for revision, known in ancestors.items():
        if known.issuperset(database.revisions):
            return revision
    raise BrokenInstance(
        f"{database.path} has revisions of two branches: {', '.join(database.revisions)}. Move the "
        "file away. Dagster creates it empty; the lake keeps every result."
    )


def _keep_only(path: Path, revision: str) -> None:
    with contextlib.closing(_connected(path, "rw")) as connection:
        copy = path.with_name(path.name + BACKUP)
        with contextlib.closing(sqlite3.connect(copy)) as backup:
            connection.backup(backup)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM alembic_version WHERE version_num <> ?", (revision,))
        connection.execute("COMMIT")


def _complete(folder: Path, *, migrate: bool) -> None:
    """Do what the interrupted creation left undone: as `dagster instance migrate` would."""
    storage = SqliteStorage(str(folder))
    runs, schedules = storage._run_storage, storage._schedule_storage
    events = storage._event_log_storage
    if migrate:
        for part in (runs, events, schedules):
            part.upgrade()
    for part in (runs, schedules):
        part.migrate()
        part.optimize()
    events.reindex_events()
    events.reindex_assets()
    storage.dispose()


@dataclass(frozen=True)
class SqliteFolder:
    """Where an instance keeps its SQLite files. locked: its dagster.yaml names SqliteStorage."""

    path: Path
    locked: bool


def sqlite_folder(dagster_home: Path) -> SqliteFolder | None:
    """Return the SQLite folder of an instance; None where it uses another kind of storage.

    A relative folder counts from the working folder, as Dagster has it. Raises BrokenInstance for
    a dagster.yaml that cannot be read.
    """
    from dagster import DagsterError
    from dagster._core.instance.ref import InstanceRef

    try:
        data = InstanceRef.from_dir(str(dagster_home)).storage_data
    except (DagsterError, OSError, ValueError, YAMLError) as error:
        raise BrokenInstance(
            f"{dagster_home / 'dagster.yaml'} cannot be read: {str(error)[:500]}"
        ) from error
    if data is None or data.class_name not in (SqliteStorage.__name__, _DAGSTERS_OWN):
        return None
    folder = data.config_dict["base_dir"]
    if isinstance(folder, dict):
        folder = os.environ.get(str(folder.get("env")), "")
    return SqliteFolder(Path(folder).absolute(), data.module_name == __name__)
