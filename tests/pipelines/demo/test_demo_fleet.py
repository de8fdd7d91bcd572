"""The demo's fleet: three nodes, one of which cheats."""

from tests.pipelines.demonstrated import Demonstrated


def test_the_cheat_is_caught_and_nobody_else(demonstrated: Demonstrated) -> None:
    rows = demonstrated.lake.query(
        "SELECT node, kind, passed FROM attestations WHERE kind IN ('attestation', 'gemm_proof')"
    ).to_pylist()
    assert {(row["node"], row["kind"]): row["passed"] for row in rows} == {
        ("here", "attestation"): True,
        ("here", "gemm_proof"): True,
        ("agent", "attestation"): True,
        ("agent", "gemm_proof"): True,
        ("cheat", "attestation"): False,
        ("cheat", "gemm_proof"): False,
    }
    reasons = demonstrated.lake.query(
        'SELECT "check", reason FROM node_checks '
        "WHERE node = 'cheat' AND windrow_verdict IS FALSE AND stage <> 'preflight'"
    ).to_pylist()
    found = {row["check"]: row["reason"] for row in reasons}
    assert "is not the product's" in found["gemm_product"]
    assert "matrices are wrong" in found["attestation_fill"]


def test_it_is_shown(demonstrated: Demonstrated) -> None:
    table = demonstrated.printed.partition("node cheat: ")[2]
    for word in ("here", "agent", "cheat", "verified", "refused"):
        assert word in table, demonstrated.printed
