"""The catalogue of cheats against Gonka's proofs: each outcome is as it is documented."""

from benchmarks.soundness import fleet_gonka


def test_no_cheat_of_the_catalogue_is_paid_for() -> None:
    assert fleet_gonka.honest().network_outcome == fleet_gonka.honest().windrow_outcome
    rows = {row.name: row for row in fleet_gonka.rows()}
    assert len(rows) >= 15
    weights = {
        "duplicate nonces: the same work in three batches": "accepted: weight 250",
        "one distance at the target, to silence validators": "accepted: weight 199",
    }
    for name, row in rows.items():
        assert row.reason
        if "share" in name:
            assert "FOREIGN_NONCES" in row.reason
        elif "views" not in name:
            assert row.windrow_outcome == weights.get(name, "refused"), name
    assert rows["predictable samples: 200 computed, 5000 paid"].network_outcome.endswith("5000")
