"""Rows of a synthetic lake, window by window: the same for the same window, made by DuckDB.

What a query looks for is there in small shares: late files, bans, copies, groups that were given
up, nodes that were refused. Other columns are null.
"""

import duckdb
import pyarrow as pa

from windrow.engine.fleet.stages import STAGES
from windrow.networks.grail.constants import ROLLOUTS_PER_GROUP
from windrow.networks.grail.validation.verdicts import HARD_CHECKS, SOFT_CHECKS
from windrow.resources.warehouse.schema import DATASETS

FIRST_WINDOW = 5_004_000
MINERS, GROUPS, CHECKED_GROUPS = 16, 82, 32
NODES, NODES_A_WINDOW = 200, 4  # each is verified once in 50 windows, five hours
PROOFS = ("attestation", "hash_challenge", "gemm_proof", "proof_of_compute")
CHECKS = (*HARD_CHECKS, *SOFT_CHECKS, "sketch_agreement", "logprob_agreement", "nonce", "advantage")
FILE_ROLLOUTS = GROUPS * ROLLOUTS_PER_GROUP
FILE_VERDICTS = CHECKED_GROUPS * ROLLOUTS_PER_GROUP * len(CHECKS)

# r: row of a window; w: the window; m: miner.
# u: pseudo-random in [0, 1), the same for the same row.
MACROS = f"""
CREATE MACRO u(w, r, salt) AS (hash(w, r, salt) >> 11) / 9007199254740992.0;
CREATE MACRO hotkey(m) AS '5' || upper(substr(sha256('miner' || m), 1, 47));
CREATE MACRO miss(w, m) AS hash(w, m, 'miss') % 50;
CREATE MACRO bad(w, m) AS m = {MINERS - 1} AND hash(w, 'bad') % 20 = 0;
CREATE MACRO share_failed(w, m) AS CASE WHEN bad(w, m) THEN 0.015 ELSE 0.00002 END;
CREATE MACRO node(w, m) AS 'node-' || (w // 30 * {NODES_A_WINDOW} + m) % {NODES};
CREATE MACRO run_id(w, m) AS substr(sha256(concat_ws(' ', w, m)), 1, 36);
CREATE MACRO stage(n) AS {list(STAGES)}[n % {len(STAGES)} + 1];
CREATE MACRO check_name(n) AS {list(CHECKS)}[n + 1];
"""

# A copier's completion is another miner's; one in 500 is an earlier one of the same file.
DIGEST = """unhex(sha256(concat_ws(' ', $w,
    CASE WHEN m % 5 = 4 AND n < 64 THEN m - 1 ELSE m END,
    CASE WHEN u($w, r, 'again') < 0.002 THEN n // 2 ELSE n END)))"""

FILE_COLUMNS = {
    "rollout_group": "n // 16",
    "rollout_index": "n % 16",
    "nonce": "n",
    "row": "n",
    "validator": "hotkey(99)",
}

