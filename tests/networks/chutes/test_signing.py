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
