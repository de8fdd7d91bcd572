-- Which checks fail and why, most frequent first.
-- check: what was checked
-- severity: what a failure costs: ban, soft, ignored or strict
-- reason: what is wrong, in words
-- failed: verdicts that are negative by the network's rules or by Windrow's
-- network_failed: of those, negative by the network's rules
-- windows: windows it happened in
-- miners: miners it happened to
-- last_window: the newest of the windows
SELECT
    "check", severity, reason,
    count(*) AS failed,
    count(*) FILTER (NOT network_verdict) AS network_failed,
    count(DISTINCT window_start) AS windows,
    count(DISTINCT hotkey) AS miners,
    max(window_start) AS last_window
FROM verdicts
-- What the network refuses, Windrow refuses too.
WHERE NOT windrow_verdict
GROUP BY "check", severity, reason
ORDER BY failed DESC, "check", severity, reason
