"""Arguments of a model server: merged, and read for how many GPUs it takes."""

import pytest

from windrow.networks.gonka.model_args import (
    Layout,
    NoLayoutRecipe,
    instances,
    merged_args,
    network_layout,
    recipe,
    strict_layout,
)


@pytest.mark.parametrize(
    ("governance", "local", "merged"),
    [
        (["--q", "fp8"], ["--t", "4", "--q", "awq"], ["--q", "fp8", "--t", "4"]),
        (["--x"], ["--x", "--y", "2"], ["--x", "--y", "2"]),
        (["--k", "a"], ["--k=b"], ["--k", "a", "--k=b"]),
        ([], ["stray", "--a", "1", "stray", "-tp", "2", "--a", "3"], ["--a", "1"]),
        (["--a", "1"], [], ["--a", "1"]),
    ],
)
def test_governance_comes_first(governance: list[str], local: list[str], merged: list[str]) -> None:
    assert merged_args(governance, local) == merged


def test_sizes_the_network_does_not_understand_are_one() -> None:
    for args in (["--tensor-parallel-size=4"], ["--tensor-parallel-size", "x"], ["-tp", "4"]):
        assert network_layout(args) == Layout(1, 1)
    assert network_layout(["--tensor-parallel-size"]) == Layout(1, 1)
    assert strict_layout(["--tensor-parallel-size=4"]) == Layout(4, 1)


def test_servers_share_out_the_devices() -> None:
    assert instances(8, Layout(3, 1)) == [range(3), range(3, 6)]
    assert instances(2, Layout(2, 2)) == [range(4)]
    assert instances(0, Layout(1, 1)) == [range(1)]
    assert len(instances(8, Layout(1, 1), 2)) == 2


def test_there_is_no_default_recipe() -> None:
    rows = [{"model": "m", "gpu_type": "H100", "gpu_count": 8, "args": []}]
    assert recipe(rows, "m", "H100", 8) is rows[0]
    for asked in (("m", "H100", 4), ("m", "A100", 8), ("n", "H100", 8)):
        with pytest.raises(NoLayoutRecipe):
            recipe(rows, *asked)
