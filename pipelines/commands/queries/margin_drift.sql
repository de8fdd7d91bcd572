-- How the margins of each check move from window to window, by number format and backend.
-- window_start: first block of the window
-- check: what was checked
-- dtype: number format of the validator's forward pass
-- device: its device
-- attention: its attention kernel
-- verdicts: verdicts that compare numbers
-- failed: of those, negative by Windrow's own verdict
-- mean_margin: mean distance within the threshold
-- least_margin: the smallest; negative is beyond the threshold
-- change: mean_margin less that of the window before on the same backend
WITH backends AS (
    -- A file that two validators checked has its verdicts once: they share a backend then.
    SELECT
        window_start, hotkey, any_value(dtype) AS dtype, any_value(device) AS device,
        any_value(attention) AS attention
    FROM validations
    GROUP BY window_start, hotkey
)
SELECT
    window_start, "check", dtype, device, attention,
    sum(compared)::BIGINT AS verdicts,
    sum(windrow_failed)::BIGINT AS failed,
    sum(margin_sum) / sum(compared) AS mean_margin,
    min(check_totals.least_margin) AS least_margin,
    mean_margin - lag(mean_margin) OVER (
        PARTITION BY "check", dtype, device, attention ORDER BY window_start
    ) AS change
FROM check_totals LEFT JOIN backends USING (window_start, hotkey)
WHERE compared > 0
GROUP BY window_start, "check", dtype, device, attention
ORDER BY window_start DESC, "check", dtype, device, attention
