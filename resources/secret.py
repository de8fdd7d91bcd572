"""A value that must never be printed, logged, pickled or compared in variable time."""

import hmac
from typing import NoReturn


class Secret:
    """Wraps a secret text; only `reveal()` gives it back.

    Every way Python has of turning an object into text or bytes either hides the value or refuses.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The secret itself; call this only where it is used."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__text.encode(), other.__text.encode())

    def __hash__(self) -> int:
        return hash(self.__text)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand over what was made with it instead")
