-- Where every node stands in its newest verification, one row a node.
-- node: name of the node in fleet.yaml
-- state: verified, refused (a proof is wrong), unproven (its attestation was skipped), failed, or under way
-- stage: the step it failed at or is at
-- reason: short name of the reason it failed
-- detail: what happened and what to do
-- steps_done: steps of the verification that ended well
-- at: when that was, UTC
-- wrong: newest findings that are wrong by Windrow's verdict
-- refused_by: networks whose own checks say no
WITH begun AS (
    SELECT node, max(observed_at) AS began
    FROM node_states WHERE stage = 'inventory' AND state = 'started' GROUP BY node
),
newest AS (
    SELECT s.*
    FROM node_states s JOIN begun USING (node)
    WHERE s.observed_at >= began
    QUALIFY row_number() OVER (
        PARTITION BY node, stage ORDER BY observed_at DESC, s.state = 'started'
    ) = 1
),
last AS (
    SELECT
        node,
        count(*) FILTER (state = 'done') AS steps_done,
        bool_or(state = 'failed') AS failed,
        max(observed_at) AS last_at,
        arg_max(stage, (state <> 'done', observed_at)) AS stage,
        arg_max(reason, (state = 'failed', observed_at)) AS reason,
        arg_max(detail, (state = 'failed', observed_at)) AS detail
    FROM newest GROUP BY node
),
checks AS (
    SELECT node, stage, network, network_verdict, windrow_verdict
    FROM node_checks
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
)
SELECT
    node,
    CASE
        WHEN failed THEN 'failed'
        WHEN steps_done < 8 THEN 'under way'
        WHEN EXISTS (
            FROM checks c
            WHERE c.node = last.node AND windrow_verdict IS FALSE
                AND stage NOT IN ('facts', 'preflight')
        ) THEN 'refused'
        WHEN NOT EXISTS (
            FROM checks c
            WHERE c.node = last.node AND stage = 'attestation' AND windrow_verdict
        ) THEN 'unproven'
        ELSE 'verified'
    END AS state,
    CASE WHEN steps_done = 8 THEN NULL ELSE stage END AS stage,
    CASE WHEN failed THEN reason END AS reason,
    CASE WHEN failed THEN detail END AS detail,
    steps_done,
    make_timestamp((last_at * 1e6)::BIGINT) AS at,
    (SELECT count(*) FROM checks c WHERE c.node = last.node AND windrow_verdict IS FALSE) AS wrong,
    (
        SELECT coalesce(list_sort(list(DISTINCT network)), [])
        FROM checks c WHERE c.node = last.node AND network_verdict IS FALSE
    ) AS refused_by
FROM last
ORDER BY node