COLUMNS = {
    "rollouts": {
        "problem_seed": "hash($w, m, n // 16) >> 2",
        "request_seed": "hash($w, m, n) >> 2",
        "task_index": "hash($w, m, n // 16) % 7473",
        "tokens": "[101, 7592, n // 16, 102]"
        " || list_transform(range(8), lambda x: (hash($w, m, n, x) % 150000)::INTEGER)",
        "prompt_length": "4",
        "completion_length": "8",
        "finish_reason": "CASE WHEN u($w, r, 'eos') < 0.97 THEN 'stop' ELSE 'length' END",
        "reward": "round(u($w, r, 'reward'), 2)",
        "success": "u($w, r, 'reward') >= 0.5",
        "advantage": "round(u($w, r, 'reward') - 0.5, 3)",
        "block": "$w + n // 50",
        "finished_at": "1.7e9 + 12 * ($w + n // 50)",
        "generation_seconds": "2 + 3 * u($w, r // 16, 'generation')",
        "reward_seconds": "0.1 + 0.2 * u($w, r // 16, 'evaluation')",
    },
    "proofs": {
        "tokens_hash": "sha256(concat_ws(' ', $w, r))",
        "sketches": "list_transform(range(12), lambda x: (hash($w, r, x) % 2147483647)::INTEGER)",
        "token_logprobs": "list_transform(range(12), lambda x: -u($w, r, x)::FLOAT)",
        "device": "CASE WHEN m % 2 = 0 THEN 'cuda:0' ELSE 'cpu' END",
        "dtype": "CASE WHEN m % 2 = 0 THEN 'bfloat16' ELSE 'float32' END",
        "attention": "'sdpa'",
        "proof_seconds": "0.5 + u($w, r // 16, 'proof')",
    },
    "completions": {"digest": DIGEST},
    "verdicts": {
        "rollout_group": f"n // {16 * len(CHECKS)}",
        "rollout_index": f"n // {len(CHECKS)} % 16",
        "nonce": f"n // {len(CHECKS)}",
        "row": f"n // {len(CHECKS)}",
        "check": f"check_name(n % {len(CHECKS)})",
        "severity": f"CASE WHEN n % {len(CHECKS)} < 7 THEN 'ban' ELSE 'soft' END",
        "network_verdict": "u($w, r, 'verdict') >= share_failed($w, m) * 0.7",
        "windrow_verdict": "u($w, r, 'verdict') >= share_failed($w, m)",
        # Six of the checks compare numbers.
        "measured": f"CASE WHEN n % {len(CHECKS)} < 6 THEN u($w, r, 'measured') * 0.5 END",
        "threshold": f"CASE WHEN n % {len(CHECKS)} < 6 THEN 0.5 END",
        "margin": f"CASE WHEN n % {len(CHECKS)} < 6 THEN 0.5 - u($w, r, 'measured') * 0.5 END",
        "reason": "CASE WHEN u($w, r, 'verdict') < share_failed($w, m)"
        " THEN 'the number is beyond its threshold by class ' || (n % 5) ELSE '' END",
    },
    "window_runs": {
        "resumed": "0",
        "finished": f"{GROUPS}",
        "dropped": "n",
        "tokens": f"{FILE_ROLLOUTS * 8}",
        "seconds": "300 + 20 * u($w, m, 'loop')",
        "generation_seconds": "280 + 20 * u($w, m, 'generating')",
        "reward_seconds": "20 + u($w, m, 'evaluating')",
        "proof_seconds": "80 + u($w, m, 'proving')",
        "group_seconds": "4.0",
        "block_seconds": "12.0",
        "stopped_by": "'time_budget'",
    },
    "submissions": {"rollouts": f"{FILE_ROLLOUTS}", "sha256": "sha256(concat_ws(' ', $w, m))"},
    "uploads": {
        "deadline": "1.7e9 + 12 * $w",
        "margin_seconds": "CASE WHEN miss($w, m) = 0 THEN -20 ELSE 60 END * u($w, m, 'upload')",
        "on_time": "miss($w, m) <> 0",
    },
    "validations": {
        "state": "CASE WHEN miss($w, m) = 0 THEN 'late' ELSE 'checked' END",
        "device": "CASE WHEN ($w // 30) % 2 = 0 THEN 'cuda:0' ELSE 'cpu' END",
        "dtype": "CASE WHEN ($w // 30) % 2 = 0 THEN 'bfloat16' ELSE 'float32' END",
        "attention": "'sdpa'",
        "windrow_failures": "CASE WHEN bad($w, m) THEN 60 ELSE 0 END",
        "valid": f"CASE WHEN bad($w, m) THEN 0 ELSE {CHECKED_GROUPS * 16} END",
        "checked": f"{CHECKED_GROUPS * 16}",
        "unique": f"CASE WHEN bad($w, m) THEN 0 ELSE {CHECKED_GROUPS * 16 - 1} END",
        "had_failure": "bad($w, m)::BIGINT",
    },
    "scores": {
        "active": "miss($w, m) <> 0",
        "eligible": "miss($w, m) <> 0",
        "selected": "true",
        "estimated_unique": f"{FILE_ROLLOUTS} - 3",
        "had_failure": "bad($w, m)::BIGINT",
        "ban_windows_left": "0",
    },
    "weights": {
        "uid": "m",
        "windows_checked": "12",
        "windows_available": "12",
        "unique_sum": f"12 * {FILE_ROLLOUTS}",
        "cap_share": "u($w, m, 'cap')",
        "raw_score": "u($w, m, 'cap') ** 4",
        "weight": "0.1 * u($w, m, 'cap') ** 4",
        "submitted": "false",
    },
    "faults": {
        "stage": "'generation'",
        "rollout_group": "n",
        "reason": "'reason' || hash($w, m) % 7",
        "detail": "'group ' || n || ' was given up'",
        "recorded_at": "1.7e9 + 12 * $w",
    },
    "node_states": {
        "run_id": "run_id($w, m)",
        "stage": "stage(n // 2)",
        "state": "CASE WHEN n % 2 = 0 THEN 'started' ELSE 'done' END",
        "reason": "''",
        "detail": "''",
    },
    "node_checks": {
        "run_id": "run_id($w, m)",
        "stage": "stage(n)",
        "check": f"'rule ' || n // {len(STAGES)}",
        "network": "['chutes', 'compute-subnet', 'gonka', 'windrow'][n % 4 + 1]",
        "network_verdict": "CASE WHEN n % 4 < 3 THEN u($w, r, 'network') >= 0.02 END",
        "windrow_verdict": "u($w, r, 'node') >= 0.01",
        "reason": "CASE WHEN u($w, r, 'node') < 0.01 THEN 'less than is needed' ELSE '' END",
        "remedy": "CASE WHEN u($w, r, 'node') < 0.01 THEN 'mend it' ELSE '' END",
    },
    "attestations": {
        "run_id": "run_id($w, m)",
        "kind": f"{list(PROOFS)}[n + 1]",
        "gpu_uuid": "'GPU-' || node($w, m)",
        "backend": "'cuda'",
        "driver": "'570.86'",
        "way": "'int8'",
        "size": "8192",
        "bytes": "141_000_000_000",
        "seconds": "20 + u($w, r, 'seconds')",
        "passed": "u($w, r, 'proof') >= 0.01",
    },
}

