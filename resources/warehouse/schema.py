"""The lake's datasets: what each row is, and every column with its type and meaning.

A dataset may gain nullable columns: older files read as null there. Any other change of a column
is a new `SCHEMA_VERSION`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pyarrow as pa

from windrow.resources.warehouse.dataset import Dataset, dataset
from windrow.resources.warehouse.fleet_schema import FLEET_DATASETS

SCHEMA_VERSION: Final = 1

_I32 = pa.int32()
_I64 = pa.int64()
_F32 = pa.float32()
_F64 = pa.float64()
_TEXT = pa.string()
_BOOL = pa.bool_()


_OF_A_WINDOW = {
    "window_start": (_I64, "first block of the window"),
    "hotkey": (_TEXT, "SS58 address of the miner"),
}

_OF_A_ROLLOUT = _OF_A_WINDOW | {
    "rollout_group": (_I64, "number of the problem within the window"),
    "rollout_index": (_I32, "number of the rollout within its group, 0 to 15"),
    "nonce": (_I64, "number of the rollout within the window"),
}

_DATASETS = (
    dataset(
        "beacons",
        "one row a window: the randomness it starts from",
        _OF_A_WINDOW
        | {
            "block_hash": (_TEXT, "hash of the window's first block, 0x included"),
            "randomness": (_TEXT, "the miner's randomness R_m, 64 hex digits"),
            "use_drand": (_BOOL, "whether a drand round is mixed in"),
            "drand_round": (_I64, "that round"),
            "source": (_TEXT, "where the randomness is from: block_hash, recorded_drand or drand"),
            "relay": (_TEXT, "drand relay that gave the round"),
            "fallback": (_TEXT, "what stands in for drand that was asked for and not to be had"),
            "opened_at": (_F64, "timestamp of the window's first block, unix seconds"),
        },
        made_by="beacon",
    ),
    dataset(
        "checkpoints",
        "one row a window: the model and the policy it was mined with",
        _OF_A_WINDOW
        | {
            "checkpoint_window": (_I64, "window the checkpoint is named after"),
            "model_name": (_TEXT, "model name in the metadata"),
            "weights_hash": (_TEXT, "XXH3-128 of the weights, 32 hex digits"),
            "env_id": (_TEXT, "environment of the tasks"),
            "env_params": (_TEXT, "its parameters, JSON"),
            "thinking_mode": (_TEXT, "how prompts ask for reasoning"),
            "max_new_tokens": (_I32, "most tokens of a completion"),
            "temperature": (_F64, "sampling temperature"),
            "top_p": (_F64, "nucleus of the sampling"),
            "top_k": (_I32, "most tokens sampled from; null is all"),
            "repetition_penalty": (_F64, "penalty of repeated tokens"),
            "bytes": (_I64, "size of its files together"),
            "seconds": (_F64, "time to fetch and verify them"),
        },
        made_by="checkpoint",
    ),
    dataset(
        "window_runs",
        "one row a window: how its last run of the window loop went",
        _OF_A_WINDOW
        | {
            "resumed": (_I32, "groups an earlier run had finished"),
            "finished": (_I32, "groups finished in this run"),
            "dropped": (_I32, "groups dropped, with their reasons in faults"),
            "tokens": (_I64, "tokens sampled in this run"),
            "seconds": (_F64, "wall time of the loop"),
            "generation_seconds": (_F64, "time generating"),
            "reward_seconds": (_F64, "time evaluating"),
            "proof_seconds": (_F64, "time proving"),
            "group_seconds": (_F64, "moving average of a group from start to finish"),
            "block_seconds": (_F64, "moving average of a block"),
            "stopped_by": (_TEXT, "max_groups, time_budget or window_closed"),
            "cancelled": (_I32, "groups in flight when only the time of the upload was left"),
            "generation_utilisation": (_F64, "share of its lanes' time spent generating, 0 to 1"),
            "reward_utilisation": (_F64, "share of its lanes' time spent evaluating"),
            "proof_utilisation": (_F64, "share of its lanes' time spent proving"),
            "limiting_stage": (_TEXT, "stage with the least time to spare; null: none worked"),
            "reproducible": (_BOOL, "whether the same seeds would give the same completions"),
            "weights_proof": (_TEXT, "own, or what showed each server's weights (generation.md)"),
            "ended_at": (_F64, "when the loop ended, unix seconds"),
        },
        made_by="rollouts",
    ),
    dataset(
        "rollouts",
        "one row a rollout: what was generated and what it earned",
        _OF_A_ROLLOUT
        | {
            "problem_seed": (_I64, "seed that selects the task"),
            "request_seed": (_I64, "seed of this rollout's sampling"),
            "task_index": (_I64, "index of the task within its source"),
            "tokens": (pa.list_(_I32), "prompt and completion, token ids"),
            "prompt_length": (_I32, "tokens of the prompt"),
            "completion_length": (_I32, "tokens of the completion"),
            "finish_reason": (_TEXT, "stop (ended by EOS) or length"),
            "reward": (_F64, "total reward"),
            "success": (_BOOL, "whether the environment calls it solved"),
            "advantage": (_F64, "reward relative to its group"),
            "block": (_I64, "newest block when its group was finished"),
            "finished_at": (_F64, "when its group was finished, unix seconds"),
            "generation_seconds": (_F64, "time to generate its group"),
            "reward_seconds": (_F64, "time to evaluate its group"),
        },
        made_by="rollouts",
    ),
    dataset(
        "proofs",
        "one row a rollout: the sketches and log-probs that prove it",
        _OF_A_ROLLOUT
        | {
            "tokens_hash": (_TEXT, "SHA-256 of the tokens proved, 64 hex digits"),
            "sketches": (pa.list_(_I32), "activation sketch of every position"),
            "token_logprobs": (pa.list_(_F32), "log-prob of every token, 0 over the prompt"),
            "device": (_TEXT, "device of the forward pass"),
            "dtype": (_TEXT, "number format of the forward pass"),
            "attention": (_TEXT, "attention kernel of the forward pass"),
            "proof_seconds": (_F64, "time to prove its group"),
        },
        made_by="proofs",
    ),
    dataset(
        "submissions",
        "one row a window: the signed file and what went into it",
        _OF_A_WINDOW
        | {
            "checkpoint_window": (_I64, "checkpoint the file was mined with"),
            "groups": (_I32, "groups in the file"),
            "rollouts": (_I32, "rows of the file"),
            "refused_groups": (_I32, "groups left out because they break a rule"),
            "mean_reward": (_F64, "mean reward of the rollouts"),
            "solved": (_F64, "share of solved rollouts"),
            "tokens": (_I64, "tokens of all completions"),
            "path": (_TEXT, "the file on this machine"),
            "bytes": (_I64, "its size"),
            "sha256": (_TEXT, "its SHA-256, 64 hex digits"),
            "made_at": (_F64, "when it was signed, unix seconds"),
        },
        made_by="submission",
    ),
    dataset(
        "uploads",
        "one row a window: when the file reached the bucket",
        _OF_A_WINDOW
        | {
            "key": (_TEXT, "object key"),
            "bytes": (_I64, "size in the bucket"),
            "sha256": (_TEXT, "SHA-256 of what was sent, 64 hex digits"),
            "etag": (_TEXT, "entity tag the bucket gave"),
            "uploaded_at": (_F64, "last-modified time by the bucket's clock, unix seconds"),
            "deadline": (_F64, "when uploads of the window end, unix seconds"),
            "margin_seconds": (_F64, "deadline less uploaded_at; negative is late"),
            "on_time": (_BOOL, "whether a validator counts it"),
            "seconds": (_F64, "time the upload took"),
        },
        made_by="upload",
    ),
    dataset(
        "validations",
        "one row a window and miner with an upload: how the validator came to its verdicts",
        _OF_A_WINDOW
        | {
            "validator": (_TEXT, "hotkey that validated"),
            "state": (
                _TEXT,
                "checked, unfinished, not_selected, banned, late, bad_size, missing, unreadable",
            ),
            "key": (_TEXT, "object that was looked at"),
            "etag": (_TEXT, "its entity tag"),
            "bytes": (_I64, "its size"),
            "sha256": (_TEXT, "SHA-256 of what was fetched, 64 hex digits"),
            "uploaded_at": (_F64, "last-modified time by the bucket's clock, unix seconds"),
            "deadline": (_F64, "when uploads of the window end, unix seconds"),
            "block_hash": (_TEXT, "hash of the window's first block, 0x included"),
            "randomness": (_TEXT, "the validator's randomness R_v, 64 hex digits"),
            "drand_round": (_I64, "drand round mixed into it; null is none"),
            "randomness_source": (_TEXT, "where it is from: block_hash, recorded_drand or drand"),
            "randomness_fallback": (_TEXT, "what stands in for drand that was not to be had"),
            "checkpoint_window": (_I64, "checkpoint it was verified with"),
            "weights_hash": (_TEXT, "XXH3-128 of its weights, 32 hex digits"),
            "sampled_groups": (pa.list_(_I64), "groups whose rollouts were checked"),
            "device": (_TEXT, "device of the forward pass"),
            "dtype": (_TEXT, "number format of the forward pass"),
            "attention": (_TEXT, "attention kernel of the forward pass"),
            "threads": (_I32, "processor threads of the forward pass"),
            "sub_batches": (pa.list_(_I32), "sequences of each forward pass, in order"),
            "replay": (_TEXT, "everything to run it again for the same bits, JSON"),
            "skipped": (pa.list_(_TEXT), "checks that could not be made"),
            "faults": (pa.list_(_TEXT), "what this machine, not the miner, failed at"),
            "network_reason": (_TEXT, "why the network fails the file; null where it gives none"),
            "windrow_failures": (_I32, "results that Windrow refuses the file for; 0 if sound"),
            "valid": (_I64, "rollouts that passed"),
            "checked": (_I64, "rollouts the network would have looked at"),
            "total": (_I64, "rows of the file"),
            "successful": (_I64, "rollouts that passed and claim success"),
            "unique": (_I64, "distinct completions among them"),
            "estimated_valid": (_I64, "valid, extrapolated to the file"),
            "estimated_unique": (_I64, "unique, extrapolated to the file"),
            "estimated_successful": (_I64, "successful, extrapolated to the file"),
            "prompt_valid": (_I64, "rollouts with the canonical prompt"),
            "prompt_mismatch": (_I64, "rollouts with another"),
            "had_failure": (_I64, "1: the window is lost and the miner banned"),
            "seconds": (_F64, "time to fetch, check and judge it"),
        },
        made_by="verdicts",
    ),
    dataset(
        "verdicts",
        "one row a rollout and check: what the network says, what is true, by how much",
        _OF_A_ROLLOUT
        | {
            "row": (_I64, "the rollout's row in the file"),
            "check": (_TEXT, "what was checked"),
            "severity": (_TEXT, "what a failure costs: ban, soft, ignored or strict"),
            "network_verdict": (
                _BOOL,
                "what the network's rules say; null: a limit of Windrow stopped the check",
            ),
            "windrow_verdict": (_BOOL, "what is true"),
            "measured": (_F64, "number that was measured"),
            "threshold": (_F64, "number it was held against"),
            "margin": (_F64, "how far within the threshold; negative is beyond it"),
            "reason": (_TEXT, "what is wrong, in words; empty where nothing is"),
            "python": (_TEXT, "version of Python that graded the completions; null: none were"),
        },
        made_by="verdicts",
    ),
    dataset(
        "completions",
        "one row a rollout of a checked file: what copy detection compares",
        _OF_A_WINDOW
        | {
            "row": (_I64, "the rollout's row in the file"),
            "digest": (pa.binary(32), "SHA-256 of the completion's tokens"),
        },
        made_by="verdicts",
    ),
    dataset(
        "scores",
        "one row a window and miner: what the window counts for, after copy detection",
        _OF_A_WINDOW
        | {
            "validator": (_TEXT, "hotkey that scored"),
            "active": (_BOOL, "uploaded in time"),
            "eligible": (_BOOL, "active and not banned"),
            "selected": (_BOOL, "looked at"),
            "estimated_unique": (_I64, "unique rollouts that count"),
            "had_failure": (_I64, "1: the window is lost and the miner banned"),
            "reason": (_TEXT, "why, as far as anyone says"),
            "copy_ratio": (_F64, "largest share of completions that another miner has too"),
            "copied_from": (_TEXT, "that miner"),
            "network_copier": (_BOOL, "gated by the network's rule"),
            "windrow_copier": (_BOOL, "uploaded later when the copies were made"),
            "ban_windows_left": (_I32, "windows until the last failure is forgotten"),
        },
        made_by="scores",
    ),
    dataset(
        "weights",
        "one row a window and miner: the weight and every factor of it",
        _OF_A_WINDOW
        | {
            "validator": (_TEXT, "hotkey that weighs"),
            "uid": (_I32, "the miner's number on the subnet"),
            "windows_checked": (_I32, "recent windows with a verdict"),
            "windows_available": (_I32, "recent windows with an upload"),
            "unique_sum": (_I64, "unique rollouts of those windows"),
            "extrapolated": (_F64, "unique_sum for all windows with an upload, capped"),
            "cap_share": (_F64, "extrapolated over the period's cap"),
            "raw_score": (_F64, "cap_share to the power of the exponent"),
            "exponent": (_F64, "that exponent"),
            "burn": (_F64, "share that is burnt"),
            "weight": (_F64, "the weight"),
            "submitted": (_BOOL, "whether it was sent to the chain"),
        },
        made_by="weights",
    ),
    dataset(
        "faults",
        "one row a thing that went wrong: no group or window is lost without a reason",
        _OF_A_WINDOW
        | {
            "run_id": (_TEXT, "the Dagster run it happened in; null for a sensor"),
            "stage": (_TEXT, "where: an asset, or prompt, generation, reward, proof, check"),
            "rollout_group": (_I64, "the group given up; null when it is the whole window"),
            "reason": (_TEXT, "short name of the reason"),
            "detail": (_TEXT, "what happened and what to do"),
            "recorded_at": (_F64, "when it was recorded, unix seconds"),
        },
    ),
)

DATASETS: Final[Mapping[str, Dataset]] = MappingProxyType(
    {d.name: d for d in (*_DATASETS, *FLEET_DATASETS)}
)
