-- How many rollouts a second each stage of the window loop did, and how long a group took there.
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- stage: generation, reward, proof, or loop for all of them at once
-- rollouts: rollouts finished by the window's last run, groups of 16
-- busy_seconds: time the stage worked in that run
-- rollouts_per_second: rollouts over busy_seconds
-- mean_group_seconds: mean time from a group's start to its end in the stage, over all runs
-- slowest_group_seconds: the longest such time
WITH proved AS (
    SELECT window_start, hotkey, avg(proof_seconds) AS mean_proof, max(proof_seconds) AS most_proof
    FROM proofs
    GROUP BY window_start, hotkey
),
stages AS (
    SELECT
        window_start, hotkey, finished * 16::BIGINT AS rollouts,
        unnest([
            {'stage': 'generation', 'busy': generation_seconds, 'mean': mean_generation_seconds,
             'most': most_generation_seconds},
            {'stage': 'reward', 'busy': reward_seconds, 'mean': mean_reward_seconds,
             'most': most_reward_seconds},
            {'stage': 'proof', 'busy': proof_seconds, 'mean': mean_proof, 'most': most_proof},
            {'stage': 'loop', 'busy': seconds, 'mean': group_seconds, 'most': NULL}
        ]) AS s
    FROM window_runs
    LEFT JOIN rollout_totals USING (window_start, hotkey)
    LEFT JOIN proved USING (window_start, hotkey)
)
SELECT
    window_start, hotkey, s.stage, rollouts, s.busy AS busy_seconds,
    rollouts / nullif(s.busy, 0) AS rollouts_per_second,
    s.mean AS mean_group_seconds, s.most AS slowest_group_seconds
FROM stages
ORDER BY window_start DESC, hotkey, list_position(['generation', 'reward', 'proof', 'loop'], s.stage)
