-- Which rollouts passed a check by the smallest margins, five a check.
-- check: what was checked
-- margin: how far within the threshold
-- measured: number that was measured
-- threshold: number it was held against
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- rollout_group: number of the problem within the window
-- rollout_index: number of the rollout within its group, 0 to 15
WITH nearest AS (
    -- The five smallest margins are in the files whose own smallest are.
    SELECT window_start, hotkey, "check"
    FROM check_totals
    WHERE least_passing_margin IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY "check" ORDER BY least_passing_margin, window_start, hotkey
    ) <= 5
)
SELECT "check", margin, measured, threshold, window_start, hotkey, rollout_group, rollout_index
FROM verdicts SEMI JOIN nearest USING (window_start, hotkey, "check")
WHERE windrow_verdict AND margin >= 0
QUALIFY row_number() OVER (PARTITION BY "check" ORDER BY margin, window_start, hotkey, nonce) <= 5
ORDER BY "check", margin, window_start, hotkey, rollout_group, rollout_index
