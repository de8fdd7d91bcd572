"""Prometheus metrics: a process's own numbers, and those of the newest windows in the lake."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windrow import WindrowError
from windrow.resources.guarded_server import AddressTaken, guarded_server, listening
from windrow.resources.tracking.metrics import WindowMetrics, mining_metrics, validation_metrics
from windrow.resources.warehouse.lake import Lake

DAY_SECONDS = 86400.0
NEWEST_MINED = "SELECT max(window_start) AS newest FROM submissions WHERE hotkey = '{hotkey}'"
NEWEST_VALIDATED = "SELECT max(window_start) AS newest FROM scores WHERE validator = '{hotkey}'"
LAST_UPLOAD = "SELECT max(uploaded_at) AS newest FROM uploads WHERE hotkey = '{hotkey}'"
FAULTS = (
    "SELECT stage, reason, count(*) AS n FROM faults WHERE recorded_at > {since} GROUP BY ALL "
    "ORDER BY n DESC LIMIT 200"
)
_OF_UID = re.compile(r"([0-9]+)/(.+)")


class PortTaken(WindrowError):
    """The metrics endpoint cannot listen where it should."""


@dataclass(frozen=True)
class MetricsServer:
    """A running endpoint. port: where it listens, also when it was asked for any free one."""

    port: int
    _server: uvicorn.Server
    _thread: threading.Thread

    def stop(self) -> None:
        """Answer what was asked, at most for some seconds, and close the port."""
        self._server.should_exit = True
        self._thread.join()


def serve_metrics(
    port: int, host: str = "127.0.0.1", *, registry: CollectorRegistry
) -> MetricsServer:
    """Answer http://host:port/metrics from a thread of its own, until stopped; port 0: any.

    There is no login: beyond 127.0.0.1 everyone who reaches the port can read. Raises PortTaken.
    """
    try:
        opened = listening(host, port)
    except AddressTaken as error:
        raise PortTaken(
            f"Metrics cannot be served on {host}:{port}. Choose another port. ({error})"
        ) from error
    scrape = Route("/{path:path}", _Scrapes(registry).answer, methods=["GET"])
    server = guarded_server(Starlette(routes=[scrape]))
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [opened]}, name="metrics", daemon=True
    )
    thread.start()
    return MetricsServer(opened.getsockname()[1], server, thread)


class _Scrapes:
    """Reads the numbers once for all who ask at the same time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._reading: asyncio.Task[bytes] | None = None

    async def answer(self, _: Request) -> Response:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(run_in_threadpool(generate_latest, self._registry))
        # Shielded, for others may wait for it when this one hangs up.
        body = await asyncio.shield(self._reading)
        return Response(body, media_type=CONTENT_TYPE_LATEST)


class LakeCollector(Collector):
    """The newest mined and the newest validated window of a hotkey, and the faults of a day.

    Names are those of `resources.metrics`, as Prometheus writes them; the numbers of one miner have
    its uid as a label.
    """

    def __init__(self, lake: Lake, hotkey: str, clock: Callable[[], float] = time.time) -> None:
        self._lake = lake
        self._hotkey = hotkey
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read at every scrape. A lake that cannot be read is `windrow_lake_readable 0`."""
        try:
            found = [*self._gauges()]
        except WindrowError:
            yield _gauge("windrow_lake_readable", "whether the lake could be read", 0.0)
            return
        yield _gauge("windrow_lake_readable", "whether the lake could be read", 1.0)
        yield from found

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        hotkey = self._hotkey.replace("'", "''")
        newest = GaugeMetricFamily("windrow_newest_window", "first block", labels=["role"])
        for role, sql, metrics in (
            ("mining", NEWEST_MINED, mining_metrics),
            ("validation", NEWEST_VALIDATED, validation_metrics),
        ):
            (row,) = self._lake.query(sql.format(hotkey=hotkey)).to_pylist()
            if (window := row["newest"]) is not None:
                newest.add_metric([role], window)
                yield from _families(metrics(self._lake, window, self._hotkey))
        yield newest
        (row,) = self._lake.query(LAST_UPLOAD.format(hotkey=hotkey)).to_pylist()
        if row["newest"] is not None:
            yield _gauge("windrow_last_upload_timestamp_seconds", "newest upload", row["newest"])
        faults = GaugeMetricFamily(
            "windrow_faults_last_day", "rows of faults", labels=["stage", "reason"]
        )
        since = self._clock() - DAY_SECONDS
        for row in self._lake.query(FAULTS.format(since=since)).to_pylist():
            faults.add_metric([row["stage"] or "", row["reason"] or ""], row["n"])
        yield faults


def _families(metrics: WindowMetrics) -> Iterator[GaugeMetricFamily]:
    families: dict[str, GaugeMetricFamily] = {}
    for name, value in metrics.values.items():
        of_uid = _OF_UID.fullmatch(name)
        plain = of_uid[2] if of_uid else name
        labels = ["role", "uid"] if of_uid else ["role"]
        written = _written(f"miner/{plain}" if of_uid else plain)
        family = families.setdefault(written, GaugeMetricFamily(written, plain, labels=labels))
        family.add_metric([metrics.role, of_uid[1]] if of_uid else [metrics.role], value)
    yield from families.values()


def _written(name: str) -> str:
    return "windrow_" + re.sub(r"[^a-zA-Z0-9]+", "_", name.replace("windrow/", "")).lower()


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)
