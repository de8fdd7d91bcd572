"""The trust list a validator publishes after every window (grail-validation §16)."""

from collections.abc import Sequence
from typing import Final

TRUST_PREFIX: Final = "grail/trust/trust_list_"
TRUST_VERSION: Final = 1


def trust_list_key(window: int) -> str:
    return f"{TRUST_PREFIX}{window}.json"


def trust_list(
    *,
    window: int,
    timestamp: float,
    validator: str,
    active: Sequence[str],
    eligible: Sequence[str],
) -> dict[str, object]:
    """The list's content. timestamp: unix seconds. active: hotkeys with an upload; eligible:
    those of them that are not banned, whether checked or not."""
    return {
        "version": TRUST_VERSION,
        "window": window,
        "timestamp": timestamp,
        "validator_hotkey": validator,
        "eligible_hotkeys": list(eligible),
        "active_count": len(active),
        "excluded_failure_count": len(active) - len(eligible),
    }
