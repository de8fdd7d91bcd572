"""A node's tasks, each in its turn on the GPUs of the machine that does them."""

import threading
from contextlib import ExitStack
from typing import Final

from windrow.engine.fleet.frames import BadFrame
from windrow.engine.fleet.stages import GPU_BUSY
from windrow.resources.fleet.nodes import Answer, NodeAccess, TaskFailed
from windrow.resources.gpu_turns import GpuTaken, GpuTurns

WAIT_SECONDS: Final = 20.0
KEEP_SECONDS: Final = 120.0
"""How long the GPUs are kept between two questions that belong together."""

_GOES_ON: Final = (
    "attestation.commit",
    "gemm_proof.commit",
    "network_gemm.benchmark",
    "network_gemm.compute",
)
_AT_ONCE: Final = (
    "attestation.open",
    "hash_challenge",
    "gemm_proof.open",
    "network_gemm.proof",
    "proof_of_compute",
    "llm_job",
)


class InTurn:
    """A node whose GPU tasks take the GPUs' locks: from a commitment until it is opened.

    What a commitment leaves in the cards' memory stays there until then, so nothing else may use
    them in between; an asker that never comes back loses them after KEEP_SECONDS.
    """

    def __init__(
        self,
        node: NodeAccess,
        name: str,
        turns: GpuTurns,
        *,
        wait: float = WAIT_SECONDS,
        keep: float = KEEP_SECONDS,
    ) -> None:
        self._node = node
        self._name = name
        self._turns = turns
        self._wait = wait
        self._keep = keep
        self._guard = threading.RLock()
        self._held: ExitStack | None = None
        self._timer: threading.Timer | None = None

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess. Raises TaskFailed with the reason GPU_BUSY when it is not its turn."""
        if not self._turns.gpus or task not in (*_GOES_ON, *_AT_ONCE):
            return self._node.ask(task, request, timeout=timeout, max_bytes=max_bytes)
        self._take(task)
        last = True
        try:
            answer = self._node.ask(task, request, timeout=timeout, max_bytes=max_bytes)
            last = task not in _GOES_ON and not _more_to_come(task, request)
            return answer
        finally:
            if last:
                self._leave()
            else:
                self._expire_later()

    def close(self) -> None:
        """Let go of the GPUs and of the node."""
        self._leave()
        self._node.close()

    def _take(self, task: str) -> None:
        with self._guard:
            self._stop_timer()
            if self._held is None:
                stack = ExitStack()
                try:
                    stack.enter_context(self._turns.taken(self._wait))
                except GpuTaken as error:
                    raise TaskFailed(self._name, task, GPU_BUSY, str(error)) from error
                self._held = stack

    def _leave(self) -> None:
        with self._guard:
            self._stop_timer()
            held, self._held = self._held, None
            if held is not None:
                held.close()

    def _expire_later(self) -> None:
        with self._guard:
            timer = threading.Timer(self._keep, lambda: self._expire(timer))
            timer.daemon = True
            self._timer = timer
            timer.start()

    def _expire(self, timer: threading.Timer) -> None:
        with self._guard:
            if self._timer is timer:  # else somebody asked while it waited for the guard
                self._leave()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _more_to_come(task: str, request: bytes) -> bool:
    """Whether an attestation is to be opened once more."""
    if task != "attestation.open":
        return False
    from windrow.engine.fleet.attestation_plan import BadChallenge, parse_opening

    try:
        return not parse_opening(request).last
    except (BadFrame, BadChallenge):
        return False  # the node will say so itself
