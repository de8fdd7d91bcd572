"""The catalogue of cheats against the fleet: none passes but for those that are listed."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.soundness import fleet, fleet_compute_subnet
from benchmarks.soundness.fleet import MENDED, UNDETECTED, Section
from benchmarks.soundness.fleet_row import Row
from windrow.networks.compute_subnet.gpu_proof import miner_matrix


@pytest.fixture(scope="module")
def catalogue() -> list[Section]:
    return fleet.sections()


def test_no_cheat_passes_unless_it_is_listed_with_the_reason(catalogue: list[Section]) -> None:
    assert fleet.missed(catalogue) == []
    assert not MENDED.keys() & UNDETECTED.keys()


def test_every_cheat_has_a_name_of_its_own_and_a_reason(catalogue: list[Section]) -> None:
    rows = [row for section in catalogue for row in section.rows]
    assert len(rows) >= 60
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.reason and row.network_outcome for row in rows)


def test_the_networks_fall_for_most_of_what_windrow_refuses(catalogue: list[Section]) -> None:
    rows = [row for section in catalogue for row in section.rows]
    assert sum(fleet.network_falls_for(row) for row in rows) > len(rows) / 2


def test_a_cheat_that_passes_is_noticed(catalogue: list[Section]) -> None:
    new = Section("s", [Row("new", "refused", "accepted", "")], [Row("h", "", "refused", "x")])
    assert fleet.missed([*catalogue, new]) == [
        "fleet: new: passes, and no reason is listed",
        "fleet: s: h: honest, and refused",
    ]


def test_the_shortcut_gives_the_networks_product_without_multiplying() -> None:
    n = 96
    quick = fleet_compute_subnet.by_shortcut(7, 11, n)
    exact = miner_matrix(7, n).astype(np.float64) @ miner_matrix(11, n).astype(np.float64)
    assert np.allclose(quick, exact, rtol=1e-6)


def test_the_page_names_what_is_not_detected(
    catalogue: list[Section], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "sections", lambda: catalogue)
    monkeypatch.setattr(fleet, "SHORTCUT_SIZE", 256)
    assert fleet.write(tmp_path) == []
    page = (tmp_path / fleet.PAGE).read_text(encoding="utf-8")
    assert all(name in page for name in (*UNDETECTED, *MENDED))
