-- Which node would fail which network, and why; what Windrow finds wrong beyond that as well.
-- network: whose rule it is; windrow for our own
-- node: name of the node in fleet.yaml
-- check: name of the rule
-- gpu_uuid: the GPU it is about; null is the whole node
-- network_refuses: whether the network itself says no
-- windrow_refuses: whether it is wrong by Windrow's verdict
-- measured: number that was measured
-- needed: number it was held against
-- unit: unit of both
-- reason: what is wrong, in words
-- remedy: the command or act that mends it
WITH newest AS (
    SELECT * FROM node_checks
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT
    network, node, "check", gpu_uuid,
    coalesce(NOT network_verdict, false) AS network_refuses,
    coalesce(NOT windrow_verdict, false) AS windrow_refuses,
    measured, needed, unit, reason, remedy
FROM newest
WHERE network_verdict IS FALSE OR windrow_verdict IS FALSE
ORDER BY network, node, network_refuses DESC, "check", gpu_uuid
