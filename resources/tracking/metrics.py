"""A window's metrics, read from the lake: the network's public names, and Windrow's own.

What has a name in the network's dashboards has that name here (grail-validation §22.1); everything
else begins with `windrow/`. A number that nobody measured is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from windrow.resources.warehouse.lake import Lake

MINING: Final = """
SELECT
    any_value(s.groups) AS "windrow/groups",
    any_value(s.rollouts) AS "windrow/rollouts",
    any_value(s.refused_groups) AS "windrow/refused_groups",
    any_value(s.mean_reward) AS "windrow/mean_reward",
    any_value(s.solved) AS "windrow/success_rate",
    any_value(s.tokens) AS "windrow/tokens",
    any_value(s.bytes) AS "windrow/file_bytes",
    any_value(r.dropped) AS "windrow/dropped_groups",
    any_value(r.tokens) / nullif(any_value(r.seconds), 0) AS "windrow/tokens_per_second",
    any_value(r.seconds) AS "profiling/window_generation_duration",
    any_value(r.generation_seconds) AS "windrow/generation_seconds",
    any_value(r.reward_seconds) AS "windrow/reward_seconds",
    any_value(r.proof_seconds) AS "windrow/proof_seconds",
    any_value(u.seconds) AS "profiling/upload_duration",
    any_value(u.margin_seconds) AS "windrow/deadline_margin_seconds",
    any_value(b.drand_round) AS "windrow/drand_round",
    (SELECT count(*) FROM faults f WHERE f.window_start = $window AND f.hotkey = $hotkey)
        AS "windrow/faults"
FROM (SELECT $window AS window_start, $hotkey AS hotkey) w
LEFT JOIN submissions s USING (window_start, hotkey)
LEFT JOIN window_runs r USING (window_start, hotkey)
LEFT JOIN uploads u USING (window_start, hotkey)
LEFT JOIN beacons b USING (window_start, hotkey)
"""

VALIDATION: Final = """
SELECT
    count(*) FILTER (s.active) AS "miner_sampling/miners_active",
    count(*) FILTER (s.eligible) AS "miner_sampling/miners_eligible",
    count(*) FILTER (s.active AND NOT s.eligible) AS "miner_sampling/miners_excluded_failures",
    count(*) FILTER (s.selected) AS "miner_sampling/miners_selected",
    count(*) FILTER (s.selected) / nullif(count(*) FILTER (s.active), 0)
        AS "miner_sampling/check_rate",
    count(*) FILTER (s.network_copier) AS "validation/copycat/window_cheaters",
    count(*) FILTER (s.windrow_copier) AS "windrow/copiers",
    sum(v.valid) AS "validation/active_miners/window_valid_rollouts",
    count(v.sha256) AS "validation/active_miners/window_files_found",
    count(*) FILTER (v.state IN ('unreadable', 'unfinished'))
        AS "validation/active_miners/window_processing_errors",
    sum(v.seconds) AS "profiling/rollout_verification_duration",
    count(*) FILTER (v.windrow_failures > 0 AND v.had_failure = 0)
        AS "windrow/accepted_by_the_network_alone"
FROM scores s
LEFT JOIN validations v USING (window_start, hotkey, validator)
WHERE s.window_start = $window AND s.validator = $hotkey
"""

REFUSED_ROLLOUTS: Final = """
SELECT
    count(*) FILTER ("check" = 'outer_signature')
        AS "validation/active_miners/window_invalid_signatures",
    count(*) FILTER ("check" = 'proof_valid') AS "validation/active_miners/window_invalid_proofs",
    count(*) AS "windrow/network_refusals"
FROM verdicts
WHERE window_start = $window AND NOT network_verdict
"""

OF_MINERS: Final = """
SELECT
    w.uid,
    v.had_failure AS had_failure,
    (v.network_reason LIKE 'file:%')::INT AS file_rejected,
    v.prompt_valid AS prompt_valid,
    v.prompt_mismatch AS prompt_mismatch,
    w.windows_checked AS windows_count,
    s.copy_ratio AS "copycat/window_max_ratio",
    w.weight AS "windrow/weight"
FROM weights w
LEFT JOIN scores s USING (window_start, hotkey, validator)
LEFT JOIN validations v USING (window_start, hotkey, validator)
WHERE w.window_start = $window AND w.validator = $hotkey AND s.hotkey IS NOT NULL
"""

WEIGHED: Final = """
SELECT
    count(*) AS "miner_sampling/miners_total",
    count(*) FILTER (uid > 0 AND weight > 0) AS "weights/submission/successful_miners_count",
    count(*) FILTER (windows_available > 0) AS "weights/submission/active_miners",
    sum(weight) FILTER (uid > 0) AS "windrow/earned_share"
FROM weights
WHERE window_start = $window AND validator = $hotkey
"""


@dataclass(frozen=True)
class WindowMetrics:
    """role: mining or validation. hotkey: whose. values: by name; finite or not, never null."""

    role: str
    hotkey: str
    window: int
    values: Mapping[str, float]


def mining_metrics(lake: Lake, window: int, hotkey: str) -> WindowMetrics:
    """What a miner's window came to. Raises LakeError."""
    return WindowMetrics("mining", hotkey, window, _row(lake, MINING, window, hotkey))


def validation_metrics(lake: Lake, window: int, validator: str) -> WindowMetrics:
    """What a validator's window came to, all miners together and each by its uid.

    Raises LakeError.
    """
    values = _row(lake, VALIDATION, window, validator)
    values |= _row(lake, REFUSED_ROLLOUTS, window, validator)
    values |= _row(lake, WEIGHED, window, validator)
    for row in _query(lake, OF_MINERS, window, validator):
        uid = row.pop("uid")
        values |= {f"{uid}/{name}": value for name, value in _numbers(row).items()}
    return WindowMetrics("validation", validator, window, values)


def _row(lake: Lake, sql: str, window: int, hotkey: str) -> dict[str, float]:
    (row,) = _query(lake, sql, window, hotkey)
    return _numbers(row)


def _query(lake: Lake, sql: str, window: int, hotkey: str) -> list[dict[str, Any]]:
    quoted = hotkey.replace("'", "''")
    text = sql.replace("$window", str(int(window))).replace("$hotkey", f"'{quoted}'")
    rows: list[dict[str, Any]] = lake.query(text).to_pylist()
    return rows


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None}
