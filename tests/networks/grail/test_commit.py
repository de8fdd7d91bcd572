"""Signatures over hostile input: a verdict or a named error, never a crash."""

import pytest
from bittensor_core import Keypair
from hypothesis import given
from hypothesis import strategies as st

from windrow.networks.grail.commit import (
    MalformedCommit,
    commit_binding,
    commit_signature_valid,
    outer_challenge,
    row_signature_valid,
)
from windrow.networks.signatures import verify_signature

ALICE = Keypair.create_from_uri("//Alice")
HASH = bytes(32)


def test_a_signature_verifies_for_its_signer_alone() -> None:
    signature = ALICE.sign(b"message").hex()
    assert verify_signature(ALICE.ss58_address, b"message", signature)
    assert not verify_signature(ALICE.ss58_address, b"massage", signature)
    other = Keypair.create_from_uri("//Bob").ss58_address
    assert not verify_signature(other, b"message", signature)


@given(hotkey=st.text(max_size=60), message=st.binary(max_size=40), signature=st.text(max_size=140))
def test_any_text_is_just_not_a_signature(hotkey: str, message: bytes, signature: str) -> None:
    assert not verify_signature(hotkey, message, signature)
    assert not verify_signature(ALICE.ss58_address, message, signature)


@given(st.binary(min_size=64, max_size=64))
def test_any_bytes_are_just_not_a_signature(signature: bytes) -> None:
    assert not verify_signature(ALICE.ss58_address, b"message", signature.hex())


@pytest.mark.parametrize(
    ("challenge", "hotkey"), [("\ud800", ALICE.ss58_address), ("|0x|1", "\ud800"), ("|0x|1", "")]
)
def test_a_row_that_cannot_be_signed_is_not_valid(challenge: str, hotkey: str) -> None:
    assert not row_signature_valid(challenge, hotkey, ALICE.sign(b"|0x|1").hex())


@pytest.mark.parametrize(("layer", "name"), [(2**31, "m"), (-(2**31) - 1, "m"), (-1, "\ud800")])
def test_fields_without_a_signed_form_are_named(layer: int, name: str) -> None:
    with pytest.raises(MalformedCommit):
        commit_binding(HASH, "ab", name, layer, HASH)


@pytest.mark.parametrize("randomness", ["zz", None])
@pytest.mark.parametrize("layer", [-1, 2**40])
def test_a_commit_without_a_signed_form_is_not_valid(randomness: str | None, layer: int) -> None:
    signature = ALICE.sign(HASH).hex()
    assert not commit_signature_valid(
        ALICE.ss58_address,
        signature,
        proof_version="v5",
        tokens_hash=HASH,
        randomness=randomness,
        model_name=None,
        layer_index=layer,
        commitments_hash=HASH,
    )


def test_no_model_name_signs_as_the_empty_one() -> None:
    assert commit_binding(HASH, "ab", None, -1, HASH) == commit_binding(HASH, "ab", "", -1, HASH)


def test_a_miners_challenge_has_no_seed() -> None:
    assert outer_challenge("0xab", 7) == "|0xab|7"
