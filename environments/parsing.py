"""Finding the answer in a completion (grail-protocol §12.2).

Tags match in any case and content may span lines. Every search moves forward only, so a completion
made of a million half-open tags costs one pass.
"""

import re
from dataclasses import dataclass

from windrow.environments.errors import UnknownEnvironment

CLOSING_THINKING_TAG = {
    "instructed": re.compile(r"</end_working_out>", re.IGNORECASE),
    "native": re.compile(r"</think>", re.IGNORECASE),
}
ANSWER_OPENS = re.compile(r"<SOLUTION>", re.IGNORECASE)
ANSWER_CLOSES = re.compile(r"</SOLUTION>", re.IGNORECASE)


@dataclass(frozen=True)
class ParsedCompletion:
    """What a completion shows of itself.

    content: stripped text between the answer tags; empty without an answer.
    has_thinking: the closing thinking tag occurs; the opening one is not asked for.
    trailing: characters after the answer's closing tag, the end-of-sequence text included.
    """

    content: str
    has_thinking: bool
    has_answer: bool
    trailing: int


def check_thinking_mode(mode: str) -> None:
    """Raises UnknownEnvironment unless the mode is one the network knows."""
    if mode not in CLOSING_THINKING_TAG:
        raise UnknownEnvironment(
            f"thinking mode {mode!r:.40} is unknown; the checkpoint's metadata must name one of "
            f"{', '.join(CLOSING_THINKING_TAG)}"
        )


def parse_completion(text: str, mode: str) -> ParsedCompletion:
    """The first answer after the first closing thinking tag, else the first answer anywhere."""
    thinking = CLOSING_THINKING_TAG[mode].search(text)
    answer = _answer(text, thinking.end()) if thinking else None
    if answer is None:
        answer = _answer(text, 0)
    if answer is None:
        return ParsedCompletion("", thinking is not None, False, 0)
    content, end = answer
    return ParsedCompletion(content, thinking is not None, True, len(text) - end)


def _answer(text: str, start: int) -> tuple[str, int] | None:
    """Stripped content and end of the first answer that opens at or after ``start``."""
    opening = ANSWER_OPENS.search(text, start)
    closing = ANSWER_CLOSES.search(text, opening.end()) if opening else None
    if opening is None or closing is None:
        return None
    return text[opening.end() : closing.start()].strip(), closing.end()
