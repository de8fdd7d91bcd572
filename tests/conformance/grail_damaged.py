"""Window files that were damaged or rewritten, and what the network's validator made of them.

They were mined and judged with the demo's checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from windrow.engine.ports import Environment
from windrow.engine.validation.inputs import ValidationContext
from windrow.engine.validation.validator import validate_file
from windrow.engine.validation.verification import ModelVerifier
from windrow.environments.sandbox import Sandbox
from windrow.environments.sources import ShippedTasks
from windrow.resources.checkpoints.files import VerifiedCheckpoint, verify_checkpoint
from windrow.resources.checkpoints.tokenizer import Lexicon
from windrow.resources.inference import Inference

from .framework import Case, VectorFile, handles

CHECKPOINT = Path(__file__).parents[2] / "pipelines/demo/checkpoint"


@dataclass(frozen=True)
class Loaded:
    """The demo's checkpoint with all that judges a file of it."""

    checkpoint: VerifiedCheckpoint
    lexicon: Lexicon
    environment: Environment
    verifier: ModelVerifier


@cache
def loaded() -> Loaded:
    checkpoint = verify_checkpoint(CHECKPOINT)
    inference = Inference(ShippedTasks(), Sandbox(), "cpu", "cpu")
    return Loaded(
        checkpoint,
        inference.lexicon(checkpoint),
        inference.environment(checkpoint),
        inference.verifier(checkpoint),
    )


@handles("grail-damaged/damaged_files.json", uses=("grail-damaged/files/*",))
def damaged_files(file: VectorFile) -> Iterator[Case]:
    for case in file.load_json()["cases"]:
        yield Case(case["id"], partial(check_damaged, file, case))


def check_damaged(file: VectorFile, case: dict[str, Any]) -> None:
    judge = loaded()
    assert judge.verifier.setting.dtype == str(torch.float32).removeprefix("torch.")
    asked = ValidationContext(
        hotkey=case["hotkey"],
        window=case["window_start"],
        block_hash=case["block_hash"],
        miner_randomness=None,
        validator_randomness=case["validator_randomness"],
        drand_round=None,
        checkpoint_window=judge.checkpoint.metadata.window,
        weights_hash=judge.checkpoint.weights_hash,
        vocabulary=judge.lexicon.vocab_size,
        max_context=judge.lexicon.max_context,
        eos_token_id=judge.lexicon.eos_token_id,
        policy=judge.checkpoint.metadata.policy,
    )
    verdict = validate_file(
        file.folder / case["file"],
        asked,
        environment=judge.environment,
        measure=judge.verifier.measure,
    )
    assert verdict.faults == ()
    if case["fate"] == "ignored":
        assert verdict.outcome is None
        return
    assert verdict.outcome is not None
    assert verdict.outcome.reason == case["reason"]
    assert vars(verdict.outcome.metrics) == case["metrics"]
    assert verdict.network_accepts == (case["fate"] == "accepted")
