"""A proof of compute, asked and judged."""

import hashlib
import secrets
import time

from windrow.assets.fleet.stage import Stage
from windrow.engine.fleet.proof_of_compute import MAX_ANSWER_BYTES, Challenge, verify


def prove_compute(step: Stage) -> None:
    """Ask, verify, and leave checks and proofs with the step. Raises NodeError.

    The block hash is drawn now, so nothing could be computed before; on the network it is that of
    the block that opens the stage.
    """
    work = step.fleet.work
    gpus = step.facts().gpus
    key = hashlib.sha256(step.node.name.encode()).hexdigest()
    asked = Challenge(
        block_hash=secrets.token_hex(32).upper(),
        block_height=step.window,
        public_key=f"02{key}",
        parameters=work.gpu_model if gpus else "tiny",
        start=0,
        stride=1,
        count=work.gpu_nonces if gpus else work.processor_nonces,
    )
    answer = step.ask("proof_of_compute", asked.to_bytes(), max_bytes=MAX_ANSWER_BYTES)
    began = time.process_time()
    randomness = secrets.token_bytes(32)  # nobody knew it before the answer came
    caller = step.fleet.wallet.hotkey
    samples = work.gpu_samples if gpus else work.processor_samples
    found = verify(
        asked,
        answer.body,
        answer.seconds,
        randomness=randomness,
        validator_key=caller,
        sample_size=samples,
        network_sample_size=samples,
    )
    step.checks += found.checks
    step.note_cards()
    step.proof(
        driver=step.facts().driver,
        seed=asked.block_hash,
        size=asked.count,
        operations=asked.shape.flops * float(asked.count),
        seconds=answer.seconds,
        verify_seconds=time.process_time() - began,
        passed=all(check.windrow_verdict is not False for check in found.checks),
        digest=hashlib.sha256(answer.body).hexdigest(),
        replay=asked.to_bytes().decode(),
    )
