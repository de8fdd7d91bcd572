"""What verifying an attestation costs, against producing it: processor seconds of one core.

A device of 32 matrices of 8192 x 8192 int8: filled and walked over by `attestation.answer_commit`,
opened by `answer_open`, verified as any asker does. The node's time for the second round is not
counted as producing. Generating the four weights is most of what the asker does, so the share
falls further with the matrices of a real card, of which there are hundreds.
"""

import statistics
import time

import torch

from benchmarks.ratio import Ratio
from windrow.engine.fleet.attestation import answer_commit, answer_open
from windrow.engine.fleet.attestation_plan import (
    Plan,
    challenge,
    opening_request,
)
from windrow.engine.fleet.attestation_verify import prove_devices

PLAN = Plan(n=8192, matrices=32, steps=64)
VERIFICATIONS = 3
"""Short beside the work, so the median counts."""
TARGET = 0.02


def run() -> list[Ratio]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        produced, verified = measure(PLAN)
    finally:
        torch.set_num_threads(threads)
    ratio = verified / produced
    return [
        Ratio(
            "verifying an attestation, n = 8192",
            verified,
            produced,
            "CPU s",
            ratio,
            f"<= {TARGET}x",
            ratio <= TARGET,
        )
    ]


def measure(plan: Plan) -> tuple[float, float]:
    """Processor seconds of the node's first answer, and the median of whole verifications."""
    asked = challenge("node", "asker", bytes(32), {"cpu": plan}, budget=plan.needed_bytes)
    randomness = bytes(range(32))
    opening = opening_request(asked, randomness)
    start = time.process_time()
    commit = answer_commit(asked)
    produced = time.process_time() - start
    opened = answer_open(opening)
    verified = []
    for _ in range(VERIFICATIONS):
        start = time.process_time()
        (proof,) = prove_devices(asked, opening, randomness, commit, opened)
        verified.append(time.process_time() - start)
        assert proof.sound
    return produced, statistics.median(verified)


if __name__ == "__main__":
    print(*run(), sep="\n")
