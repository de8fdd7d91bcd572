-- Where every node stands in its newest verification, one row a node.
-- node: name of the node in fleet.yaml
-- state: verified, refused (a proof is wrong), unproven (its attestation was skipped, or cards that it needs did not answer), failed, or under way
-- stage: the step it failed at or is at
-- reason: short name of the reason it failed, or what is missing of its cards: no card, 7 of 8, other card
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
    SELECT
        node, stage, "check", network, network_verdict, windrow_verdict, measured, needed, reason,
        observed_at
    FROM node_checks
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY node, stage ORDER BY observed_at DESC)
),
missing AS (
    SELECT node, arg_min(reason, (stage = 'facts', measured, observed_at)) AS reason
    FROM (
        SELECT node, stage, measured, observed_at, reason
        FROM checks WHERE "check" = 'cards' AND windrow_verdict IS NULL
        UNION ALL
        SELECT
            node, stage, measured, observed_at,
            CASE
                WHEN "check" = 'drift_gpu' THEN 'other card'
                WHEN measured = 0 THEN 'no card'
                ELSE format('{:.0f} of {:.0f}', measured, needed)
            END || ': ' || reason
        FROM checks
        WHERE windrow_verdict IS FALSE AND needed IS DISTINCT FROM 0 AND (
            "check" = 'drift_gpu' OR ("check" = 'drift_gpu_count' AND measured < needed)
        )
    ) GROUP BY node
),
judged AS (
    SELECT
        last.*,
        missing.reason AS missing,
        CASE
            WHEN failed THEN 'failed'
            WHEN steps_done < 8 THEN 'under way'
            WHEN EXISTS (
                FROM checks c
                WHERE c.node = last.node AND windrow_verdict IS FALSE
                    AND stage NOT IN ('facts', 'preflight')
            ) THEN 'refused'
            WHEN missing.reason IS NOT NULL OR NOT EXISTS (
                FROM checks c
                WHERE c.node = last.node AND stage = 'attestation' AND windrow_verdict
            ) THEN 'unproven'
            ELSE 'verified'
        END AS verdict
    FROM last LEFT JOIN missing USING (node)
)
SELECT
    node,
    verdict AS state,
    CASE WHEN steps_done = 8 THEN NULL ELSE stage END AS stage,
    CASE verdict
        WHEN 'failed' THEN reason WHEN 'unproven' THEN split_part(missing, ':', 1)
    END AS reason,
    CASE verdict WHEN 'failed' THEN detail WHEN 'unproven' THEN missing END AS detail,
    steps_done,
    make_timestamp((last_at * 1e6)::BIGINT) AS at,
    (SELECT count(*) FROM checks c WHERE c.node = judged.node AND windrow_verdict IS FALSE) AS wrong,
    (
        SELECT coalesce(list_sort(list(DISTINCT network)), [])
        FROM checks c WHERE c.node = judged.node AND network_verdict IS FALSE
    ) AS refused_by
FROM judged
ORDER BY node
