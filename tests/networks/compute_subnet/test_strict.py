"""Where the network's rule has a fault, Windrow's sibling does what was meant."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from windrow.networks.compute_subnet import access, machines
from windrow.networks.compute_subnet.credentials import BadCredentials, unwrap, wrap
from windrow.networks.compute_subnet.gpu_scores import score_v1_8_3


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
