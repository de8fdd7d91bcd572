"""Cheats in what a node says of itself: reports, names, facts, and the hash challenge.

The network's verdict is that of its own rule on the same words. Windrow takes nobody's word: where
the words are in order, its outcome is that of the attestation's times for the card that lies.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.soundness.fleet_compute_subnet import by_work, network_takes
from benchmarks.soundness.fleet_row import ACCEPTED, REFUSED, Row, outcome
from windrow.engine.fleet import hash_challenge
from windrow.engine.fleet.attestation_plan import plan_for
from windrow.engine.fleet.attestation_timing import (
    PEAKS,
    TimeVerdict,
    residency_verdict,
    timing_verdict,
)
from windrow.engine.fleet.checks import NodeCheck
from windrow.engine.fleet.drift import drift_checks, drift_of
from windrow.engine.fleet.fact_formats import chutes_device, perf_info
from windrow.engine.fleet.facts import BadFacts, Facts, GpuFacts, answer, challenge, parse_facts
from windrow.engine.fleet.frames import to_json
from windrow.engine.fleet.inventory import Node
from windrow.networks.chutes.gpus import device_problem
from windrow.networks.compute_subnet.gpu_models import MODELS, Measured, strict_model
from windrow.networks.compute_subnet.gpu_proof import Benchmark, JobReport, network_job_result
from windrow.networks.compute_subnet.machines import fits

H200: Final = "NVIDIA H200"
REAL: Final = plan_for(141 * 10**9)
EFFICIENCY: Final = 0.75
"""Of its peak, what a card reaches in the modelled times."""
ASKED: Final = challenge()


def rows() -> list[Row]:
    """Every cheat and its outcomes."""
    return [*_reports(), *_names(), *_hashes(), *_facts()]


def honest() -> list[Row]:
    """An H200 that says so, and a machine that is what it is declared as: both are taken."""
    report = credited(H200, benchmark(MODELS[H200]), 3.0, [1e-3])
    facts = parse_facts(answer(ASKED))
    drift = drift_of(_drift(facts, gpus=len(facts.gpus)))
    return [
        Row("an H200", report, *by_time(attested("h200"))),
        Row("facts", ACCEPTED, outcome(not drift), "; ".join(drift)),
    ]


def benchmark(card: Measured, times: float = 1.0) -> Benchmark:
    """What a benchmark prints that says to be a card, having taken so many times as long."""
    factor = times ** (1 / 3)
    size16, size32 = (int(size * factor) for size in (30_000, 20_000))
    time16, time32 = 2 * size16**3 / card.fp16 / 1e12, 2 * size32**3 / card.fp32 / 1e12
    return Benchmark(1, card.vram, size16, time16, size32, time32)


def credited(
    says: str,
    bench: Benchmark,
    elapsed: float,
    times: Sequence[float],
    right: Sequence[bool] = (True,),
) -> str:
    """What the network credits a report with."""
    report = JobReport(True, [says], bench, elapsed, times, right)
    found = network_job_result(report)
    return REFUSED if found is None else f"{ACCEPTED}: {found[1]} x {found[0]}"


def _reports() -> Iterator[Row]:
    card = MODELS[H200]
    yield Row(
        "forged times: a minute, and says 1 ms",
        credited(H200, benchmark(card, times=300), 60.0, [1e-3]),
        *by_time(60.0),
    )
    seeds = [(gpu, gpu + 100) for gpu in range(8)]
    right = [network_takes(by_work(*pair, 64), pair, (5, 6), n=64) for pair in seeds]
    yield Row(
        "over-reported GPUs: one card answers as eight",
        credited(H200, benchmark(card), 3.0, [1e-3] * 8, right),
        *by_time(8 * attested("h200")),
    )
    yield Row(
        "an L4 prints the numbers of an H200",
        credited(H200, benchmark(card), 3.0, [1e-3]),
        *by_time(attested("l4")),
    )


def attested(card: str) -> float:
    """Seconds that a card would take for the attestation of an H200."""
    return _fill(card) + REAL.walk_bytes / (EFFICIENCY * PEAKS[card].bandwidth)


def _fill(card: str) -> float:
    return REAL.fill_operations / (EFFICIENCY * PEAKS[card].operations)


def by_time(seconds: float) -> tuple[str, str]:
    """Outcome and reason where an H200 is claimed and an attestation takes so long.

    With the round trip that the asset allows, which is longer than most.
    """
    verdict = timing_verdict(REAL, seconds, peak=PEAKS["h200"])
    return _by(verdict)


def by_memory(card: str, memory: int) -> tuple[str, str]:
    """The same for a card of less memory, which makes again what it could not keep."""
    missing = 1 - memory / REAL.resident_bytes
    again = REAL.resident_bytes / (EFFICIENCY * PEAKS[card].bandwidth) + missing * _fill(card)
    verdict = residency_verdict(REAL, again, attested(card), peak=PEAKS["h200"], recomputed=False)
    return _by(verdict)


def _by(verdict: TimeVerdict) -> tuple[str, str]:
    reason = f"attestation: {verdict.reason}" if verdict.reason else ""
    return outcome(verdict.verdict), reason


def _names() -> Iterator[Row]:
    pcie, sxm = "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"
    for name, numbers, says in (
        ("a dearer sibling's name", MODELS[pcie], sxm),
        ("numbers that no card has", Measured(300.0, 70.0, 68.72), H200),
    ):
        known = strict_model(numbers, says)
        yield Row(
            name,
            credited(says, benchmark(numbers), 3.0, [1e-3]),
            outcome(known),
            "" if known else "its numbers are not those of the card it names",
        )


def _hashes() -> Iterator[Row]:
    draw = np.random.default_rng(8)
    asked, _ = hash_challenge.challenge(3, lambda below: int(draw.integers(below)))
    by_processor = hash_challenge.answer(hash_challenge.request(asked))
    yield _hash_row(
        "a hash so weak that a processor solves it",
        hash_challenge.verify(asked, by_processor, 1.0),
    )
    strong, password = hash_challenge.challenge(11, lambda below: int(draw.integers(below)))
    elsewhere = to_json({"password": password, "by": "hashcat"})
    yield _hash_row(
        "a hash that another machine solved", hash_challenge.verify(strong, elsewhere, 5.0)
    )


def _hash_row(name: str, checks: Sequence[NodeCheck]) -> Row:
    network = all(check.network_verdict is not False for check in checks)
    problems = [check.reason for check in checks if not check.windrow_verdict]
    reason = "; ".join(problems) or "the right password in time: a hash names no machine"
    return Row(name, outcome(network), outcome(not problems), reason)


def _gpu(uuid: str, index: int = 0) -> GpuFacts:
    return GpuFacts(
        index=index,
        uuid=uuid,
        name="NVIDIA H200",
        vram_bytes=141 * 10**9,
        vram_used_bytes=0,
        processors=132,
        clock_mhz=1980.0,
    )


def _facts() -> Iterator[Row]:
    """What a node says of itself."""
    said = answer(ASKED)
    seen = parse_facts(said)
    lying = seen.model_copy(update={"gpus": (_gpu("GPU-1"),)})
    assert not drift_of(_drift(lying, gpus=1))
    device = chutes_device(lying.gpus[0], "h200")
    yield Row(
        "an L40S whose driver says H200, 141 GB",
        outcome(device_problem(device) is None),
        *by_memory("l40s", 48 * 10**9),
    )
    twice = seen.model_copy(update={"gpus": (_gpu("GPU-1"), _gpu("GPU-1", 1))})
    yield _drifted("shows one GPU as two", twice, _drift(twice, gpus=2), count=2)
    yield _drifted(
        "shows the GPU of another of its nodes",
        lying,
        _drift(lying, gpus=1, elsewhere={"GPU-1": "gpu-7"}),
    )
    before = seen.model_copy(update={"gpus": (_gpu("GPU-0"),)})
    yield _drifted(
        "another card since it was verified", lying, _drift(lying, gpus=1, before=before)
    )
    for name, value in (("infinite", float("inf")), ("negative", -1), ("NaN", float("nan"))):
        report = perf_info(lying)["gpu"] | {"capacity": value}
        body = json.dumps(json.loads(said) | {"ram_bytes": value}).encode()
        yield Row(
            f"{name} memory",
            outcome(_fits(report)),
            *_parsed(body),
        )


def _drift(facts: Facts, *, gpus: int, **changes: Any) -> list[Any]:
    node = Node(name="n", transport="local", gpu="h200" if gpus else None, gpu_count=gpus)
    known: dict[str, Any] = {"before": None, "elsewhere": {}}
    return drift_checks(node, facts, **(known | changes))


def _drifted(name: str, facts: Facts, checks: list[Any], count: int = 1) -> Row:
    """compute-subnet matches a machine by what it says; Windrow looks at who the cards are."""
    problems = drift_of(checks)
    network = _fits(perf_info(facts)["gpu"], count)
    return Row(name, outcome(network), outcome(not problems), "; ".join(problems))


def _fits(gpu: dict[str, Any], count: int = 1) -> bool:
    needs = {"gpu": {"count": count, "capacity": 80_000, "type": "h200"}}
    nothing: dict[str, Any] = {"cpu": {}, "hard_disk": {}, "ram": {}}
    return fits({"gpu": gpu, "cpu": {}, "hard_disk": {}, "ram": {}}, nothing | needs)


def _parsed(body: bytes) -> tuple[str, str]:
    try:
        parse_facts(body)
    except BadFacts as error:
        return REFUSED, str(error)
    return ACCEPTED, ""
