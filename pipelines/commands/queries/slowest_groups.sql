-- The 50 groups that took longest, and in which stage.
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- rollout_group: number of the problem within the window
-- seconds: time in all stages together
-- generation_seconds: time to generate the group
-- reward_seconds: time to evaluate it
-- proof_seconds: time to prove it; null before it is proved
SELECT
    window_start, hotkey, rollout_group,
    r.generation_seconds + r.reward_seconds + coalesce(p.proof_seconds, 0) AS seconds,
    r.generation_seconds, r.reward_seconds, p.proof_seconds
FROM rollouts r
LEFT JOIN (FROM proofs WHERE rollout_index = 0) p USING (window_start, hotkey, rollout_group)
WHERE r.rollout_index = 0
ORDER BY seconds DESC, window_start, hotkey, rollout_group
LIMIT 50
