"""ComputeHorde's language-model job: every answer held against a node one trusts."""

import json
import secrets
import uuid

import dagster as dg

from windrow.assets.fleet.findings import result, verdict_of
from windrow.assets.fleet.stage import NODE_RESOURCES, Stage, node_asset, step_of
from windrow.resources.fleet.nodes import TaskFailed
from windrow.resources.fleet.trusted import TrustedNodeFailed
from windrow.resources.storage.objects import ObjectStore

NETWORK = "compute-horde"


@node_asset(
    deps=["attestation"],
    kinds={"torch", "s3"},
    check_specs=[verdict_of("llm_job")],
    required_resource_keys=NODE_RESOURCES | {"job_bucket", "answer_bucket"},
)
def llm_job(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Prompts nobody saw before, answered by the node and by a trusted one (compute-horde §5).

    Prompts are in the job bucket, and what was answered in the answer bucket. On S3 the node is
    shown one object of each; in folders all goes over its own line.
    """
    found = context.resources
    with step_of(context) as step:
        if step.concerns(NETWORK):
            if step.node.models:
                _run(step, found.job_bucket, found.answer_bucket)
            else:
                step.skip(NETWORK, "the node declares no model", "name it under `models`")
    return result(step)


def _run(step: Stage, prompts: ObjectStore, answers: ObjectStore) -> None:
    from windrow.engine.fleet.llm_job_plan import Job
    from windrow.resources.fleet.job_buckets import JobBuckets
    from windrow.resources.fleet.job_run import precision, run_job

    work = step.fleet.work
    gpus = bool(step.facts().gpus)
    model = step.node.models[0].name.replace("/", "--")
    try:
        node, trusted = step.fleet.access(step.node), step.fleet.trusted(step.node)
        job = Job(
            job_id=str(uuid.uuid4()),
            node=step.node.name,
            model=model,
            secret=secrets.token_hex(32),
            prompts=work.gpu_prompts if gpus else work.processor_prompts,
            max_tokens=work.gpu_tokens if gpus else work.processor_tokens,
            bits=precision(trusted, model, gpus=gpus),
        )
        run = run_job(JobBuckets(prompts, answers), job, node, trusted)
    except TrustedNodeFailed as error:
        step.skip(NETWORK, str(error)[:1000], "Fix the trusted node: it must have the model too")
        return
    except TaskFailed as error:
        step.refused(NETWORK, error, network_verdict=False)
        return
    verdict = run.verdict
    replay = {
        "job": job.job_id,
        "bits": job.bits,
        "equal": verdict.equal,
        "tokens": verdict.tokens,
    }
    if run.upload is not None and run.upload.receipt is not None:
        receipt = run.upload.receipt
        replay |= {"download": receipt.download_seconds, "upload": receipt.upload_seconds}
    step.checks += verdict.checks
    step.note_cards()
    step.proof(
        seed=job.commitment(),
        size=job.prompts,
        claimed_seconds=verdict.claimed_seconds,
        seconds=run.seconds,
        passed=verdict.passed,
        digest=verdict.digest,
        replay=json.dumps(replay),
    )
