-- Why groups and windows were given up, most frequent first.
-- stage: where: an asset, or prompt, generation, reward, proof, check
-- reason: short name of the reason
-- times: how often
-- groups: groups given up
-- windows: windows it happened in
-- first_window: the oldest of them
-- last_window: the newest of them
-- last_at: when it happened last, UTC
-- last_detail: what happened then and what to do
SELECT
    stage, reason,
    count(*) AS times,
    count(rollout_group) AS groups,
    count(DISTINCT window_start) AS windows,
    min(window_start) AS first_window,
    max(window_start) AS last_window,
    make_timestamp((max(recorded_at) * 1e6)::BIGINT) AS last_at,
    arg_max(detail, recorded_at) AS last_detail
FROM faults
GROUP BY stage, reason
ORDER BY times DESC, stage, reason
