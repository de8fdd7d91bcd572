"""What outlives a run, as Prometheus metrics: generation servers and proof workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from windrow.resources.generation.process import ServerProcess
from windrow.resources.proof_pool.processes import workers_at

HELLO_SECONDS: Final = 1.0
"""A worker that says nothing for so long counts as hung; nothing long is done while it is asked."""


class PartsCollector(Collector):
    """Servers and workers that runs have left under a home folder, looked for at every scrape."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["kind", "name"]
        up = GaugeMetricFamily("windrow_part_up", "1: it lives and answers", labels=labels)
        resident = GaugeMetricFamily(
            "windrow_part_resident_memory_bytes", "memory of its process", labels=labels
        )
        cpu = GaugeMetricFamily(
            "windrow_part_cpu_seconds", "processor time of its process", labels=labels
        )
        reloads = GaugeMetricFamily(
            "windrow_proof_worker_reloads_in_place", "checkpoints it turned to", labels=["name"]
        )
        for kind, name, pid in self._found(reloads):
            up.add_metric([kind, name], float(pid is not None))
            try:
                process = psutil.Process(pid) if pid is not None else None
                if process is not None:
                    resident.add_metric([kind, name], process.memory_info().rss)
                    times = process.cpu_times()
                    cpu.add_metric([kind, name], times.user + times.system)
            except psutil.Error:
                continue  # it ended meanwhile
        yield from (up, resident, cpu, reloads)

    def _found(self, reloads: GaugeMetricFamily) -> Iterator[tuple[str, str, int | None]]:
        """Kind, name and process; None for one that hangs or ended by itself."""
        servers = self._home / "servers"
        for state in sorted(servers.glob("*.json")):
            running = ServerProcess(state.stem, servers).running()
            yield "generation_server", state.stem, running.pid if running else None
        for name, said in workers_at(self._home / "proof-workers", HELLO_SECONDS).items():
            reloads.add_metric([name], float(said.get("reloads_in_place", 0)))
            yield "proof_worker", name, said.get("pid")
