-- Which files repeat completions: their own, or those of other miners in the same window.
-- window_start: first block of the window
-- hotkey: SS58 address of the miner
-- rollouts: rollouts of the file
-- repeated: rollouts beyond the first with the same completion, within the file
-- shared: rollouts whose completion another miner has in this window too
-- shared_share: shared over rollouts
-- miners: how many other miners share one
WITH spread AS (
    SELECT *, count(*) OVER (PARTITION BY window_start, digest) > 1 AS elsewhere
    FROM repeated_completions
),
by_file AS (
    SELECT
        window_start, hotkey,
        sum(copies - 1)::BIGINT AS repeated,
        coalesce(sum(copies) FILTER (elsewhere), 0)::BIGINT AS shared
    FROM spread
    GROUP BY window_start, hotkey
),
others AS (
    SELECT a.window_start, a.hotkey, count(DISTINCT b.hotkey) AS miners
    FROM spread a JOIN spread b USING (window_start, digest)
    WHERE a.elsewhere AND a.hotkey <> b.hotkey
    GROUP BY a.window_start, a.hotkey
),
sizes AS (
    SELECT window_start, hotkey, count(*) AS rollouts
    FROM completions
    GROUP BY window_start, hotkey
)
SELECT
    window_start, hotkey, rollouts, repeated, shared, shared / rollouts AS shared_share,
    coalesce(miners, 0) AS miners
FROM by_file JOIN sizes USING (window_start, hotkey) LEFT JOIN others USING (window_start, hotkey)
ORDER BY window_start DESC, shared DESC, repeated DESC, hotkey
