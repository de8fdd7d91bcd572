"""The process of one proof worker: `python -m windrow.resources.proof_pool.worker FOLDER NAME …`.

It outlives the run that started it, listens on a Unix socket of its own user, and ends by itself
when nobody has asked it anything for a while.
"""

import argparse
import contextlib
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

from windrow.resources.locks import file_lock
from windrow.resources.proof_pool.frames import MalformedFrame, receive, send
from windrow.resources.proof_pool.service import ProofService
from windrow.resources.proof_pool.unix_socket import LIFE_SUFFIX, listening, peer

LOOK_SECONDS = 1.0
STALLED_SECONDS = 60.0
"""How long a run may take over one frame before its connection is given up."""
TAKEN = 3
"""Exit status: another process already is this worker."""
BROKEN = 4
"""Exit status: an error nobody foresaw; the log has it."""

_log = logging.getLogger("windrow.proof_worker")


class Server:
    """Takes connections and answers each on a thread of its own."""

    def __init__(self, service: ProofService, idle_seconds: float) -> None:
        self._service = service
        self._idle_seconds = idle_seconds
        self._connections: set[threading.Thread] = set()

    def serve(self, listener: socket.socket) -> None:
        """Until nobody has been connected for the idle time."""
        listener.settimeout(LOOK_SECONDS)
        last_seen = time.monotonic()
        while time.monotonic() - last_seen < self._idle_seconds:
            self._connections = {thread for thread in self._connections if thread.is_alive()}
            if self._connections:
                last_seen = time.monotonic()
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._connections.add(thread)
                thread.start()
        _log.info("nobody was here for %.0f s; ending", self._idle_seconds)

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            if peer(connection).uid != os.getuid():
                _log.warning("refused a connection of user %d", peer(connection).uid)
                return
            try:
                # A question may be hours away; once it has begun it must come through.
                while (frame := receive(connection, STALLED_SECONDS)) is not None:
                    send(connection, self._service.answer(frame), STALLED_SECONDS)
            except (OSError, MalformedFrame) as error:
                _log.info("a connection ended: %s", error)


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """Nobody foresaw this error, so the model's state is unknown; the run starts another worker."""
    parts = (failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    _log.critical("this worker ends", exc_info=parts)
    logging.shutdown()
    os._exit(BROKEN)


def main(arguments: list[str] | None = None) -> int:
    """Serve until idle. Exit status 0, TAKEN or BROKEN."""
    parser = argparse.ArgumentParser(description="a proof worker; runs start it themselves")
    parser.add_argument("folder", type=Path, help="folder of the socket")
    parser.add_argument("name", help="name of the worker in it")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:<n> of the visible ones")
    parser.add_argument("--idle-seconds", type=float, default=1800.0)
    options = parser.parse_args(arguments)
    threading.excepthook = _end_process
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with file_lock(options.folder / f"{options.name}{LIFE_SUFFIX}", wait=False):
            service = ProofService(options.device)
            with listening(options.folder, options.name) as listener:
                _log.info("process %d proves on %s", os.getpid(), options.device)
                Server(service, options.idle_seconds).serve(listener)
    except BlockingIOError:
        _log.info("another process already is worker %s", options.name)
        return TAKEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
