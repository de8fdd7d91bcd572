"""Every rule a Grail validator would ban a window file for that needs no second forward pass.

`check_submission` looks at all rows and reports every violation, where a validator samples and
stops at the first (grail-protocol §11). Rules that the network lacks but an honest miner keeps
(§13, W1-W5) are reported as "strict".
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from windrow.networks.grail.advantages import GroupCheck, check_group
from windrow.networks.grail.columns import RolloutColumns, equals, plain
from windrow.networks.grail.commit import (
    commit_signature_valid,
    outer_challenge,
    row_signature_valid,
)
from windrow.networks.grail.commitments import CommitmentsError, IrregularJson
from windrow.networks.grail.constants import (
    ADVANTAGE_SUM_TOLERANCE,
    ADVANTAGE_TOLERANCE,
    MAX_FILE_BYTES,
    MIN_FILE_BYTES,
    ROLLOUTS_PER_GROUP,
)
from windrow.networks.grail.file_checks import file_violations
from windrow.networks.grail.rollout_checks import (
    check_logprobs,
    check_prompts,
    check_proof_fields,
    check_rewards,
    check_schema,
    check_termination,
    check_tokens,
)
from windrow.networks.grail.seeds import nonce
from windrow.networks.grail.tokens import token_hash
from windrow.networks.grail.violations import Severity, Violations
from windrow.networks.grail.window_schema import IrregularText


@dataclass(frozen=True)
class SubmissionContext:
    """What a window file must agree with.

    hotkey: SS58 address of the miner. window, block_hash: first block of the window and its hash,
    `0x` included. randomness: R_m as hex, None when it is not known (another miner's file).
    checkpoint_window: the checkpoint the rollouts come from. vocab_size, max_context,
    eos_token_id: of its model and tokenizer. max_new_tokens: of its generation policy.
    """

    hotkey: str
    window: int
    block_hash: str
    randomness: str | None
    checkpoint_window: int
    vocab_size: int
    max_context: int
    eos_token_id: int
    max_new_tokens: int


def check_submission(
    rollouts: pa.Table,
    context: SubmissionContext,
    *,
    prompts: Mapping[int, NDArray[np.integer]],
    rewards: NDArray[np.float64] | None,
    irregular: Sequence[IrregularText] = (),
) -> pa.Table:
    """Every violation by a window's rollouts (FLAT_SCHEMA), as VIOLATION_SCHEMA.

    prompts: canonical prompt ids by rollout_group (§12.1). rewards: re-evaluated rewards,
    float64 [n]; None where they were not evaluated again. irregular: as read with the rollouts.
    Raises MissingReference where prompts or rewards do not cover the rollouts.
    """
    structure = file_violations(
        rollouts,
        wallet=context.hotkey,
        metadata_window=context.window,
        hotkey=context.hotkey,
        window=context.window,
        block_hash=context.block_hash,
    )
    columns = RolloutColumns.of(rollouts)
    found = Violations(columns.column("rollout_group"), [structure])
    if not rollouts.num_rows:
        found.of_file("empty_window", Severity.STRICT, "no rollouts: accepted, and worth nothing")
        return found.table()
    check_identity(columns, context, found)
    check_schema(columns, irregular, found)
    check_tokens(columns, context.vocab_size, context.max_context, found)
    check_prompts(columns, prompts, found)
    check_proof_fields(columns, found)
    check_signatures(columns, context.hotkey, irregular, found)
    check_termination(columns, context.eos_token_id, context.max_new_tokens, found)
    check_logprobs(columns, found)
    if rewards is not None:
        check_rewards(columns, rewards, found)
    check_groups(columns, found)
    return found.table()


def check_file_size(size: int) -> pa.Table:
    """Violations, VIOLATION_SCHEMA, by the size in bytes of a finished file (§8.4)."""
    found = Violations(pa.array([], pa.int64()))
    for broken, reason, threshold in (
        (size < MIN_FILE_BYTES, "smaller than validators fetch", MIN_FILE_BYTES),
        (size > MAX_FILE_BYTES, "larger than validators fetch", MAX_FILE_BYTES),
    ):
        if broken:
            found.of_file("file_size", Severity.IGNORED, reason, measured=size, threshold=threshold)
    return found.table()


def check_identity(rollouts: RolloutColumns, context: SubmissionContext, found: Violations) -> None:
    """R1, and that a row is the one it says it is: owner, nonce, group, challenge, randomness."""
    found.rollouts(
        ~equals(rollouts.column("checkpoint_window"), context.checkpoint_window),
        "checkpoint_window",
        Severity.BAN,
        "not the checkpoint that validators use in this window",
        measured=plain(rollouts.column("checkpoint_window")),
        threshold=context.checkpoint_window,
    )
    beacon = rollouts.column("beacon_randomness")
    for agrees, check, reason in (
        (_nonces_agree(rollouts), "nonce", "nonce is not rollout_group * 16 + rollout_index"),
        (
            equals(rollouts.column("total_in_group"), ROLLOUTS_PER_GROUP),
            "total_in_group",
            f"total_in_group is not {ROLLOUTS_PER_GROUP}",
        ),
        (
            equals(rollouts.column("hotkey"), context.hotkey),
            "row_hotkey",
            "the row belongs to another hotkey than the file",
        ),
        (_challenges_agree(rollouts), "challenge", "challenge is not |block_hash|nonce of the row"),
        (
            equals(rollouts.column("randomness"), beacon),
            "row_randomness",
            "the row's randomness is not the commit's",
        ),
        (
            equals(beacon, beacon if context.randomness is None else context.randomness),
            "beacon_randomness",
            "the commit's randomness is not the window's",
        ),
    ):
        found.rollouts(~agrees, check, Severity.STRICT, reason)


def check_signatures(
    rollouts: RolloutColumns, hotkey: str, irregular: Sequence[IrregularText], found: Violations
) -> None:
    """R3, the row's own signature; C4, the commit's signature by the file's owner."""
    outer = [
        row_signature_valid(challenge or "", signer or "", signature or "")
        for challenge, signer, signature in _texts(rollouts, "challenge", "hotkey", "signature")
    ]
    found.rollouts(
        ~np.array(outer, np.bool_),
        "outer_signature",
        Severity.BAN,
        "the row's signature does not verify for its challenge and hotkey",
    )
    layers = plain(rollouts.column("layer_index")).tolist()
    fields = _texts(
        rollouts, "commit_signature", "proof_version", "beacon_randomness", "model_name"
    )
    signed = [
        digest is not None
        and commit_signature_valid(
            hotkey,
            signature or "",
            proof_version=version,
            tokens_hash=token_hash(rollouts.tokens.row(row)),
            randomness=randomness,
            model_name=model,
            layer_index=layers[row],
            commitments_hash=digest,
        )
        for row, ((signature, version, randomness, model), digest) in enumerate(
            zip(fields, _commitments_hashes(rollouts, irregular), strict=True)
        )
    ]
    found.rollouts(
        ~np.array(signed, np.bool_),
        "proof_valid",
        Severity.BAN,
        "the commit's signature does not verify for the file's owner",
    )


def check_groups(rollouts: RolloutColumns, found: Violations) -> None:
    """Claimed advantages against claimed rewards, group by group (§11.5), nan refused."""
    groups = plain(rollouts.column("rollout_group"))
    rewards, advantages = (plain(rollouts.column(name)) for name in ("total_reward", "advantage"))
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    whole = [rows for rows in np.split(order, edges) if len(rows) == ROLLOUTS_PER_GROUP]
    checked = [
        (groups[rows[0]], check_group(rewards[rows].tolist(), advantages[rows].tolist()))
        for rows in whole
    ]
    for failing, severity, reason in (
        (
            [(group, c) for group, c in checked if not c.network_verdict],
            Severity.BAN,
            "the claimed advantages are not those of the claimed rewards",
        ),
        (
            [(group, c) for group, c in checked if c.network_verdict and not c.windrow_verdict],
            Severity.STRICT,
            "an advantage or reward is not a finite number",
        ),
    ):
        found.of_groups(
            pa.array([group for group, _ in failing], pa.int64()),
            "group_advantages",
            severity,
            reason,
            measured=[_worst(check)[0] for _, check in failing],
            threshold=[_worst(check)[1] for _, check in failing],
        )


def _worst(check: GroupCheck) -> tuple[float, float]:
    """The measure that breaks its tolerance, and that tolerance."""
    if abs(check.advantage_sum) > ADVANTAGE_SUM_TOLERANCE:
        return abs(check.advantage_sum), ADVANTAGE_SUM_TOLERANCE
    return check.largest_error, ADVANTAGE_TOLERANCE


def _nonces_agree(rollouts: RolloutColumns) -> NDArray[np.bool_]:
    """bool [n]: nonces that follow from group and index (§3.6)."""
    columns = (rollouts.column(name) for name in ("nonce", "rollout_group", "rollout_index"))
    return np.array(
        [
            group is not None
            and index in range(ROLLOUTS_PER_GROUP)
            and claimed == nonce(group, index)
            for claimed, group, index in zip(*(c.to_pylist() for c in columns), strict=True)
        ],
        np.bool_,
    )


def _challenges_agree(rollouts: RolloutColumns) -> NDArray[np.bool_]:
    """bool [n]: challenges made of the row's own block hash and nonce (§5.3)."""
    columns = (rollouts.column(name) for name in ("challenge", "block_hash", "nonce"))
    return np.array(
        [
            None not in (block_hash, number) and challenge == outer_challenge(block_hash, number)
            for challenge, block_hash, number in zip(*(c.to_pylist() for c in columns), strict=True)
        ],
        np.bool_,
    )


def _texts(rollouts: RolloutColumns, *names: str) -> Iterator[tuple[str | None, ...]]:
    """The values of text columns, row by row."""
    return zip(*(rollouts.column(name).to_pylist() for name in names), strict=True)


def _commitments_hashes(
    rollouts: RolloutColumns, irregular: Sequence[IrregularText]
) -> list[bytes | None]:
    """What each row's binding hashes of its commitments (§5.2), None where there is nothing."""
    whole = rollouts.sketches.valid & ~rollouts.sketches.rows_with(rollouts.sketches.missing)
    hashes: list[bytes | None] = [None] * len(whole)
    rows = np.flatnonzero(whole).tolist()
    for row, compact in zip(rows, rollouts.compact_commitments(rows), strict=True):
        hashes[row] = hashlib.sha256(compact).digest()
    for text in irregular:
        if text.column == "sketches":
            hashes[text.row] = _irregular_hash(text.json)
    return hashes


def _irregular_hash(text: IrregularJson) -> bytes | None:
    try:
        return hashlib.sha256(text.compact()).digest()
    except CommitmentsError:
        return None
