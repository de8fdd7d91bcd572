"""Who a connection belongs to, and the other texts that are signed on one (§3.1, §3.2, §4.1)."""

from typing import Final

from bittensor_core import Keypair
from pydantic import BaseModel, ConfigDict

from windrow import WindrowError
from windrow.networks.compute_horde.signing import bytes_signed_by, network_signed_by, signed_by

MAX_AGE_SECONDS: Final = 10


class MalformedKey(WindrowError):
    """A public key that is not 32 bytes in hex."""


class ValidatorLogin(BaseModel):
    """A validator's first message to a miner. timestamp: whole seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    validator_hotkey: str
    miner_hotkey: str
    timestamp: int
    signature: str

    def text(self) -> str:
        """What is signed."""
        return f"{self.validator_hotkey}:{self.miner_hotkey}:{self.timestamp}"


def network_login(
    login: ValidatorLogin, own_hotkey: str, connected_hotkey: str, now: float
) -> tuple[bool, str]:
    """Whether a miner lets a validator in, and why not, in the network's words.

    A time in the future passes. Raises MalformedSignature, as the network does.
    """
    refusal = _refusal(login, own_hotkey, connected_hotkey, now)
    if not refusal and not network_signed_by(login.validator_hotkey, login.text(), login.signature):
        refusal = "Signature mismatches"
    return not refusal, refusal


def strict_login(
    login: ValidatorLogin, own_hotkey: str, connected_hotkey: str, now: float
) -> tuple[bool, str]:
    """The same; neither the future nor a signature that cannot be read lets anyone in."""
    refusal = _refusal(login, own_hotkey, connected_hotkey, now)
    if not refusal and login.timestamp > now + MAX_AGE_SECONDS:
        refusal = "msg from the future"
    if not refusal and not signed_by(login.validator_hotkey, login.text(), login.signature):
        refusal = "Signature mismatches"
    return not refusal, refusal


def _refusal(login: ValidatorLogin, own: str, connected: str, now: float) -> str:
    if login.timestamp < now - MAX_AGE_SECONDS:
        return "msg too old"
    if login.miner_hotkey != own:
        return f"wrong miner hotkey ({own}!={login.miner_hotkey})"
    if login.validator_hotkey != connected:
        return f"wrong validator hotkey ({connected}!={login.validator_hotkey})"
    return ""


def facilitator_address(public_key: str) -> str:
    """SS58 address, prefix 42, of a public key in hex. Raises MalformedKey."""
    try:
        return str(Keypair(public_key=bytes.fromhex(public_key)).ss58_address)
    except ValueError as error:
        raise MalformedKey(f"{public_key[:80]!r} is no public key: {error}") from None


def facilitator_login(public_key: str, signature: str) -> bool:
    """Whether a validator's login at the facilitator passes: its key signed its own bytes.

    Nothing in it changes from one login to the next, so whoever saw one can repeat it (§14.9).
    """
    try:
        address, message = facilitator_address(public_key), bytes.fromhex(public_key)
    except MalformedKey:
        return False
    return bytes_signed_by(address, message, signature)


def streaming_ready_text(job_uuid: str, ip: str | None, port: int, public_key: str) -> str:
    """What a miner signs when a streaming job is ready; None is written as such (§4.1)."""
    return f"{job_uuid}:{ip}:{port}:{public_key}"
