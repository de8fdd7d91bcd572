"""Where a machine is not what its declaration says, or not the one it was."""

from collections.abc import Iterator, Mapping

from windrow.engine.fleet.cards import is_same_card
from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.fact_formats import short_ref
from windrow.engine.fleet.facts import Facts
from windrow.engine.fleet.inventory import Node
from windrow.engine.fleet.nvml_errors import ERRORS


def drift_checks(
    node: Node,
    facts: Facts,
    *,
    before: Facts | None,
    elsewhere: Mapping[str, str],
) -> list[NodeCheck]:
    """Declared against seen, and seen against the look before.

    before: of the last look, None for the first. elsewhere: uuids that another node has shown,
    and which.
    """
    return [
        *_cards(node, facts),
        *_identity(facts, before, elsewhere),
    ]


def _cards(node: Node, facts: Facts) -> Iterator[NodeCheck]:
    count = len(facts.gpus)
    names = sorted({gpu.name for gpu in facts.gpus if gpu.name})
    if node.gpu is None and facts.gpus:
        ref = next((ref for gpu in facts.gpus if (ref := short_ref(gpu))), None)
        yield _check(
            "gpu_count",
            False,
            f"no card is declared, {count} x {', '.join(names) or 'card'} are seen",
            f"Set gpu_count: {count} and gpu: {ref or 'NAME'} of the node in fleet.yaml"
            + ("" if ref else "; NAME is a word of the product name, as b300"),
            measured=count,
            needed=0,
            unit="GPUs",
        )
        return
    yield _check(
        "gpu_count",
        count == node.gpu_count,
        f"{node.gpu_count} GPUs are declared, {count} are seen",
        count_remedy(facts),
        measured=count,
        needed=node.gpu_count,
        unit="GPUs",
    )
    if names and node.gpu:
        others = [gpu for gpu in facts.gpus if gpu.name and not is_same_card(node.gpu, gpu.name)]
        wrong = sorted({short_ref(gpu) or gpu.name for gpu in others})
        yield _check(
            "gpu",
            not wrong,
            f"{node.gpu} is declared, {', '.join(wrong)} is seen",
            "correct `gpu` of the node in fleet.yaml",
        )


def _identity(
    facts: Facts, before: Facts | None, elsewhere: Mapping[str, str]
) -> Iterator[NodeCheck]:
    uuids = [gpu.uuid for gpu in facts.gpus]
    if len(set(uuids)) != len(uuids):
        yield _check(
            "gpu_uuid", False, "one GPU is shown more than once", "compare with nvidia-smi -L"
        )
    shared = sorted({elsewhere[uuid] for uuid in uuids if uuid in elsewhere})
    if uuids:
        yield _check(
            "gpu_elsewhere",
            not shared,
            f"its GPUs are those of {', '.join(shared)}: one of the two passes questions on",
            "verify both at the same time, and remove the one without the cards",
        )
    if before is not None:
        new = sorted(set(uuids) - {gpu.uuid for gpu in before.gpus})
        gone = sorted({gpu.uuid for gpu in before.gpus} - set(uuids))
        moved = [f"{uuid} is new" for uuid in new] + [f"{uuid} is gone" for uuid in gone]
        yield _check(
            "gpu_changed",
            not moved,
            "; ".join(moved),
            "nothing, if you changed cards: the node is verified anew",
        )


def count_remedy(facts: Facts) -> str:
    """What to do where other cards are seen than are declared."""
    absent = ERRORS.get(facts.driver_absent or "")
    if absent is not None and not facts.gpus:
        return f"{absent.meaning}: {absent.remedy}"
    return "compare with nvidia-smi -L; repair the machine, or correct gpu_count in fleet.yaml"


def drift_of(checks: list[NodeCheck]) -> list[str]:
    """In words, for a row: only what is wrong."""
    return [check.reason for check in checks if check.windrow_verdict is False]


def _check(
    name: str,
    fine: bool,
    reason: str,
    remedy: str,
    *,
    measured: float | None = None,
    needed: float | None = None,
    unit: str = "",
) -> NodeCheck:
    return NodeCheck(
        f"drift_{name}",
        WINDROW,
        None,
        fine,
        measured=None if measured is None else float(measured),
        needed=None if needed is None else float(needed),
        unit=unit,
        reason="" if fine else reason,
        remedy="" if fine else remedy,
    )
