"""GPUs by index."""

from pathlib import Path

import pytest

from windrow.resources.gpus import NoSuchGpu, named_gpus, visible_gpus


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0,1", ("0", "1")),
        ("3, 5 ,GPU-abc", ("3", "5", "GPU-abc")),
        ("", ()),
        ("-1", ()),
        ("2,-1,3", ("2",)),
    ],
)
def test_cuda_visible_devices_is_what_indices_count(visible: str, found: tuple[str, ...]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_without_it_all_of_the_machines_count(tmp_path: Path) -> None:
    for name in ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "2", "10")


def test_an_index_is_an_entry_or_an_error() -> None:
    assert named_gpus((2, 0), "x", ("a", "b", "c")) == ("c", "a")
    with pytest.raises(NoSuchGpu, match="the server would need GPU 3, but 3 are visible"):
        named_gpus((1, 3), "the server", ("a", "b", "c"))
