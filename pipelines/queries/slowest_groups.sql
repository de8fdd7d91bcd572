-- The 50 groups that took longest, and in which stage.
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- rollout_group: number of the problem within the window
-- seconds: time in all stages together
-- generation_seconds: time to generate the group
-- reward_seconds: time to evaluate it
-- proof_seconds: time to prove it; null before it is proved
-- longest_completion: most tokens of a completion of the group
WITH slowest AS (
    SELECT
        r.window_start, r.hotkey, r.rollout_group,
        r.generation_seconds + r.reward_seconds + coalesce(p.proof_seconds, 0) AS seconds,
        r.generation_seconds, r.reward_seconds, p.proof_seconds
    FROM rollouts r
    LEFT JOIN proofs p USING (window_start, hotkey, rollout_group, rollout_index)
    WHERE rollout_index = 0
    ORDER BY seconds DESC, window_start, hotkey, rollout_group
    LIMIT 50
),
lengths AS (
    SELECT window_start, hotkey, rollout_group, max(completion_length) AS longest_completion
    FROM rollouts SEMI JOIN slowest USING (window_start, hotkey, rollout_group)
    GROUP BY window_start, hotkey, rollout_group
)
SELECT *
FROM slowest JOIN lengths USING (window_start, hotkey, rollout_group)
ORDER BY seconds DESC, window_start, hotkey, rollout_group
