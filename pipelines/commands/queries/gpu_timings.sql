-- How long every GPU took for its proofs, newest first, held against its own median.
-- node: name of the node in fleet.yaml
-- gpu_uuid: the GPU that worked; null is the whole node
-- kind: attestation, hash_challenge, gemm_proof, proof_of_compute or llm_job
-- at: when, UTC
-- backend: device that says it computed
-- driver: the GPUs' driver when it worked
-- way: how it multiplied, by its own word
-- size: rows of the matrices, nonces or prompts
-- seconds: time the asker measured
-- of_median: that, over the median of the same work by the same GPU, driver and way
-- passed: whether it proves what was claimed
SELECT
    node, gpu_uuid, kind,
    make_timestamp((observed_at * 1e6)::BIGINT) AS at,
    backend, driver, way, size, seconds,
    seconds / median(seconds) OVER (
        PARTITION BY node, gpu_uuid, kind, size, bytes, backend, driver, way
    ) AS of_median,
    passed
FROM attestations
WHERE seconds IS NOT NULL
ORDER BY node, gpu_uuid, kind, observed_at DESC
