"""The development wallet signs for real and keeps its key to itself."""

import pickle

import pytest
from bittensor_core import Keypair

from windrow.resources.secret import Secret
from windrow.resources.wallet import DevelopmentWallet, WalletError


def test_a_signature_verifies_under_the_hotkey() -> None:
    wallet = DevelopmentWallet(Secret("//Alice"))
    assert wallet.hotkey == "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    signature = wallet.sign(b"window")
    assert len(signature) == 64
    public = Keypair(ss58_address=wallet.hotkey)
    assert public.verify(b"window", signature)
    assert not public.verify(b"widow", signature)


def test_a_bad_uri_is_named_and_not_shown() -> None:
    with pytest.raises(WalletError) as caught:
        DevelopmentWallet(Secret("ключ hunter2"))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_key_is_in_no_text_and_no_pickle() -> None:
    wallet = DevelopmentWallet(Secret("//Windrow"))
    assert repr(wallet) == f"DevelopmentWallet({wallet.hotkey})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(wallet)
