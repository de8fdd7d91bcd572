"""The node whose answers are believed: what goes wrong with it is nobody else's fault."""

from windrow import WindrowError
from windrow.resources.fleet.nodes import Answer, NodeAccess, NodeError


class TrustedNodeFailed(WindrowError):
    """The trusted node gave no answer, so there is nothing to hold another's against."""


class Trusted:
    """A node whose errors are told apart from those of the node that is verified."""

    def __init__(self, node: NodeAccess) -> None:
        self._node = node

    def ask(self, task: str, request: bytes, *, timeout: float, max_bytes: int) -> Answer:
        """See NodeAccess. Raises TrustedNodeFailed."""
        try:
            return self._node.ask(task, request, timeout=timeout, max_bytes=max_bytes)
        except NodeError as error:
            raise TrustedNodeFailed(f"the trusted node gave no answer: {error}") from error

    def close(self) -> None:
        """See NodeAccess."""
        self._node.close()
