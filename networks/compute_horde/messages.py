"""Messages between validator, miner and executor, as JSON text (§3, §4.2).

Names of fields that no measured message shows are ours: `payload` and `signature` of the two later
receipts. Unknown words of the status vocabularies decode to `unknown`; anything else that does not
fit refuses the message.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from windrow import WindrowError
from windrow.networks.compute_horde.classes import ClassName
from windrow.networks.compute_horde.logins import ValidatorLogin
from windrow.networks.compute_horde.receipts import Accepted, Finished, Receipt, Started
from windrow.networks.compute_horde.requests import StreamingDetails
from windrow.networks.compute_horde.volumes import Upload, Volume, problem

UNKNOWN: Final = "unknown"
MAX_MESSAGE_BYTES: Final = 16 << 20
MAX_EXECUTORS: Final = 10_000

DECLINE_REASONS: Final = (
    "busy",
    "invalid_signature",
    "no_miner_for_job",
    "validator_blacklisted",
)
STAGES: Final = (
    "executor_startup",
    "volume_download",
    "streaming_startup",
    "execution",
    "result_upload",
)
FAILURE_REASONS: Final = ("timeout", "nonzero_return_code", "download_failed", "upload_failed")
TIMEOUTS: Final = (
    "initial_response_timed_out",
    "executor_readiness_response_timed_out",
    "volumes_timed_out",
    "streaming_job_ready_timed_out",
    "execution_timed_out",
    "final_response_timed_out",
)
PLATFORM_REASONS: Final = (
    "generic_error",
    "unhandled_exception",
    "unhandled_timeout",
    "streaming_failed",
    "miner_connection_failed",
    *TIMEOUTS,
    "executor_spinup_failed",
    "executor_disconnected",
    "security_check_failed",
)


class MalformedMessage(WindrowError):
    """A text that is no message of its direction."""


def _word(known: tuple[str, ...]) -> BeforeValidator:
    return BeforeValidator(
        lambda word: word if word in known or not isinstance(word, str) else UNKNOWN
    )


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)


class _OfJob(_Model):
    job_uuid: str


class Manifest(_Model):
    """Executors of each class a miner says it has."""

    message_type: Literal["V0ExecutorManifestRequest"] = "V0ExecutorManifestRequest"
    manifest: dict[ClassName, int]


class AcceptJob(_OfJob):
    message_type: Literal["V0AcceptJobRequest"] = "V0AcceptJobRequest"


class DeclineJob(_OfJob):
    """receipts: that excuse it."""

    message_type: Literal["V0DeclineJobRequest"] = "V0DeclineJobRequest"
    message: str = ""
    reason: Annotated[str, _word(DECLINE_REASONS)] = UNKNOWN
    receipts: list[Receipt] = []
    context: dict[str, Any] | None = None


class JobFailed(_OfJob):
    """The job's own fault. Older miners call message and reason error_detail and error_type."""

    message_type: Literal["V0JobFailedRequest"] = "V0JobFailedRequest"
    message: str = Field("", validation_alias=AliasChoices("message", "error_detail"))
    reason: Annotated[str, _word(FAILURE_REASONS)] = Field(
        UNKNOWN, validation_alias=AliasChoices("reason", "error_type")
    )
    stage: Annotated[str, _word(STAGES)] = UNKNOWN
    docker_process_exit_status: int | None = None
    docker_process_stdout: str | None = None
    docker_process_stderr: str | None = None
    context: dict[str, Any] | None = None


class HordeFailed(_OfJob):
    """The platform's fault."""

    message_type: Literal["V0HordeFailedRequest"] = "V0HordeFailedRequest"
    reported_by: Literal["sdk", "facilitator", "validator", "miner", "executor"]
    message: str
    reason: Annotated[str, _word(PLATFORM_REASONS)]
    context: dict[str, Any] | None = None


class JobFinished(_OfJob):
    """artifacts: base64 by path. upload_results: HTTP answer by file."""

    message_type: Literal["V0JobFinishedRequest"] = "V0JobFinishedRequest"
    docker_process_stdout: str
    docker_process_stderr: str
    artifacts: dict[str, str] | None = None
    upload_results: dict[str, str] | None = None


class ExecutorReady(_OfJob):
    message_type: Literal["V0ExecutorReadyRequest"] = "V0ExecutorReadyRequest"
    executor_token: str | None = None


class VolumesReady(_OfJob):
    message_type: Literal["V0VolumesReadyRequest"] = "V0VolumesReadyRequest"


class StreamingReady(_OfJob):
    """public_key: the job's certificate, PEM."""

    message_type: Literal["V0StreamingJobReadyRequest"] = "V0StreamingJobReadyRequest"
    executor_token: str | None = None
    public_key: str
    ip: str | None = None
    port: int
    miner_signature: str | None = None


