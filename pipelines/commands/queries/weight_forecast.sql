-- What each miner's weight is as of the newest weighed window, and where it is going.
-- validator: hotkey that weighs
-- hotkey: SS58 address of the miner
-- uid: the miner's number on the subnet
-- window_start: first block of the newest window that was weighed
-- weight: the weight, burn taken off
-- share: its part of all miners' scores
-- change: weight less that of the window before
-- mean_weight: mean over the newest 12 windows
-- windows_checked: recent windows with a verdict
-- windows_available: recent windows with an upload
-- unique_sum: unique rollouts of those windows
-- cap_share: unique_sum for all windows with an upload, over the period's cap
-- submitted: whether the weight was sent to the chain
SELECT
    validator, hotkey, uid, window_start, weight,
    raw_score / nullif(sum(raw_score) OVER everyone, 0) AS share,
    weight - lag(weight) OVER history AS change,
    avg(weight) OVER newest AS mean_weight,
    windows_checked, windows_available, unique_sum, cap_share, submitted
FROM weights
WINDOW
    everyone AS (PARTITION BY validator, window_start),
    history AS (PARTITION BY validator, hotkey ORDER BY window_start),
    newest AS (
        PARTITION BY validator, hotkey ORDER BY window_start ROWS BETWEEN 11 PRECEDING AND CURRENT ROW
    )
QUALIFY window_start = max(window_start) OVER (PARTITION BY validator)
ORDER BY validator, weight DESC, hotkey
