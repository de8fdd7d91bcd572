"""Where the network's rule has a fault, Windrow's sibling does what was meant."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from windrow.networks.compute_subnet import access, machines
from windrow.networks.compute_subnet.credentials import BadCredentials, unwrap, wrap
from windrow.networks.compute_subnet.gpu_models import MODELS, Measured, network_model, strict_model
from windrow.networks.compute_subnet.gpu_proof import BadProofOutput, parse_benchmark, parse_proof
from windrow.networks.compute_subnet.gpu_scores import score_v1_8_3
from windrow.networks.compute_subnet.hash_challenge import (
    challenge_of,
    network_answer,
    password_at,
    solves,
    strict_answer,
)


def lists(**changes: object) -> access.Lists:
    values: dict[str, object] = {
        "stakes": {"trusted": 5000.0, "poor": 1.0, "bad": 5000.0},
        "whitelist": ["trusted"],
        "blacklist": ["bad"],
        "exploiters": [],
        "allow_low_stake": False,
    }
    return access.Lists(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("caller", ["stranger", "bad", "poor"])
def test_a_whitelist_keeps_out_whoever_is_not_on_it(caller: str) -> None:
    assert not access.network_access(caller, lists()).rejected
    assert access.strict_access(caller, lists()).rejected


def test_whoever_is_on_the_whitelist_is_served() -> None:
    assert not access.strict_access("trusted", lists()).rejected


def test_old_versions_are_dropped_only_once_enough_miners_have_the_new_one() -> None:
    axons = [access.Axon(uid, f"10.0.0.{uid}", 100 if uid else 200) for uid in range(10)]
    network = access.network_of_current_version(axons, 200, 10, 60)
    assert [axon.uid for axon in network] == [0]
    assert access.strict_of_current_version(axons, 200, 10, 60) == axons
    assert access.strict_of_current_version(axons, 100, 10, 60) == axons


def test_an_unknown_least_version_drops_nobody() -> None:
    axons = [access.Axon(1, "10.0.0.1", 183)]
    assert access.network_of_current_version(axons, None, 1, 60) == []
    assert access.strict_of_current_version(axons, None, 1, 60) == axons


def test_an_empty_report_costs_its_own_miner_and_nobody_else() -> None:
    known: dict[str, tuple[machines.Details, int]] = {"silent": ({"gpu": 1}, 0)}
    for _ in range(machines.MOST_EMPTY_REPORTS - 1):
        known = machines.strict_updated(known, [("silent", {}), ("other", {"gpu": 2})])
    assert known["silent"] == ({"gpu": 1}, 4)
    assert known["other"] == ({"gpu": 2}, 0)
    known = machines.strict_updated(known, [("silent", {})])
    assert known["silent"][0] == {}
    assert machines.network_updated({"a": {"gpu": 1}}, [("a", {"gpu": 2}), ("b", {})]) == {
        "a": {"gpu": 1}
    }


def test_a_login_needs_a_key_of_2048_bits_and_its_own_key() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(BadCredentials, match="1024 bits"):
        wrap(weak.public_key(), b"{}")
    one, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in "ab")
    with pytest.raises(BadCredentials):
        unwrap(other, wrap(one.public_key(), b"{}"))
    with pytest.raises(BadCredentials):
        unwrap(one, "not base64!")


def test_a_table_of_worthless_cards_divides_by_nothing() -> None:
    assert score_v1_8_3("NVIDIA L4", 1, {"NVIDIA L4": 0.0}) == 0.0


def test_a_password_with_a_colon_is_read_whole() -> None:
    challenge = challenge_of("a:b", bytes(8), "ab:")
    line = f"{challenge.hash}:{challenge.salt}:a:b"
    assert network_answer(line, challenge) == "b"
    assert strict_answer(line, challenge) == "a:b"
    assert solves("a:b", challenge)
    assert not solves("b", challenge)


def test_passwords_are_numbered_one_after_another() -> None:
    assert [password_at("ab", 2, number) for number in range(4)] == ["aa", "ab", "ba", "bb"]


def test_three_numbers_of_no_card_are_no_card() -> None:
    nothing = Measured(1.0, 1.0, 1.0)
    assert network_model(nothing, None) in MODELS
    assert strict_model(nothing, network_model(nothing, None)) is None


def test_a_card_that_calls_itself_its_dearer_sibling_is_not_believed() -> None:
    plain = MODELS["NVIDIA A100 80GB PCIe"]
    assert network_model(plain, "NVIDIA A100-SXM4-80GB") == "NVIDIA A100-SXM4-80GB"
    assert strict_model(plain, "NVIDIA A100-SXM4-80GB") is None
    assert strict_model(plain, "NVIDIA A100 80GB PCIe") == "NVIDIA A100 80GB PCIe"


@pytest.mark.parametrize("output", ["1 2 3 0 5 6", "1 2 3 nan 5 6", "1 2 3 4 5", "[" * 10_000])
def test_a_benchmark_without_six_sound_numbers_is_refused(output: str) -> None:
    with pytest.raises(BadProofOutput):
        parse_benchmark(output)


@pytest.mark.parametrize(
    "output", ["Root hashes: " + "[" * 100_000, "Root hashes: 3\nTimings: 4", "Timings: []"]
)
def test_proof_output_of_another_shape_is_refused(output: str) -> None:
    with pytest.raises(BadProofOutput):
        parse_proof(output)
