"""Pages of receipts: which there are, and what of one is taken (§6.3, §6.4)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from windrow import WindrowError
from windrow.networks.compute_horde.receipts import InvalidReceipt, Receipt, read_receipt
from windrow.networks.compute_horde.signing import MalformedSignature

PAGE_SECONDS: Final = 300
ACTIVE_PAGES: Final = 2
CATCH_UP_SECONDS: Final = 5 * 3600

MAX_PAGE_BYTES: Final = 16 << 20
MAX_LINE_BYTES: Final = 64 << 10

BAD_LINE: Final = "ValidationError"
BAD_MINER: Final = "BadMinerReceiptSignature"
BAD_VALIDATOR: Final = "BadValidatorReceiptSignature"


class PageLost(WindrowError):
    """The network takes nothing of a page because of one line in it (§14.9)."""


def page_at(time: datetime) -> int:
    """The page a receipt that is written now goes to. time: with its zone."""
    return math.floor(time.timestamp() / PAGE_SECONDS)


@dataclass(frozen=True)
class PagePlan:
    """Pages a validator asks a miner for.

    active: newest first, asked again and again. oldest: the first that catching up goes back to.
    archived: the newest that also has a gzip twin.
    """

    active: tuple[int, ...]
    oldest: int
    archived: int

    @property
    def earlier(self) -> range:
        """Pages to catch up with after the active ones, newest first."""
        return range(self.active[-1] - 1, self.oldest - 1, -1)


def page_plan(time: datetime) -> PagePlan:
    """What to ask for now (§6.4)."""
    newest = page_at(time)
    active = tuple(newest - back for back in range(ACTIVE_PAGES))
    return PagePlan(active, newest - CATCH_UP_SECONDS // PAGE_SECONDS, newest - ACTIVE_PAGES)


@dataclass(frozen=True)
class Page:
    """What was taken of a page, and why each other line was not: its number from 0, its reason."""

    receipts: tuple[Receipt, ...]
    refused: tuple[tuple[int, str], ...]


def network_page(content: bytes) -> Page:
    """What the network takes. Raises PageLost where it loses the page to one line."""
    receipts, refused = [], []
    for number, line in enumerate(_lines(content)):
        try:
            receipt = read_receipt(line)
            by_miner = receipt.network_by_miner()
        except InvalidReceipt:
            refused.append((number, BAD_LINE))
            continue
        except MalformedSignature as error:
            raise PageLost(f"line {number}: {error}") from error
        if not by_miner:
            refused.append((number, BAD_MINER))
        elif not receipt.by_validator():
            refused.append((number, BAD_VALIDATOR))
        else:
            receipts.append(receipt)
    return Page(tuple(receipts), tuple(refused))


def strict_page(content: bytes) -> Page:
    """Every receipt that both sides signed; a bad line costs no other.

    No more than MAX_PAGE_BYTES are looked at; a line cut there, or a longer one than
    MAX_LINE_BYTES, is refused.
    """
    receipts, refused = [], []
    for number, line in enumerate(_lines(content[:MAX_PAGE_BYTES])):
        if len(line) > MAX_LINE_BYTES:
            refused.append((number, f"a line of {len(line)} bytes"))
            continue
        try:
            receipt = read_receipt(line)
        except InvalidReceipt as error:
            refused.append((number, str(error)))
            continue
        if not receipt.by_miner():
            refused.append((number, BAD_MINER))
        elif not receipt.by_validator():
            refused.append((number, BAD_VALIDATOR))
        else:
            receipts.append(receipt)
    if len(content) > MAX_PAGE_BYTES:
        refused.append((-1, f"a page of {len(content)} bytes; {MAX_PAGE_BYTES} were read"))
    return Page(tuple(receipts), tuple(refused))


def page_bytes(receipts: tuple[Receipt, ...]) -> bytes:
    """A page as a miner serves it: a line a receipt."""
    return b"".join(receipt.line() + b"\n" for receipt in receipts)


def _lines(content: bytes) -> Iterator[bytes]:
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    yield from lines
