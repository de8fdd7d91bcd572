"""compute-subnet: who may call whom, machines and requests, shared state, logins."""

import base64
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from windrow.networks.compute_subnet import access, machines, shared_state
from windrow.networks.compute_subnet.credentials import unwrap, wrap
from windrow.networks.signatures import verify_signature

from .framework import Case, VectorFile, each, handles

Row = dict[str, Any]


@handles("compute-subnet/miner_blacklist.json")
def miner_blacklist(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        lists = access.Lists(
            dict(given["metagraph"]),
            given["whitelist"],
            given["blacklist"],
            given["exploiters"],
            given["allow_low_stake"],
        )
        made = access.network_access(given["caller"], lists)
        assert (made.rejected, made.reason) == (out["rejected"], out["reason"])

    return each(file, check)


@handles("compute-subnet/validator_blacklist.json")
def validator_blacklist(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        made = access.blacklisted(
            given["hotkey"],
            given["coldkey"],
            given["blacklist_hotkeys"],
            given["blacklist_coldkeys"],
            given["exploiters_hotkeys"],
            given["exploiters_coldkeys"],
        )
        assert made == out["blacklisted"]

    return each(file, check)


@handles("compute-subnet/axon_filters.json")
def axon_filters(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        axons = [access.Axon(*axon) for axon in given["axons_uid_ip_version"]]
        by_address = access.first_of_each_address(axons)
        assert [axon.uid for axon in by_address] == out["after_ip"]
        current = access.network_of_current_version(
            by_address,
            given["minimal_version"],
            given["total_current_miners"],
            given["threshold_percent"],
        )
        assert [axon.uid for axon in current] == out["after_version"]

    return each(file, check)


@handles("compute-subnet/version_number.json")
def version_number(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert access.version_number(given["version"]) == out["number"]

    return each(file, check)


@handles("compute-subnet/spec_matching.json")
def spec_matching(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        assert machines.fits(given["details"], given["required"]) == out["meets"]

    return each(file, check)


@handles("compute-subnet/miner_details_updates.json")
def miner_details_updates(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        known: dict[str, machines.Details] = {}
        for reports, wanted in zip(given["batches"], out["states"], strict=True):
            known = machines.network_updated(known, [tuple(report) for report in reports])
            assert {hotkey: [details, 0] for hotkey, details in known.items()} == wanted
        with_docker = [hotkey for hotkey, details in known.items() if details.get("has_docker")]
        assert sorted(with_docker) == sorted(out["has_docker"])

    return each(file, check)


@handles("compute-subnet/api_pagination.json")
def api_pagination(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        items, following = machines.page_of(
            given["n_items"], given["page_number"], given["page_size"]
        )
        assert list(items) == out["page_items"]
        assert following == out["next_page_number"]
        assert (given["page_number"], given["page_size"]) == (out["page_number"], out["page_size"])

    return each(file, check)


@handles("compute-subnet/shared_state_consensus.json")
def shared_state_consensus(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        runs = [
            shared_state.SharedRun(
                run["hotkey"],
                run["signature_valid"],
                {uid: shared_stat(entry) for uid, entry in (run["stats"] or {}).items()},
                run["allocated_hotkeys"] or [],
            )
            for run in given["runs"]
        ]
        counted = shared_state.counted(
            runs, given["valid_validator_hotkeys"], everyone=not given["flag"]
        )
        made = shared_state.consensus(counted)
        assert made == {uid: shared_stat(entry) for uid, entry in out["stats"].items()}
        assert shared_state.allocated_hotkeys(counted) == out["allocated_hotkeys"]

    return each(file, check)


def shared_stat(entry: Row) -> shared_state.SharedStat:
    gpus = entry["gpu_specs"] or {}
    return shared_state.SharedStat(
        entry["hotkey"],
        gpus.get("gpu_name"),
        gpus.get("num_gpus"),
        entry["score"],
        entry["own_score"],
    )


@handles("compute-subnet/run_signature.json")
def run_signature(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        message = shared_state.run_message(given["run_id"])
        made = verify_signature(given["hotkey"], message, given["signature_hex"])
        assert made == out["valid"]

    return each(file, check)


@handles("compute-subnet/credential_wrap.json")
def credential_wrap(file: VectorFile) -> Iterator[Case]:
    def check(given: Row, out: Row) -> None:
        numbers = {name: int(value) for name, value in given["rsa_numbers_test_only"].items()}
        public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"])
        p, q = numbers["p"], numbers["q"]
        d = pow(numbers["e"], -1, (p - 1) * (q - 1))
        key = rsa.RSAPrivateNumbers(
            p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public
        ).private_key()
        assert unwrap(key, given["ciphertext_b64"]).decode() == out["plaintext"]
        again = wrap(key.public_key(), out["plaintext"].encode())
        assert base64.b64decode(again) != base64.b64decode(given["ciphertext_b64"])
        assert unwrap(key, again).decode() == out["plaintext"]

    return each(file, check)
