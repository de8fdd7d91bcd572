"""Chutes: signed requests, built and verified."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from bittensor_core import Keypair

from windrow.networks.chutes import signing
from windrow.networks.signatures import verify_signature

from .framework import Case, VectorFile, handles

Row = dict[str, Any]

ENCODINGS = {
    "cli": signing.spaced_json,
    "miner-api": signing.compact_json,
    "gepetto": signing.compact_json,
}


@handles("chutes/signing.json")
def signed_requests(file: VectorFile) -> Iterator[Case]:
    data = file.load_json()
    keys = data["keys"]
    for case in data["sign"]:
        yield Case(case["id"], partial(check_sign, case, keys))
    for case in data["validator_to_miner_sign"]:
        yield Case(case["id"], partial(check_validator_sign, case, keys))
    for case in data["miner_side_verify"]:
        yield Case(case["id"], partial(check_miner_side, case, keys))
    for case in data["validator_side_verify"]:
        yield Case(case["id"], partial(check_validator_side, case))


def expected(case: Row) -> bool:
    """Whether the network takes a request: `accept`, or `reject` with how it answered."""
    verdict = case["expected"].partition(":")[0]
    assert verdict in {"accept", "reject"}
    return bool(verdict == "accept")


def signer(key: Row) -> signing.Sign:
    return Keypair.create_from_uri(key["uri"]).sign


def check_request(made: signing.SignedRequest, case: Row, address: str) -> None:
    names = made.headers.keys() - {signing.SIGNATURE}
    assert made.headers.keys() == case["headers"].keys()
    assert {name: made.headers[name] for name in names} == {
        name: case["headers"][name] for name in names
    }
    body = case["body_utf8"]
    assert made.body == (None if body is None else body.encode())
    text = case["signing_string"].encode()
    for signature in (made.headers[signing.SIGNATURE], case["headers"][signing.SIGNATURE]):
        assert verify_signature(address, text, signature)


def check_sign(case: Row, keys: Row) -> None:
    inputs, nonce = case["inputs"], int(case["nonce"])
    address, sign = keys["miner"]["ss58"], signer(keys["miner"])
    given: Row = {
        "payload": inputs.get("payload"),
        "purpose": inputs.get("purpose"),
        "encode": ENCODINGS[case["caller"]],
    }

    def make() -> signing.SignedRequest:
        if case["direction"].endswith("->validator"):
            return signing.to_validator(sign, address, nonce, **given)
        return signing.to_miner(sign, address, address, nonce, **given)

    if case["error"]:
        with pytest.raises(signing.NothingToSign):
            make()
    else:
        made = make()
        check_request(made, case, address)
        if case["body_sha256"]:
            assert made.body is not None
            assert signing.body_hash(made.body) == case["body_sha256"]


def check_validator_sign(case: Row, keys: Row) -> None:
    validator = keys["validator"]
    made = signing.to_miner(
        signer(validator),
        keys["miner"]["ss58"],
        validator["ss58"],
        int(case["nonce"]),
        payload=case["inputs"].get("payload"),
        purpose=case["inputs"].get("purpose"),
        plain_types=True,
    )
    check_request(made, case, validator["ss58"])


def check_miner_side(case: Row, keys: Row) -> None:
    endpoint, body = case["endpoint"], case["body_utf8"]
    signers = [keys["miner"]["ss58"]] if endpoint["allow_miner"] else []
    signers += [keys["validator"]["ss58"]] if endpoint["allow_validator"] else []
    accepted = signing.network_miner_accepts(
        case["headers"],
        miner=keys["miner"]["ss58"],
        signers=signers,
        method=endpoint["method"],
        purpose=endpoint["purpose"],
        body=None if body is None else body.encode(),
        clock=case["clock"],
    )
    assert accepted == expected(case)


def check_validator_side(case: Row) -> None:
    endpoint, body = case["endpoint"], case["body_utf8"]
    accepted = signing.network_validator_accepts(
        case["headers"],
        purpose=endpoint["purpose"],
        body=None if body is None else body.encode(),
        clock=case["clock"],
        registered=case["hotkey_registered"] or endpoint["registered_to"] is None,
    )
    assert accepted == expected(case)
