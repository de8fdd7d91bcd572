"""A bittensor wallet signs with its hotkey, says what is wrong with its files, and keeps still."""

import os
import pickle
import traceback
from pathlib import Path

import bittensor as bt
import pytest
from bittensor_core import Keypair, save_password_to_environment

from windrow.resources.bittensor.wallet import BittensorWallet
from windrow.resources.secret import Secret
from windrow.resources.wallet import WalletError


@pytest.fixture
def wallets(tmp_path: Path) -> Path:
    """A folder of wallets as btcli makes them: miner/default, its coldkey's public file only."""
    wallet = bt.Wallet("miner", "default", str(tmp_path))
    wallet.create_new_hotkey(suppress=True)
    cold = Keypair.create_from_uri("//Cold")
    public = Keypair(ss58_address=cold.ss58_address, public_key=bytes(cold.public_key))
    wallet.coldkeypub_file.set_keypair(public, encrypt=False)
    return tmp_path


def hotkey_file(wallets: Path) -> Path:
    return wallets / "miner" / "hotkeys" / "default"


def test_a_signature_verifies_under_the_hotkey(wallets: Path) -> None:
    wallet = BittensorWallet("miner", "default", wallets)
    assert wallet.hotkey == bt.Wallet("miner", "default", str(wallets)).hotkey.ss58_address
    public = Keypair(ss58_address=wallet.hotkey)
    assert public.verify(b"window", wallet.sign(b"window"))
    assert not public.verify(b"widow", wallet.sign(b"window"))
    assert wallet.coldkey == Keypair.create_from_uri("//Cold").ss58_address


def test_the_coldkey_is_never_opened(wallets: Path) -> None:
    (wallets / "miner" / "coldkey").symlink_to("/proc/self/mem")
    wallet = BittensorWallet("miner", "default", wallets)
    assert wallet.coldkey
    (wallets / "miner" / "coldkeypub.txt").unlink()
    assert BittensorWallet("miner", "default", wallets).hotkey == wallet.hotkey
    with pytest.raises(WalletError, match=r"coldkeypub\.txt is not the public file"):
        assert wallet.coldkey


@pytest.mark.parametrize(
    ("cold", "hot", "words"),
    [
        ("miner", "other", ["hotkeys/other", "hotkeys of this wallet there: default"]),
        ("minor", "default", ["minor/hotkeys", "wallets there: miner", "BT_WALLET_PATH"]),
        ("../miner", "default", ["BT_WALLET_COLD", "not a path"]),
        ("miner", "a/b", ["BT_WALLET_HOT", "not a path"]),
        ("..", "default", ["BT_WALLET_COLD"]),
        ("miner", "", ["BT_WALLET_HOT"]),
    ],
)
def test_a_wallet_that_is_not_there(wallets: Path, cold: str, hot: str, words: list[str]) -> None:
    with pytest.raises(WalletError) as caught:
        BittensorWallet(cold, hot, wallets)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_a_key_that_others_can_read_is_refused(wallets: Path, mode: int) -> None:
    hotkey_file(wallets).chmod(mode)
    with pytest.raises(WalletError, match=rf"mode {mode:o}.*chmod 600"):
        BittensorWallet("miner", "default", wallets)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_of_another_user_is_refused(wallets: Path) -> None:
    hotkey_file(wallets).chmod(0)
    with pytest.raises(WalletError, match="owner"):
        BittensorWallet("miner", "default", wallets)


def test_an_encrypted_hotkey_is_named_and_nobody_is_asked(wallets: Path) -> None:
    hotkey_file(wallets).write_bytes(b"$NACL" + bytes(80))
    with pytest.raises(WalletError, match=r"encrypted.*BT_PW_"):
        BittensorWallet("miner", "default", wallets)


SEED = "0x" + "5e" * 31


@pytest.mark.parametrize(
    "content",
    [b"", b"hunter2", f'{{"secretSeed": "{SEED}"}}'.encode(), b"\xff\xfe", b"x" * 70_000],
)
def test_a_damaged_hotkey_is_named_and_not_shown(wallets: Path, content: bytes) -> None:
    hotkey_file(wallets).write_bytes(content)
    with pytest.raises(WalletError) as caught:
        BittensorWallet("miner", "default", wallets)
    shown = "".join(traceback.format_exception(caught.value))
    assert str(hotkey_file(wallets)) in shown
    assert "hunter2" not in shown
    assert SEED not in shown


def test_a_public_file_or_a_folder_is_no_hotkey(wallets: Path) -> None:
    public = (wallets / "miner" / "hotkeys" / "defaultpub.txt").read_bytes()
    hotkey_file(wallets).write_bytes(public)
    with pytest.raises(WalletError, match="no hotkey that signs"):
        BittensorWallet("miner", "default", wallets)
    (wallets / "miner" / "hotkeys" / "folder").mkdir()
    with pytest.raises(WalletError, match="no key file"):
        BittensorWallet("miner", "folder", wallets)


def test_the_key_is_in_no_text_and_no_pickle(wallets: Path) -> None:
    wallet = BittensorWallet("miner", "default", wallets)
    assert repr(wallet) == f"BittensorWallet(miner/default, {wallet.hotkey})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(wallet)
    assert not hasattr(wallet, "__dict__")


@pytest.mark.live
def test_an_encrypted_hotkey_opens_with_bittensors_own_variable(
    wallets: Path,
) -> None:
    made = bt.Wallet("miner", "locked", str(wallets))
    made.create_new_hotkey(suppress=True, hotkey_password="correct horse")
    variable = made.hotkey_file.env_var_name()
    save_password_to_environment(variable, "correct horse")
    assert BittensorWallet("miner", "locked", wallets).hotkey == made.hotkeypub.ss58_address
    with pytest.raises(WalletError, match="another password"):
        BittensorWallet("miner", "locked", wallets, password=Secret("wrong"))
