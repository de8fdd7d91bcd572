"""The Prometheus endpoint over a lake."""

import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from tests.support.lake_rows import rows_of
from tests.support.proof_workers import no_worker_left, pids, stopped
from windrow.resources.generation.process import ServerProcess
from windrow.resources.proof_pool.frames import encode
from windrow.resources.proof_pool.processes import ProcessHost, scrubbed
from windrow.resources.tracking.parts import PartsCollector
from windrow.resources.tracking.server import LakeCollector, PortTaken, serve_metrics
from windrow.resources.warehouse.lake import Lake

WINDOW = 5_000_040
HOTKEY = "5FqRrXd42xpzxyrFkKSkp6hoy2fJzMScekWFq9sc7wELMyes"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    for window, groups in ((WINDOW - 30, 7), (WINDOW, 5)):
        made = rows_of("submissions", window, 1, hotkey=HOTKEY, groups=groups, rollouts=groups * 16)
        lake.write("submissions", window, HOTKEY, made)
    sent = rows_of("uploads", WINDOW, 1, hotkey=HOTKEY, uploaded_at=1234.5, margin_seconds=17.25)
    lake.write("uploads", WINDOW, HOTKEY, sent)
    scored = rows_of("scores", WINDOW, 1, hotkey="5Miner", validator=HOTKEY, active=True)
    lake.write("scores", WINDOW, HOTKEY, scored)
    weighed = rows_of("weights", WINDOW, 1, hotkey="5Miner", validator=HOTKEY, uid=3, weight=0.25)
    lake.write("weights", WINDOW, HOTKEY, weighed)
    fault = rows_of("faults", WINDOW, 2, stage="beacon", reason="WrongRound", recorded_at=9e9)
    lake.write("faults", WINDOW, "x", fault)
    return lake


@pytest.fixture
def scrape(lake: Lake) -> Iterator[str]:
    registry = CollectorRegistry()
    registry.register(LakeCollector(lake, HOTKEY))
    Counter("windrow_requests", "of a long-lived part", registry=registry).inc(3)
    server = serve_metrics(0, registry=registry)
    yield f"http://127.0.0.1:{server.port}/metrics"
    server.stop()


def samples(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_the_newest_window(scrape: str) -> None:
    found = samples(scrape)
    mining, validation = (("role", "mining"),), (("role", "validation"),)
    assert found["windrow_newest_window", mining] == WINDOW
    assert found["windrow_groups", mining] == 5
    assert found["windrow_deadline_margin_seconds", mining] == 17.25
    assert found["windrow_last_upload_timestamp_seconds", ()] == 1234.5
    assert found["windrow_miner_sampling_miners_active", validation] == 1
    of_miner = (("role", "validation"), ("uid", "3"))
    assert found["windrow_miner_weight", of_miner] == 0.25
    faults = (("reason", "WrongRound"), ("stage", "beacon"))
    assert found["windrow_faults_last_day", faults] == 2
    assert found["windrow_requests_total", ()] == 3


def test_what_outlives_runs_is_shown_while_it_lives(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(PartsCollector(tmp_path))
    metrics = serve_metrics(0, registry=registry)
    url = f"http://127.0.0.1:{metrics.port}/metrics"
    (tmp_path / "servers").mkdir()
    server = ServerProcess("sglang-30000", tmp_path / "servers")
    of_server = (("kind", "generation_server"), ("name", "sglang-30000"))
    of_worker = (("kind", "proof_worker"), ("name", "cpu-0"))
    with no_worker_left(tmp_path / "proof-workers") as folder:
        host = ProcessHost(folder, "cpu-0", "cpu", scrubbed(os.environ, "", 1), 60.0)
        host.ask(encode({"op": "hello"}), 60.0, threading.Event())
        server.start(["sleep", "60"], {}, "of this test", ready=lambda: None, seconds=10.0)
        try:
            found = samples(url)
            with stopped(pids(folder)["cpu-0"]):
                hung = samples(url)
        finally:
            server.stop()
        ended = samples(url)
    metrics.stop()
    assert found["windrow_part_up", of_server] == found["windrow_part_up", of_worker] == 1
    assert found["windrow_part_resident_memory_bytes", of_worker] > 2**20
    assert found["windrow_part_cpu_seconds", of_worker] > 0
    assert found["windrow_proof_worker_reloads_in_place", (("name", "cpu-0"),)] == 0
    assert hung["windrow_part_up", of_worker] == 0
    assert ended.get(("windrow_part_up", of_server), 0) == 0


def test_the_next_scrape_shows_what_came_since(scrape: str, lake: Lake) -> None:
    before = samples(scrape)
    made = rows_of("submissions", WINDOW + 30, 1, hotkey=HOTKEY, groups=9)
    lake.write("submissions", WINDOW + 30, HOTKEY, made)
    after = samples(scrape)
    mining = (("role", "mining"),)
    assert (before["windrow_groups", mining], after["windrow_groups", mining]) == (5, 9)


def test_a_lake_that_cannot_be_read_is_a_number_too(scrape: str, lake: Lake) -> None:
    for file in lake.root.rglob("*.parquet"):
        file.write_bytes(b"damaged")
    found = samples(scrape)
    assert found["windrow_lake_readable", ()] == 0
    assert found["windrow_requests_total", ()] == 3


def test_an_empty_lake_has_no_windows(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(LakeCollector(Lake(tmp_path / "empty"), HOTKEY))
    server = serve_metrics(0, registry=registry)
    found = samples(f"http://127.0.0.1:{server.port}/metrics")
    server.stop()
    assert set(found) == {("windrow_lake_readable", ())}
    assert found["windrow_lake_readable", ()] == 1


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
            serve_metrics(port, registry=CollectorRegistry())
