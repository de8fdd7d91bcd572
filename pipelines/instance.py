"""The Dagster instance of DAGSTER_HOME, opened by one process at a time."""

import os
from pathlib import Path

import dagster as dg

from windrow.resources.instance_storage import LOCK, explaining, sqlite_folder
from windrow.resources.locks import file_lock


def open_instance() -> dg.DagsterInstance:
    """Open the instance. Raises BrokenInstance.

    A dagster.yaml of Windrow's names a storage that locks by itself. Under another one, or under
    none, Dagster's own SQLite storage must not be created by two processes at once either.
    """
    home = os.environ.get("DAGSTER_HOME")
    folder = sqlite_folder(Path(home)) if home else None
    if folder is None or folder.locked:
        return dg.DagsterInstance.get()
    with file_lock(folder.path / LOCK), explaining(folder.path):
        return dg.DagsterInstance.get()
