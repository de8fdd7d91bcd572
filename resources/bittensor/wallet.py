"""The hotkey of a bittensor wallet on disk; its coldkey is never opened.

A wallet is `<path>/<cold>/`: `coldkeypub.txt` and `hotkeys/<hot>`. Only these two are read.
"""

import os
import re
import stat
from pathlib import Path
from typing import NoReturn

from bittensor_core import (
    CRYPTO_SR25519,
    KeyfileError,
    Keypair,
    get_password_from_environment,
)

from windrow.resources.secret import Secret
from windrow.resources.wallet import WalletError

DEFAULT_WALLETS = Path("~/.bittensor/wallets")
MAX_KEYFILE_BYTES = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.@+ -]{1,128}")


class BittensorWallet:
    """A `Wallet` over the hotkey file that BT_WALLET_COLD, BT_WALLET_HOT and BT_WALLET_PATH name.

    password: of an encrypted hotkey; without one the variable bittensor itself reads,
    BT_PW_<the file's path>, is. Nobody is ever asked. Raises WalletError.
    """

    __slots__ = ("_coldkey_file", "_keypair", "name")

    def __init__(
        self, cold: str, hot: str, path: Path = DEFAULT_WALLETS, *, password: Secret | None = None
    ) -> None:
        for variable, name in (("BT_WALLET_COLD", cold), ("BT_WALLET_HOT", hot)):
            if not _NAME.fullmatch(name) or name.strip(". ") == "":
                raise WalletError(
                    f"{variable} must be a wallet's name, not a path: letters, digits and _.@+-."
                )
        folder = path.expanduser().absolute() / cold
        self.name = f"{cold}/{hot}"
        self._coldkey_file = folder / "coldkeypub.txt"
        self._keypair = _open_hotkey(folder, hot, password)

    @property
    def hotkey(self) -> str:
        return str(self._keypair.ss58_address)

    @property
    def coldkey(self) -> str:
        """The coldkey's address, from its public file. Raises WalletError."""
        return str(_public_key(self._coldkey_file).ss58_address)

    def sign(self, message: bytes) -> bytes:
        return bytes(self._keypair.sign(message))

    def __repr__(self) -> str:
        return f"BittensorWallet({self.name}, {self.hotkey})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a wallet is not pickled: only the process that opened it signs")


def _open_hotkey(folder: Path, hot: str, password: Secret | None) -> Keypair:
    # The client's wallet module takes a second to import.
    from bittensor.keyfiles import Keyfile

    file = folder / "hotkeys" / hot
    _require_private(file, _others(folder))
    keyfile = Keyfile(file)
    try:
        if not keyfile.is_encrypted():
            keypair = keyfile.get_keypair()
        else:
            secret = password.reveal() if password else None
            secret = secret or get_password_from_environment(keyfile.env_var_name())
            if not secret:
                raise WalletError(
                    f"The hotkey in {file} is encrypted, and Windrow asks nobody for a password. "
                    f"Set {keyfile.env_var_name()} as btcli does, or use a hotkey that is not "
                    "encrypted: its file needs mode 600 only."
                )
            keypair = keyfile.get_keypair(secret)
        keypair.sign(b"windrow")
    except (KeyfileError, ValueError, OSError):
        # Without its cause: that message may repeat what is in the file.
        raise WalletError(
            f"{file} is no hotkey that signs: the file is damaged, holds a public key only or "
            "needs another password. Make it again from its mnemonic: btcli wallet regen-hotkey."
        ) from None
    if keypair.crypto_type != CRYPTO_SR25519:
        raise WalletError(
            f"The hotkey in {file} is no sr25519 key, and the network's files are signed with one."
        )
    return keypair


def _require_private(file: Path, others: str) -> None:
    try:
        status = file.stat()
        readable = os.access(file, os.R_OK)
    except FileNotFoundError:
        raise WalletError(
            f"There is no hotkey at {file}.{others} Check BT_WALLET_COLD, BT_WALLET_HOT and "
            "BT_WALLET_PATH."
        ) from None
    except OSError as error:
        raise WalletError(
            f"{file} cannot be reached ({error.strerror}): run Windrow as the wallet's owner."
        ) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEYFILE_BYTES:
        raise WalletError(f"{file} is no key file.")
    if not readable:
        raise WalletError(f"{file} cannot be read: run Windrow as the wallet's owner.")
    if status.st_mode & 0o077:
        raise WalletError(
            f"{file} has mode {stat.S_IMODE(status.st_mode):o}: other users could take the key. "
            f"Set it right: chmod 600 {file}"
        )


def _others(folder: Path) -> str:
    """What there is instead of a wallet or hotkey that there is not."""
    for kind, there in (("hotkeys of this wallet", folder / "hotkeys"), ("wallets", folder.parent)):
        try:
            names = sorted(
                entry.name
                for entry in there.iterdir()
                if _NAME.fullmatch(entry.name) and not entry.name.endswith("pub.txt")
            )
        except OSError:
            continue
        if names:
            return f" The {kind} there: {', '.join(names[:8])}."
    return ""


def _public_key(file: Path) -> Keypair:
    from bittensor.keyfiles import Keyfile

    try:
        return Keyfile(file).get_keypair()
    except (KeyfileError, ValueError, OSError):
        raise WalletError(
            f"{file} is not the public file of a coldkey; it is made by btcli wallet "
            "regen-coldkeypub."
        ) from None