ROWS_OF_A_FILE = {
    "rollouts": FILE_ROLLOUTS,
    "proofs": FILE_ROLLOUTS,
    "completions": FILE_ROLLOUTS,
    "verdicts": FILE_VERDICTS,
    "node_states": 2 * len(STAGES),
    "node_checks": 60,
    "attestations": len(PROOFS),
}


def window_rows(connection: duckdb.DuckDBPyConnection, dataset: str, window: int) -> pa.Table:
    """One window's rows of all miners, or of the nodes verified in it, sorted by them."""
    columns_there = DATASETS[dataset].columns
    given = {name: sql for name, sql in FILE_COLUMNS.items() if name in columns_there}
    given |= COLUMNS[dataset] | {"window_start": "$w"}
    if "node" in columns_there:
        makers = NODES_A_WINDOW
        given |= {"node": "node($w, m)", "observed_at": "1.7e9 + 12 * $w + n"}
    else:
        makers = MINERS
        given |= {"hotkey": "hotkey(m)"}
    columns = ", ".join(f'{sql} AS "{name}"' for name, sql in given.items())
    rows = ROWS_OF_A_FILE.get(dataset, 1)
    table = connection.execute(
        f"SELECT {columns} FROM (SELECT r, r // {rows} AS m, r % {rows} AS n"
        f" FROM range({rows * makers}) AS t(r))".replace("$w", f"{window}::BIGINT")
    ).to_arrow_table()
    return pa.table(
        {
            field.name: table[field.name].cast(field.type)
            if field.name in given
            else pa.nulls(table.num_rows, field.type)
            for field in DATASETS[dataset].schema
        }
    )
