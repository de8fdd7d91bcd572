"""What a miner's file of a window is held against."""

from typing import TYPE_CHECKING

from windrow.engine.proof_scores import Calibration
from windrow.engine.validation import MAX_SAMPLED_ROWS
from windrow.engine.validation_inputs import EVALUATION_SECONDS, ValidationContext
from windrow.resources.beacon import Beacon
from windrow.resources.checkpoints import VerifiedCheckpoint

if TYPE_CHECKING:
    from windrow.resources.checkpoint_tokenizer import Lexicon


def validation_context(
    hotkey: str,
    opened: Beacon,
    checkpoint: VerifiedCheckpoint,
    lexicon: "Lexicon",
    *,
    randomness: str,
    drand_round: int | None,
    every_rollout: bool,
    calibration: Calibration | None,
    own: bool = False,
    evaluation_seconds: float = EVALUATION_SECONDS,
) -> ValidationContext:
    """opened: beacon of the window. randomness, drand_round: R_v and the round mixed into it.

    calibration: limits of the checkpoint; None without a model.
    own: the file was mined with this very beacon; another miner may have drawn another one.
    """
    return ValidationContext(
        hotkey=hotkey,
        window=opened.window_start,
        block_hash=opened.block_hash,
        miner_randomness=opened.randomness if own or opened.same_for_all else None,
        validator_randomness=randomness,
        drand_round=drand_round,
        checkpoint_window=checkpoint.metadata.window,
        weights_hash=checkpoint.weights_hash,
        vocabulary=lexicon.vocab_size,
        max_context=lexicon.max_context,
        eos_token_id=lexicon.eos_token_id,
        policy=checkpoint.metadata.policy,
        calibration=calibration,
        every_rollout=every_rollout,
        evaluation_seconds=evaluation_seconds,
    )


def seconds_for_all(rows: int, seconds: float) -> float:
    """Time to evaluate every rollout of a file, at the pace that its sample is given `seconds`."""
    return seconds * max(1.0, rows / MAX_SAMPLED_ROWS)
