"""The process that does a node's tasks: one at a time, over its standard input and output.

    python -m windrow.resources.fleet.node_worker

It outlives a task, so that an attestation's memory is still there when it is to be opened, and it
can be killed without harm to whoever asked. A request is a JSON line `{"task", "bytes"}` and so
many bytes; an answer `{"ok", "bytes"}` or `{"ok": false, "reason", "detail"}` likewise.
"""

import json
import os
import sys
from typing import BinaryIO

from windrow import WindrowError
from windrow.engine.fleet.tasks import MAX_REQUEST_BYTES, answer

MOST_LINE = 4096


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline(MOST_LINE):
        asked = json.loads(line)
        size = min(int(asked["bytes"]), MAX_REQUEST_BYTES + 1)
        request = requests.read(size)
        if len(request) < size:
            return
        try:
            body = answer(asked["task"], request)
        except WindrowError as error:
            head = {"ok": False, "reason": type(error).__name__, "detail": str(error)[:2000]}
            body = b""
        except MemoryError:
            detail = "the node has not enough memory for what was asked"
            head = {"ok": False, "reason": "OutOfMemory", "detail": detail}
            body = b""
        else:
            head = {"ok": True}
        answers.write(json.dumps({**head, "bytes": len(body)}).encode() + b"\n")
        answers.write(body)
        answers.flush()


def main() -> None:
    """Serve standard input; what tasks print goes to standard error, never between answers."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # nobody watches a node's progress bars
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
