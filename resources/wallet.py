"""The miner's signing key."""

from typing import NoReturn, Protocol

from bittensor_core import Keypair

from windrow import WindrowError
from windrow.resources.secret import Secret


class WalletError(WindrowError):
    """A wallet cannot be opened."""


class Wallet(Protocol):
    """A hotkey that signs."""

    @property
    def hotkey(self) -> str:
        """SS58 address, prefix 42."""
        ...

    def sign(self, message: bytes) -> bytes:
        """sr25519 signature, 64 bytes; two signatures of one message differ."""
        ...


class DevelopmentWallet:
    """A real sr25519 key made from a URI such as `//Windrow`; anyone who knows the URI has it."""

    __slots__ = ("_keypair",)

    def __init__(self, uri: Secret) -> None:
        """Raises WalletError when the text is no key URI; the text is never shown."""
        try:
            self._keypair = Keypair.create_from_uri(uri.reveal())
        except ValueError:
            # Without its cause: that message may repeat the URI.
            raise WalletError(
                "WINDROW_WALLET_URI is no key URI: use //Name, or a mnemonic with an optional "
                "//path."
            ) from None

    @property
    def hotkey(self) -> str:
        return str(self._keypair.ss58_address)

    def sign(self, message: bytes) -> bytes:
        return bytes(self._keypair.sign(message))

    def __repr__(self) -> str:
        return f"DevelopmentWallet({self.hotkey})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a wallet is not pickled: only the process that opened it signs")
