"""GPUs as they are declared, alone and whole (chutes §12.15-16, compute-horde §2)."""

from collections.abc import Iterator
from typing import Final

from windrow.engine.fleet.checks import WINDROW, NodeCheck
from windrow.engine.fleet.fact_formats import chutes_device, short_ref
from windrow.engine.fleet.preflight_looked import Looked, at_least, exactly
from windrow.networks.chutes.gpus import CARDS, device_problem

CLASS_MEMORY: Final = {
    "spin_up-4min.gpu-24gb": 24,
    "always_on.gpu-24gb": 24,
    "always_on.llm.a6000": 48,
}
"""GB of GPU memory of ComputeHorde's classes (compute-horde §2)."""


def _gpus(looked: Looked) -> Iterator[NodeCheck]:
    """Declared against seen; one kind of card; nobody else on it (chutes §12.15-16, gonka P02)."""
    node, gpus = looked.node, looked.facts.gpus
    yield exactly("gpu_count", len(gpus), node.gpu_count, "GPUs are seen")
    if not gpus:
        return
    kinds = {gpu.name for gpu in gpus}
    yield exactly("gpu_kinds", len(kinds), 1, f"kinds of card: {', '.join(sorted(kinds))}")
    for gpu in gpus:
        problem = (
            device_problem(chutes_device(gpu, node.gpu))
            if node.gpu
            else f"it is a {short_ref(gpu) or 'card nobody knows'}, and none is declared"
        )
        yield NodeCheck(
            "gpu_as_declared",
            "chutes" if looked.serves("chutes") else WINDROW,
            problem is None if looked.serves("chutes") else None,
            problem is None,
            reason=problem or "",
            remedy="" if problem is None else f"name the card in fleet.yaml: {_refs(gpu.name)}",
            gpu=gpu.uuid,
        )
        for check, wrong, remedy in (
            ("gpu_not_split", bool(gpu.mig), "sudo nvidia-smi -mig 0"),
            ("gpu_alone", gpu.processes > 0, "nvidia-smi names the processes; end them"),
            ("gpu_full_speed", bool(gpu.throttle), "see power, cooling and clock settings"),
        ):
            said = ", ".join(gpu.throttle) if check == "gpu_full_speed" else ""
            yield NodeCheck(
                check,
                WINDROW,
                None,
                not wrong,
                measured=float(gpu.processes) if check == "gpu_alone" else None,
                reason=f"{check.replace('_', ' ')} is not so{': ' + said if said else ''}"
                if wrong
                else "",
                remedy=remedy if wrong else "",
                gpu=gpu.uuid,
            )


def _refs(name: str) -> str:
    found = [ref for ref, card in CARDS.items() if card.pattern.split("(")[0].strip() in name]
    return ", ".join(found) or "no card of the table has this name"


def _class(looked: Looked) -> Iterator[NodeCheck]:
    """ComputeHorde's classes are declarations: nothing there measures them (compute-horde §2)."""
    needed = CLASS_MEMORY.get(looked.node.hardware_class or "")
    if needed is None:
        return
    most = max((gpu.vram_bytes for gpu in looked.facts.gpus), default=0)
    yield at_least(
        "class_memory",
        "compute-horde",
        True,
        most,
        needed * 0.95 * 10**9,
        f"no GPU has the {needed} GB of {looked.node.hardware_class}",
        "declare another hardware_class",
    )


RULES: Final = (
    _gpus,
    _class,
)
