"""The conformance run: one test per case found under --vectors."""

from collections.abc import Callable


def test_vector(vector_check: Callable[[], None]) -> None:
    vector_check()
