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
    sum(failed)::BIGINT AS failed,
    sum(failed_verdicts.network_failed)::BIGINT AS network_failed,
    count(DISTINCT window_start) AS windows,
    count(DISTINCT hotkey) AS miners,
    max(window_start) AS last_window
FROM failed_verdicts
GROUP BY "check", severity, reason
ORDER BY sum(failed) DESC, "check", severity, reason
