import pytest

from windrow.environments.errors import DatasetUnavailable, UnknownEnvironment
from windrow.environments.splits import (
    check_filled,
    check_split,
    extended,
    fraction_index,
    held_out,
    stratified,
    train_and_validation,
)


def test_every_row_lands_in_one_split() -> None:
    train, val = train_and_validation(1000, 250)
    assert sorted(train + val) == list(range(1000))
    assert train == sorted(train)
    assert sorted(extended(15)[0] + extended(15)[1]) == list(range(15))


def test_stratified_rows_land_in_one_split_whatever_rounding_does() -> None:
    sizes = {"a": 3, "b": 50, "c": 1, "d": 7}
    for validation in range(62):
        train, val = stratified(sizes, validation)
        assert len(set(train) | set(val)) == len(train) + len(val) == 61
        assert len(val) <= validation


def test_only_sets_too_small_for_the_network_give_up_less() -> None:
    assert held_out(7473, 250) == 250
    assert held_out(7500, 500) == 500
    assert held_out(70, 500) == 4


def test_indices_stay_inside() -> None:
    assert fraction_index(2**32 - 1, 7223) == 7222
    assert fraction_index(2**32, 7223) == 0


def test_wrong_and_empty_splits_are_refused() -> None:
    with pytest.raises(UnknownEnvironment, match="no split 'test'"):
        check_split("test", ("train",), "mbpp")
    with pytest.raises(UnknownEnvironment, match="no split 7"):
        check_split(7, ("train",), "mbpp")
    with pytest.raises(DatasetUnavailable, match="empty"):
        check_filled(0, "gsm8k", "train")
