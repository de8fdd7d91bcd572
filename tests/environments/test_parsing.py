import pytest

from windrow.environments.errors import UnknownEnvironment
from windrow.environments.parsing import ParsedCompletion, check_thinking_mode, parse_completion


def test_the_answer_after_thinking_goes_first() -> None:
    text = "<SOLUTION>1</SOLUTION></think><solution> 2 </SOLUTION>\n"
    assert parse_completion(text, "native") == ParsedCompletion("2", True, True, 1)
    assert parse_completion(text, "instructed") == ParsedCompletion("1", False, True, 33)


def test_an_answer_before_thinking_counts_when_none_follows() -> None:
    text = "<SOLUTION>1</SOLUTION></think><SOLUTION>2"
    assert parse_completion(text, "native").content == "1"


def test_long_hostile_text_is_read_once() -> None:
    text = "<SOLUTION>" * 200_000 + "</think>" * 200_000
    assert parse_completion(text, "native") == ParsedCompletion("", True, False, 0)


def test_unknown_modes_are_named() -> None:
    with pytest.raises(UnknownEnvironment, match="'silent' is unknown"):
        check_thinking_mode("silent")
