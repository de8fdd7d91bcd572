"""`windrow node verify`: a run a node, some at the same time, in processes that take turns."""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console

from windrow.engine.fleet.stages import STAGES, concerned
from windrow.pipelines.commands.folder import require_instance
from windrow.pipelines.commands.node_table import print_nodes
from windrow.resources.configuration.settings import Settings
from windrow.resources.fleet.inventory_file import FleetFile
from windrow.resources.warehouse.lake import Lake

if TYPE_CHECKING:
    import dagster as dg

FINE, WRONG, LOST = 0, 1, 2


def verify_nodes(out: Console, names: Sequence[str], *, whole: bool, at_once: int) -> int:
    """Verify nodes and print what came of it; the exit status.

    Raises UnknownNode, InvalidFleet and NoInstance, before anything is asked.
    """
    from windrow.assets.fleet.standings import standings

    settings = Settings.read()
    declared, lake = FleetFile(settings.fleet).load(), Lake(settings.lake)
    chosen = [declared.node(name).name for name in dict.fromkeys(names)] or [*declared.nodes]
    if not chosen:
        out.print(f"{settings.fleet} declares no nodes; windrow node add declares one")
        return LOST
    before = standings(lake, chosen, time.time())
    todo = {
        name: concerned(
            STAGES if whole or before[name].state == "verified" else before[name].remaining,
            declared.nodes[name].networks,
        )
        for name in chosen
    }
    require_instance()
    done = _run_all(todo, at_once)
    wrong = print_nodes(out, lake, declared, chosen)
    return LOST if not all(done) else WRONG if wrong else FINE


def _run_all(todo: Mapping[str, Sequence[str]], at_once: int) -> list[bool]:
    """Whether each node's run came to its end. Dagster runs one at a time in a process."""
    workers = min(at_once, len(todo))
    if workers == 1:
        done = [_run(name, stages) for name, stages in todo.items()]
        _bring_page_up_to_date()
        return done
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as pool:
        done = list(pool.map(_run, todo.keys(), todo.values()))
        pool.submit(_bring_page_up_to_date).result()
        return done


def _run(name: str, stages: Sequence[str]) -> bool:
    definitions, instance = _loaded()
    return run_node(definitions, instance, name, stages)


def _bring_page_up_to_date() -> None:
    definitions, instance = _loaded()
    run_page(definitions, instance)


@cache
def _loaded() -> "tuple[dg.Definitions, dg.DagsterInstance]":
    from windrow.pipelines.definitions import defs
    from windrow.pipelines.instance import open_instance

    return defs, open_instance()


def run_node(
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    name: str,
    stages: Sequence[str] = STAGES,
    log_level: str = "CRITICAL",
) -> bool:
    """One run of some steps of a node; whether it came to its end."""
    result = _of(definitions.resolve_job_def("verify_node"), tuple(stages)).execute_in_process(
        partition_key=name,
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
        tags={"node": name, "lane": "fleet"},
        raise_on_error=False,
    )
    return result.success


def run_page(definitions: "dg.Definitions", instance: "dg.DagsterInstance") -> None:
    """One run of the fleet's page."""
    definitions.resolve_job_def("show_fleet").execute_in_process(
        instance=instance,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags={"lane": "fleet"},
    )


@cache
def _of(job: "dg.JobDefinition", stages: tuple[str, ...]) -> "dg.JobDefinition":
    """The job of these steps, made once: Dagster would make it again for every run."""
    import dagster as dg

    if stages == STAGES:
        return job
    return job.get_subset(asset_selection={dg.AssetKey(stage) for stage in stages})
