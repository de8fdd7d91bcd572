-- What every window cost whose file was not in the bucket in time.
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- missed: late, not_uploaded (signed, but not put in the bucket) or no_file
-- seconds_late: time from the deadline to the upload; null without one
-- stopped_by: what ended the window loop
-- rollouts: rollouts that were made in vain
-- unique_rollouts: distinct completions among them; the network counts those
-- loop_seconds: wall time of the last run that went into them
WITH missed AS (
    SELECT
        r.window_start, r.hotkey, r.stopped_by, r.seconds AS loop_seconds,
        CASE
            WHEN u.on_time IS NOT NULL THEN 'late'
            WHEN s.sha256 IS NOT NULL THEN 'not_uploaded'
            ELSE 'no_file'
        END AS missed,
        -u.margin_seconds AS seconds_late
    FROM window_runs r
    LEFT JOIN uploads u USING (window_start, hotkey)
    LEFT JOIN submissions s USING (window_start, hotkey)
    WHERE u.on_time IS NOT TRUE
)
SELECT
    window_start, hotkey, missed, seconds_late, stopped_by,
    coalesce(rollouts, 0) AS rollouts,
    coalesce(unique_rollouts, 0) AS unique_rollouts,
    loop_seconds
FROM missed LEFT JOIN rollout_totals USING (window_start, hotkey)
ORDER BY window_start DESC, hotkey
