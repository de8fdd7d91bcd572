"""The program of a node's pod: does the node's tasks, and reports through Dagster Pipes.

    python -m windrow.resources.fleet.kubernetes_task

Requests come on standard input, which Kubernetes closes when the asker goes away; answers go to
the pod's log (`kubernetes_messages`). The process lives through all requests of a session, so what
an attestation committed to is still in memory when it is to be opened.
"""

import os
import selectors
import sys
from collections.abc import Iterator
from typing import Final

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

from windrow import WindrowError
from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, answer
from windrow.resources.fleet.kubernetes_messages import (
    announcement,
    failure,
    parse_request,
    parts,
)

MOST_LINE: Final = 4 * MAX_REQUEST_BYTES // 3 + 4096
IDLE_SECONDS: Final = 300.0
"""How long it waits for an asker that never comes."""


class NotInPod(WindrowError):
    """The program was started by something else than a node's pod."""


def serve(requests: Iterator[bytes], pipes: PipesContext) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        if line.strip():
            _answer(line, pipes)


def _answer(line: bytes, pipes: PipesContext) -> None:
    ask = ""
    try:
        ask, task, request = parse_request(line, MOST_LINE)
        body = answer(task, request)
    except WindrowError as error:
        pipes.report_custom_message(failure(ask, type(error).__name__, str(error)))
    except MemoryError:
        detail = "the node has not enough memory for what was asked"
        pipes.report_custom_message(failure(ask, "OutOfMemory", detail))
    else:
        pipes.report_custom_message(announcement(ask, body))
        for part in parts(ask, body):
            pipes.report_custom_message(part)


def lines(descriptor: int, idle: float) -> Iterator[bytes]:
    """Lines of a pipe until it ends, or none came for so many seconds. Raises BadFrame."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(idle):
            read = os.read(descriptor, 1 << 16)
            if not read:
                return
            *whole, rest = (rest + read).split(b"\n")
            if len(rest) > MOST_LINE:
                raise BadFrame(f"a request is longer than {MOST_LINE} bytes")
            yield from whole


def main() -> None:
    """Serve standard input; what tasks print goes to standard error, never between messages."""
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        raise NotInPod("this program runs in a pod that Windrow made; try `windrow agent` instead")
    own = sys.stdout
    messages = os.fdopen(os.dup(own.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), own.fileno())
    sys.stdout = messages  # where Pipes finds the stream its messages go to
    with open_dagster_pipes() as pipes:
        sys.stdout = own
        serve(lines(sys.stdin.fileno(), IDLE_SECONDS), pipes)


if __name__ == "__main__":
    main()
