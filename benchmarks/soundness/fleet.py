"""The catalogue of cheats against the fleet's checks, and its page, docs/soundness-fleet.md.

Every cheat is refused, or stands in MENDED or UNDETECTED with the reason; a test holds it to that.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from benchmarks.soundness import (
    fleet_access,
    fleet_attestation,
    fleet_claims,
    fleet_compute_horde,
    fleet_compute_subnet,
    fleet_gonka,
)
from benchmarks.soundness.fleet_row import ACCEPTED, REFUSED, Row, outcome
from benchmarks.soundness.markdown import table

PAGE: Final = "soundness-fleet.md"
SHORTCUT_SIZE: Final = 4096
MOST_REASON: Final = 200

MENDED: Final = {
    "duplicate nonces: the same work in three batches": "each nonce is paid once",
    "one distance at the target, to silence validators": "that claim is left out, the others stand",
    "nonces out of another own node's share": "only the node's own nonces are paid",
    "all messages of a job in one burst": "no time was seen, none is paid",
    "a job done within 30 ms of its start": "the 30 ms are paid",
    "done before its volumes were ready": "no time was seen, none is paid",
}
"""Accepted without what the cheat wanted: the honest part is paid, and why that is right."""

UNDETECTED: Final = {
    "GPU shared, and no history of the card known": (
        "both halves are within the bounds of an unknown card; five good runs make a history, and "
        "with it the same is refused"
    ),
    "several cards work as one, four times as fast": (
        "noted and looked at, never refused: the table of speeds may be what is wrong"
    ),
    "relays to an equal card, 50 ms away": (
        "an equal card gives equal bytes in equal time; attest all machines of an operator at once"
    ),
    "a card too small for the model, with weights as views": (
        "the proof needs little memory however it is done; attestation proves the memory"
    ),
    "a known validator pays its own miner for nothing": (
        "two keys that agree can sign anything; the answers of a job show its work, receipts do not"
    ),
    "a hash that another machine solved": (
        "a password names no machine; attestation binds its work to a card's uuid and to time"
    ),
    "gives its agent's key to a better machine": (
        "a key is a file; the times of attestation, and asking all machines at once, remain"
    ),
}
"""Accepted, for this check cannot tell; and what else would show it."""


@dataclass(frozen=True)
class Section:
    """Cheats against one kind of check. honest: the same without a cheat."""

    title: str
    rows: list[Row]
    honest: list[Row]


def sections() -> list[Section]:
    """The whole catalogue, carried out now."""
    attested = Row("a node", "", outcome(fleet_attestation.honest().sound), "")
    return [
        _section("Asking a node", fleet_access.rows(), fleet_access.honest()),
        _section(
            "What a node says: Chutes and compute-subnet",
            fleet_claims.rows(),
            fleet_claims.honest(),
        ),
        _section(
            "Matrix product: compute-subnet",
            fleet_compute_subnet.rows(),
            [fleet_compute_subnet.honest()],
        ),
        _section("Attestation: Chutes", fleet_attestation.rows(), [attested]),
        _section("Proof of compute: Gonka", fleet_gonka.rows(), [fleet_gonka.honest()]),
        _section(
            "LLM job and receipts: ComputeHorde",
            fleet_compute_horde.rows(),
            [fleet_compute_horde.honest()],
        ),
    ]


def _section(title: str, rows: list[tuple[str, ...]], honest: list[tuple[str, ...]]) -> Section:
    return Section(title, [Row(*row) for row in rows], [Row(*row) for row in honest])


def refused(row: Row) -> bool:
    """Whether Windrow refuses a cheat."""
    return row.windrow_outcome.startswith(REFUSED)


def network_falls_for(row: Row) -> bool:
    """Whether the network takes a cheat, or stops working because of it."""
    said = row.network_outcome
    return said.startswith((ACCEPTED, "none")) or said.endswith(("paid", "honest receipts with it"))


def missed(catalogue: list[Section]) -> list[str]:
    """What is not as it should be: cheats that pass unlisted, and honest work that is refused."""
    rows = list(chain.from_iterable(section.rows for section in catalogue))
    listed = MENDED.keys() | UNDETECTED.keys()
    passed = [row.name for row in rows if not refused(row) and row.name not in listed]
    honest = [
        f"{section.title}: {row.name}"
        for section in catalogue
        for row in section.honest
        if not row.windrow_outcome.startswith(ACCEPTED)
    ]
    known = {row.name for row in rows if not refused(row)}
    return [
        *(f"fleet: {name}: passes, and no reason is listed" for name in passed),
        *(f"fleet: {name}: honest, and refused" for name in honest),
        *(f"fleet: {name}: listed as passing, and does not" for name in sorted(listed - known)),
    ]


def write(folder: Path) -> list[str]:
    """Carry everything out and write the page; what was missed."""
    began = time.perf_counter()
    catalogue = sections()
    seconds = time.perf_counter() - began
    text = "\n".join(_page(catalogue, seconds))
    (folder / PAGE).write_text(text, encoding="utf-8")
    return missed(catalogue)


def _page(catalogue: list[Section], seconds: float) -> Iterator[str]:
    rows = list(chain.from_iterable(section.rows for section in catalogue))
    shortcut, product = fleet_compute_subnet.cost(SHORTCUT_SIZE)
    yield "# Soundness of the fleet's checks"
    yield ""
    yield (
        "Cheats against what is asked of a node: what the network's own rule makes of each, and "
        "what Windrow does. This page is written by `make soundness`; [soundness](soundness.md) "
        "is about rollouts."
    )
    yield ""
    yield (
        f"* {len(rows)} cheats. The networks fall for {sum(map(network_falls_for, rows))}; of some "
        "of their checks the rules are closed, or there are none."
    )
    yield (
        f"* Windrow refuses {sum(map(refused, rows))}. {len(MENDED)} more are accepted without "
        f"what the cheat wanted, and {len(UNDETECTED)} are not detected by the check they are "
        "against: both are listed below."
    )
    honest = list(chain.from_iterable(section.honest for section in catalogue))
    taken = sum(row.windrow_outcome.startswith(ACCEPTED) for row in honest)
    yield f"* Beside them it takes {taken} of {len(honest)} honest requests, answers and nodes."
    for line in missed(catalogue):
        yield f"* **Missed:** {line}."
    yield ""
    yield (
        f"Carried out in {seconds:.0f} s on a processor, with tiny matrices and the demo's model: "
        "real answers, signatures and HTTP. Where a cheat is in the time that a card takes, that "
        "time is modelled: 75 % of the vendor's nominal speed. None was measured on a GPU."
    )
    yield ""
    yield (
        f"The structured shortcut against compute-subnet takes {shortcut:.2f} s here where the "
        f"product takes {product:.2f} s (n = {SHORTCUT_SIZE}, one thread)."
    )
    yield ""
    for section in catalogue:
        yield f"## {section.title}"
        yield ""
        yield from table(
            ["cheat", "network", "Windrow", "why"], [_cells(row) for row in section.rows]
        )
    yield "## Accepted without what the cheat wanted"
    yield ""
    yield from table(["cheat", "why that is right"], [list(one) for one in MENDED.items()])
    yield "## Not detected"
    yield ""
    yield from table(
        ["cheat", "why, and what would show it"], [list(one) for one in UNDETECTED.items()]
    )


def _cells(row: Row) -> list[str]:
    reason = MENDED.get(row.name) or UNDETECTED.get(row.name) or row.reason
    if len(reason) > MOST_REASON:
        reason = f"{reason[:MOST_REASON].rpartition(' ')[0]} ..."
    windrow = row.windrow_outcome if refused(row) else f"**{row.windrow_outcome}**"
    return [
        cell.replace("|", "\\|").replace("\n", " ")
        for cell in (row.name, row.network_outcome, windrow, reason)
    ]
