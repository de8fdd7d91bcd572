"""drand relays: asked in order, bounded in time, believed only for a signature that holds."""

import hashlib
import time
from dataclasses import replace

import pytest

from tests.support.relays import HONEST, LIES, relays
from windrow.networks.grail.drand import DrandRound, WrongChain, WrongSignature, verify_round
from windrow.networks.grail.windows import MAINNET, QUICKNET
from windrow.resources.drand import DrandRelays, DrandUnavailable

SECONDS = 2.0


def test_the_first_relay_is_enough() -> None:
    with relays("honest", "honest") as (first, second):
        answer = DrandRelays([first.url, second.url], SECONDS).round(1000)
    assert answer.round == DrandRound(1000, HONEST["randomness"], HONEST["signature"])
    assert (answer.relay, answer.refusals) == (first.address, ())
    assert first.asked == [f"/{QUICKNET.hash}/public/1000"]
    assert second.asked == []


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_by_name_and_the_next_relay_asked(lie: str) -> None:
    with relays(lie, "honest") as (liar, honest):
        answer = DrandRelays([liar.url, honest.url], SECONDS).round(1000)
    assert answer.relay == honest.address
    (refusal,) = answer.refusals
    assert refusal.name == lie
    assert refusal.detail.startswith(f"{liar.address}: ")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("silent", "answers 503"),
        ("slow", "no whole answer in 2 s"),
        ("drip", "in"),
        ("huge", "more than 4096 bytes"),
    ],
)
def test_no_relay_takes_longer_than_its_time(behaviour: str, said: str) -> None:
    with relays(behaviour, "honest") as (bad, honest):
        began = time.monotonic()
        answer = DrandRelays([bad.url, honest.url], SECONDS).round(1000)
        took = time.monotonic() - began
    assert answer.relay == honest.address
    (refusal,) = answer.refusals
    assert refusal.name == "RelayFailed"
    assert said in refusal.detail
    # A dripping answer alone would take a minute, and so would a slow one.
    assert took < 30


def test_without_a_true_relay_every_refusal_is_named() -> None:
    with relays("silent", "WrongSignature") as (silent, liar):
        addresses = [silent.url, liar.url, "http://127.0.0.1:9"]
        with pytest.raises(DrandUnavailable, match="round 1000") as caught:
            DrandRelays(addresses, SECONDS).round(1000)
    assert [r.name for r in caught.value.refusals] == [
        "RelayFailed",
        "WrongSignature",
        "RelayFailed",
    ]
    assert all(refusal.detail in str(caught.value) for refusal in caught.value.refusals)


def test_a_signature_outside_its_group_is_refused() -> None:
    """On the curve, and not in G1: x = 4 is the least such x."""
    compressed = bytearray((4).to_bytes(48, "big"))
    compressed[0] |= 0x80
    for signature in (bytes(compressed), b"\xc0" + bytes(47), bytes(48)):
        randomness = hashlib.sha256(signature).hexdigest()
        with pytest.raises(WrongSignature):
            verify_round(DrandRound(1000, randomness, signature.hex()))


def test_rounds_of_another_chain_are_not_believed() -> None:
    genuine = DrandRound(1000, HONEST["randomness"], HONEST["signature"])
    verify_round(genuine)
    with pytest.raises(WrongChain, match="mainnet"):
        verify_round(genuine, MAINNET)
    other_key = replace(
        QUICKNET,
        public_key="93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57"
        "e5ac7d055d042b7e024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a8"
        "05bbefd48056c8c121bdb8",
    )
    with pytest.raises(WrongSignature):
        verify_round(genuine, other_key)
