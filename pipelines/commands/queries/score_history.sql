-- Window by window, what each miner was credited with and why.
-- window_start: first block of the window
-- validator: hotkey that scored
-- hotkey: SS58 address of the miner
-- status: inactive, banned, failed, not_looked_at or counted
-- unique_rollouts: unique rollouts that count
-- copy_ratio: largest share of completions that another miner has too
-- copied_from: that miner
-- network_copier: gated by the network's rule
-- windrow_copier: uploaded later when the copies were made
-- ban_windows_left: windows until the last failure is forgotten
-- reason: why, as far as anyone says
-- weight: the weight as of that window; null where none was set
SELECT
    s.window_start, s.validator, s.hotkey,
    CASE
        WHEN NOT s.active THEN 'inactive'
        WHEN s.had_failure = 1 THEN 'failed'
        WHEN NOT s.eligible THEN 'banned'
        WHEN NOT s.selected THEN 'not_looked_at'
        ELSE 'counted'
    END AS status,
    s.estimated_unique AS unique_rollouts,
    s.copy_ratio, s.copied_from, s.network_copier, s.windrow_copier, s.ban_windows_left, s.reason,
    w.weight
FROM scores s LEFT JOIN weights w USING (window_start, validator, hotkey)
ORDER BY s.window_start DESC, s.validator, s.hotkey
