-- Which rollouts passed a check by the smallest margins, five a check.
-- check: what was checked
-- margin: how far within the threshold
-- measured: number that was measured
-- threshold: number it was held against
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- rollout_group: number of the problem within the window
-- rollout_index: number of the rollout within its group, 0 to 15
SELECT "check", margin, measured, threshold, window_start, hotkey, rollout_group, rollout_index
FROM verdicts
WHERE network_verdict AND windrow_verdict AND margin >= 0
QUALIFY row_number() OVER (PARTITION BY "check" ORDER BY margin, window_start, hotkey, nonce) <= 5
ORDER BY "check", margin, window_start, hotkey, rollout_group, rollout_index
