"""`windrow metrics`: a Prometheus endpoint over the lake and the parts that outlive runs."""

import signal
import threading

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from rich.console import Console

from windrow.pipelines.live import open_wallet
from windrow.resources.configuration.settings import Settings
from windrow.resources.tracking.parts import PartsCollector
from windrow.resources.tracking.server import LakeCollector, serve_metrics
from windrow.resources.warehouse.lake import Lake


def serve(out: Console, port: int, host: str) -> None:
    """Serve until interrupted or told to end. Raises PortTaken."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Set, not left: what is started in the background of a script inherits a deaf SIGINT.
        signal.signal(number, lambda *_: told.set())
    settings = Settings.read()
    registry = CollectorRegistry()
    registry.register(LakeCollector(Lake(settings.lake), open_wallet(settings).hotkey))
    registry.register(PartsCollector(settings.home))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    server = serve_metrics(port, host, registry=registry)
    out.print(f"metrics are on http://{host}:{server.port}/metrics", soft_wrap=True)
    told.wait()
    server.stop()
