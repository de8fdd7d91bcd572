"""Recorded drand rounds, checked by mathematics."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from windrow.networks.grail.drand import (
    DOMAIN,
    SCHEME,
    DrandRound,
    WrongSignature,
    parse_round,
    verify_round,
)
from windrow.networks.grail.windows import MAINNET, QUICKNET, DrandChain, drand_round

from .framework import Case, VectorFile, handles

KNOWN = {chain.hash: chain for chain in (QUICKNET, MAINNET)}


@handles("drand/*.json")
def rounds(file: VectorFile) -> Iterator[Case]:
    recorded = file.load_json()
    chain = DrandChain(
        name=file.path.stem,
        hash=recorded["chain_hash"],
        genesis=recorded["genesis_time"],
        period=recorded["period"],
        public_key=recorded["public_key"],
    )
    yield Case("chain", partial(check_chain, chain))
    for entry in recorded.get("rounds", [recorded]):
        found = parse_round(entry)
        name = f"round-{found.number}"
        yield Case(f"{name}-scheme", partial(check_scheme, recorded))
        yield Case(f"{name}-randomness", partial(check_randomness, found))
        yield Case(f"{name}-signature", partial(verify_round, found, chain))
        yield Case(f"{name}-time", partial(check_time, found, chain))
        yield Case(f"{name}-another-round", partial(check_other_round, found, chain))
        yield Case(f"{name}-flipped-bytes", partial(check_flipped_bytes, found, chain))


def check_chain(chain: DrandChain) -> None:
    """A chain is known by its hash, and then is what Windrow knows of it."""
    known = KNOWN[chain.hash]
    assert replace(chain, name=known.name) == known


def check_scheme(recorded: dict[str, Any]) -> None:
    assert recorded["scheme"] == SCHEME
    assert recorded["dst"].encode() == DOMAIN


def check_randomness(found: DrandRound) -> None:
    assert hashlib.sha256(bytes.fromhex(found.signature)).hexdigest() == found.randomness


def check_time(found: DrandRound, chain: DrandChain) -> None:
    starts = chain.genesis + (found.number - 1) * chain.period
    assert drand_round(starts - 1, chain) == found.number - 1
    assert drand_round(starts, chain) == found.number
    assert drand_round(starts + chain.period - 1, chain) == found.number


def check_other_round(found: DrandRound, chain: DrandChain) -> None:
    for number in (found.number - 1, found.number + 1):
        with pytest.raises(WrongSignature):
            verify_round(replace(found, number=number), chain)


def check_flipped_bytes(found: DrandRound, chain: DrandChain) -> None:
    signature = bytes.fromhex(found.signature)
    for place in range(0, len(signature), 7):
        flipped = bytearray(signature)
        flipped[place] ^= 1
        forged = replace(
            found, signature=flipped.hex(), randomness=hashlib.sha256(flipped).hexdigest()
        )
        with pytest.raises(WrongSignature):
            verify_round(forged, chain)
