"""The node whose answers are believed: what goes wrong with it is nobody else's fault."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from windrow import WindrowError
from windrow.resources.fleet.nodes import Answer, NodeAccess, NodeBusy, NodeError


class TrustedNodeFailed(WindrowError):
    """The trusted node gave no answer, so there is nothing to hold another's against."""


class Trusted:
    """A node whose errors are told apart from those of the node that is verified."""

    def __init__(
        self,
        node: NodeAccess,
        alone: Callable[[float], AbstractContextManager[None]] = lambda _wait: nullcontext(),
    ) -> None:
        """alone: keeps other runs from the node meanwhile, waits so many seconds for its turn."""
        self._node = node
        self._alone = alone

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess. Raises TrustedNodeFailed."""
        try:
            with self._alone(timeout):
                return self._node.ask(task, request, timeout=timeout, max_bytes=max_bytes)
        except (NodeError, NodeBusy) as error:
            raise TrustedNodeFailed(f"the trusted node gave no answer: {error}") from error

    def close(self) -> None:
        """See NodeAccess."""
        self._node.close()
