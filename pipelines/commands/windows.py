"""`windrow windows`: make windows known to Dagster, so that a backfill can be given them."""

from rich.console import Console

from windrow import WindrowError
from windrow.networks.grail.constants import WINDOW_BLOCKS
from windrow.networks.grail.windows import parse_window, window_start
from windrow.pipelines.commands.folder import require_instance
from windrow.pipelines.live import open_chain
from windrow.pipelines.retention import KEPT_WINDOWS
from windrow.resources.configuration.settings import Settings

KEYS_PER_STATEMENT = 1_000
"""Some builds of SQLite take no more than 32,766 values in one statement."""


class NoSuchWindows(WindrowError):
    """A range that cannot be registered."""


def register(out: Console, first: str, last: str) -> None:
    """Register the windows of a range, and say how to backfill them.

    Raises NoSuchWindows, NoInstance.
    """
    keys = _keys(first, last)
    newest = window_start(open_chain(Settings.read()).block())
    if int(keys[-1]) > newest:
        raise NoSuchWindows(f"window {keys[-1]} is still to come; the newest is {newest}")
    require_instance()
    from windrow.assets.window.partitions import windows
    from windrow.pipelines.instance import open_instance

    with open_instance() as instance:
        known = set(instance.get_dynamic_partitions(windows.name))
        new = [key for key in keys if key not in known]
        for start in range(0, len(new), KEYS_PER_STATEMENT):
            instance.add_dynamic_partitions(windows.name, new[start : start + KEYS_PER_STATEMENT])
    out.print(
        f"{len(keys)} windows are registered, {len(new)} of them new. To mine them, while "
        "`windrow ui` or Dagster's daemon runs:\n"
        f"  windrow dagster job backfill -w workspace.yaml -j mine_window "
        f"--from {keys[0]} --to {keys[-1]} --noprompt\n"
        "For windows that have been mined, prove_window proves again and validate_window scores "
        "again.",
        soft_wrap=True,
        highlight=False,
    )


def _keys(first: str, last: str) -> list[str]:
    bounds = []
    for key in (first, last):
        window = parse_window(key)
        if window is None:
            raise NoSuchWindows(
                f"{key} is no window: a window is its first block, a multiple of {WINDOW_BLOCKS}"
            )
        bounds.append(window)
    keys = range(bounds[0], bounds[1] + 1, WINDOW_BLOCKS)
    if not 0 < len(keys) <= KEPT_WINDOWS:
        raise NoSuchWindows(
            f"{first} to {last} are {len(keys)} windows; register 1 to {KEPT_WINDOWS} at once, "
            "the older one first: Dagster keeps no more"
        )
    return [str(window) for window in keys]
