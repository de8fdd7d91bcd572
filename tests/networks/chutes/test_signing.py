"""Our own services refuse what the network's would take."""

import pytest
from bittensor_core import Keypair

from windrow.networks.chutes import signing

ALICE, BOB, EVE = (Keypair.create_from_uri(uri) for uri in ("//Alice", "//Bob", "//Eve"))
NODE, CALLER = ALICE.ss58_address, BOB.ss58_address
ASKED = {"method": "POST", "path": "/tasks/facts?x=1", "body": b"{}"}


def problem(request: signing.SignedRequest, clock: float = 1000.0, **changes: object) -> str | None:
    arguments = {"miner": NODE, "signers": [CALLER], "clock": clock, **ASKED, **changes}
    return signing.strict_problem(request.headers, **arguments)  # type: ignore[arg-type]


def request(signer: Keypair = BOB, nonce: int = 1000) -> signing.SignedRequest:
    return signing.to_agent(signer.sign, NODE, CALLER, nonce, **ASKED)  # type: ignore[arg-type]


def test_a_request_is_taken_for_what_it_asks_and_nothing_else() -> None:
    made = request()
    assert problem(made) is None
    for change in ({"method": "PUT"}, {"path": "/tasks/facts"}, {"body": b"{} "}):
        assert problem(made, **change) == "the signature is not the caller's over this request"


@pytest.mark.parametrize("clock", [970.0, 1030.0, 1000.0 + 86400, 1000.0 - 86400])
def test_a_nonce_far_from_the_clock_is_refused_both_ways(clock: float) -> None:
    assert "not within 30" in str(problem(request(), clock))


def test_nobody_is_on_an_empty_list() -> None:
    assert problem(request(), signers=[]) == "the caller is not on this node's list"


def test_another_key_cannot_sign_for_the_caller() -> None:
    assert problem(request(EVE)) == "the signature is not the caller's over this request"


@pytest.mark.parametrize(
    "nonce", ["", "abc", "-1000", "1000.0", "\u0661\u0660\u0660\u0660", "9" * 400]
)
def test_a_nonce_that_is_no_number_is_refused(nonce: str) -> None:
    made = request()
    headers = {**made.headers, signing.NONCE: nonce}
    assert problem(signing.SignedRequest(headers, b"{}")) is not None


def test_headers_that_are_not_there_are_a_refusal() -> None:
    assert problem(signing.SignedRequest({}, b"{}")) == "the request is for another node"


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of no bytes."""


def signed(text: str) -> dict[str, str]:
    return {
        signing.HOTKEY: NODE,
        signing.MINER: NODE,
        signing.VALIDATOR: NODE,
        signing.NONCE: "1000",
        signing.SIGNATURE: ALICE.sign(text.encode()).hex(),
    }


@pytest.mark.parametrize(
    ("purpose", "body", "tail", "accepted"),
    [
        (None, b"", EMPTY, True),
        (None, b"", "", False),
        (None, b"", "None", False),
        (None, None, EMPTY, False),
        (None, None, "None", False),
        (None, None, "", False),
        ("", b"", EMPTY, True),
        ("", None, "", False),
        ("miner", b"", "miner", True),
        ("miner", b"", EMPTY, False),
        ("miner", None, "miner", True),
    ],
)
def test_a_validator_takes_the_purpose_or_the_hash_of_a_body(
    purpose: str | None, body: bytes | None, tail: str, accepted: bool
) -> None:
    assert accepted == signing.network_validator_accepts(
        signed(f"{NODE}:1000:{tail}"), purpose=purpose, body=body, clock=1000.0, registered=True
    )


@pytest.mark.parametrize(
    ("method", "purpose", "body", "tail", "accepted"),
    [
        ("POST", None, b"", EMPTY, True),
        ("PUT", None, None, EMPTY, True),
        ("PATCH", "management", b"", EMPTY, True),
        ("POST", "management", b"", "management", False),
        ("GET", "management", b"", "management", True),
        ("DELETE", "management", None, "management", True),
        ("GET", None, None, "None", False),
        ("GET", None, b"", EMPTY, False),
        ("GET", "", None, "", False),
        ("DELETE", None, None, "None", False),
    ],
)
def test_a_miner_takes_nothing_without_a_body_or_a_purpose(
    method: str, purpose: str | None, body: bytes | None, tail: str, accepted: bool
) -> None:
    assert accepted == signing.network_miner_accepts(
        signed(f"{NODE}:{NODE}:1000:{tail}"),
        miner=NODE,
        signers=[NODE],
        method=method,
        purpose=purpose,
        body=body,
        clock=1000.0,
    )


@pytest.mark.parametrize("purpose", [None, "", "miner"])
@pytest.mark.parametrize("payload", ["", b""])
def test_an_empty_payload_is_not_sent(payload: str | bytes, purpose: str | None) -> None:
    with pytest.raises(signing.NothingToSign):
        signing.to_validator(ALICE.sign, NODE, 1000, payload=payload, purpose=purpose)
    with pytest.raises(signing.NothingToSign):
        signing.to_miner(ALICE.sign, NODE, NODE, 1000, payload=payload, purpose=purpose)


@pytest.mark.parametrize("purpose", [None, "", "miner"])
@pytest.mark.parametrize(("payload", "body"), [({}, b"{}"), ([], b"[]"), ("0", b"0")])
def test_a_payload_that_is_there_is_signed_whatever_the_purpose(
    payload: object, body: bytes, purpose: str | None
) -> None:
    texts = []

    def sign(text: bytes) -> bytes:
        texts.append(text.decode())
        return ALICE.sign(text)

    made = signing.to_validator(sign, NODE, 1000, payload=payload, purpose=purpose)
    assert made.body == body
    assert texts == [f"{NODE}:1000:{signing.body_hash(body)}"]


@pytest.mark.parametrize("payload", [0, 5, False, 1.5, object()])
def test_a_payload_of_no_kind_that_is_sent_is_a_mistake(payload: object) -> None:
    with pytest.raises(TypeError):
        signing.to_validator(ALICE.sign, NODE, 1000, payload=payload)
