"""What a miner's file of a window is held against."""

from typing import TYPE_CHECKING

from windrow.engine.validation.inputs import EVALUATION_SECONDS, ValidationContext
from windrow.engine.validation.proof_scores import Calibration
from windrow.engine.validation.validator import MAX_SAMPLED_ROWS
from windrow.networks.grail.window_file import WindowFile, read_window_file
from windrow.networks.grail.window_guards import WindowFileError
from windrow.resources.beacon import Beacon
from windrow.resources.checkpoints.cache import VerifiedCheckpoint

if TYPE_CHECKING:
    from windrow.resources.checkpoints.tokenizer import Lexicon


def validation_context(
    hotkey: str,
    opened: Beacon,
    checkpoint: VerifiedCheckpoint,
    lexicon: "Lexicon",
    *,
    miner_randomness: str | None,
    randomness: str,
    drand_round: int | None,
    every_rollout: bool,
    calibration: Calibration | None,
    evaluation_seconds: float = EVALUATION_SECONDS,
) -> ValidationContext:
    """opened: beacon of the window. miner_randomness: R_m of this file, None where unknown.

    randomness, drand_round: R_v and the round mixed into it. calibration: limits of the
    checkpoint; None without a model.
    """
    return ValidationContext(
        hotkey=hotkey,
        window=opened.window_start,
        block_hash=opened.block_hash,
        miner_randomness=miner_randomness,
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


def claimed_randomness(file: WindowFile) -> str:
    """The R_m that most rows of a file name; empty where that is none."""
    counts = file.rows["beacon_randomness"].value_counts().to_pylist()
    most = max(counts, key=lambda each: each["counts"], default={"values": None})
    return most["values"] or ""


def opened_file(data: bytes) -> tuple[WindowFile | bytes, str]:
    """A miner's file and the R_m it claims; one that cannot be read stays as it is."""
    try:
        file = read_window_file(data)
    except WindowFileError:
        return data, ""
    return file, claimed_randomness(file)


def seconds_for_all(rows: int, seconds: float) -> float:
    """Time to evaluate every rollout of a file, at the pace that its sample is given `seconds`."""
    return seconds * max(1.0, rows / MAX_SAMPLED_ROWS)