class ExecutionDone(_OfJob):
    message_type: Literal["V0ExecutionDoneRequest"] = "V0ExecutionDoneRequest"


class _Specs(_Model):
    specs: dict[str, Any]


class MachineSpecs(_OfJob):
    message_type: Literal["V0MachineSpecsRequest"] = "V0MachineSpecsRequest"
    specs: _Specs


class Unauthorized(_Model):
    message_type: Literal["UnauthorizedError"] = "UnauthorizedError"
    code: str
    details: str | None = None


class GenericError(_Model):
    message_type: Literal["GenericError"] = "GenericError"
    details: str | None = None


class MainHotkey(_Model):
    message_type: Literal["V0MainHotkeyMessage"] = "V0MainHotkeyMessage"
    main_hotkey: str | None = None


class Login(ValidatorLogin):
    message_type: Literal["ValidatorAuthForMiner"] = "ValidatorAuthForMiner"


class Timing(_Model):
    """Limits of a job's stages, seconds."""

    allowed_leeway: int
    download_time_limit: int
    execution_time_limit: int
    upload_time_limit: int
    streaming_start_time_limit: int

    @property
    def total(self) -> int:
        """All of it, whether the job streams or not."""
        return (
            self.allowed_leeway
            + self.download_time_limit
            + self.execution_time_limit
            + self.upload_time_limit
            + self.streaming_start_time_limit
        )


class InitialJob(_OfJob):
    message_type: Literal["V0InitialJobRequest"] = "V0InitialJobRequest"
    executor_class: ClassName
    docker_image: str | None = None
    timeout_seconds: int | None = None
    volume: Volume | None = None
    job_started_receipt_payload: Started
    job_started_receipt_signature: str
    streaming_details: StreamingDetails | None = None
    executor_timing: Timing | None = None


class Job(_OfJob):
    message_type: Literal["V0JobRequest"] = "V0JobRequest"
    executor_class: ClassName
    docker_image: str
    raw_script: str | None = None
    docker_run_options_preset: Literal["nvidia_all", "none"]
    docker_run_cmd: list[str]
    env: dict[str, str] = {}
    volume: Volume | None = None
    output_upload: Upload | None = None
    artifacts_dir: str | None = None


class AcceptedReceipt(_Model):
    message_type: Literal["V0JobAcceptedReceiptRequest"] = "V0JobAcceptedReceiptRequest"
    payload: Accepted
    signature: str


class FinishedReceipt(_Model):
    message_type: Literal["V0JobFinishedReceiptRequest"] = "V0JobFinishedReceiptRequest"
    payload: Finished
    signature: str


OfMiner = (
    Manifest | AcceptJob | DeclineJob | JobFailed | HordeFailed | JobFinished | ExecutorReady
    | VolumesReady | StreamingReady | ExecutionDone | MachineSpecs | Unauthorized | GenericError
    | MainHotkey
)  # fmt: skip
OfExecutor = (
    ExecutorReady | VolumesReady | StreamingReady | ExecutionDone | JobFinished | JobFailed
    | HordeFailed | MachineSpecs | GenericError
)  # fmt: skip
OfValidator = (
    Login | InitialJob | Job | AcceptedReceipt | FinishedReceipt | MainHotkey | GenericError
)  # fmt: skip
Message = OfMiner | OfExecutor | OfValidator

_BY_TYPE: Final = Field(discriminator="message_type")
DIRECTIONS: Final[dict[str, TypeAdapter[Any]]] = {
    "miner_to_validator": TypeAdapter(Annotated[OfMiner, _BY_TYPE]),
    "executor_to_miner": TypeAdapter(Annotated[OfExecutor, _BY_TYPE]),
    "validator_to_miner": TypeAdapter(Annotated[OfValidator, _BY_TYPE]),
}


def read_message(direction: str, text: str | bytes) -> Message:
    """A message as the network reads it. Raises MalformedMessage."""
    try:
        message: Message = DIRECTIONS[direction].validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MalformedMessage(f"{direction}: {where}: {first['msg']}"[:300]) from None
    return message


def read_strictly(direction: str, text: str | bytes) -> Message:
    """The same, without what is not to be used: sizes, counts, URLs and paths are looked at.

    Raises MalformedMessage.
    """
    if len(text) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"{direction}: {len(text)} bytes; {MAX_MESSAGE_BYTES} are read")
    message = read_message(direction, text)
    if isinstance(message, Manifest):
        for name, count in message.manifest.items():
            if not 0 <= count <= MAX_EXECUTORS:
                raise MalformedMessage(f"{direction}: {str(count)[:20]} executors of {name}")
    for part in (getattr(message, "volume", None), getattr(message, "output_upload", None)):
        wrong = part and problem(part)
        if wrong:
            raise MalformedMessage(f"{direction}: {wrong}")
    return message
