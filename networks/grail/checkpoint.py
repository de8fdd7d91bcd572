"""Trainer checkpoints: where they lie, which one a window uses, what its metadata says.

Rules of grail-protocol §7 (generation parameters) and §9 (layout, selection, retention).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from windrow import WindrowError
from windrow.networks.grail.constants import MAX_COMPLETION_TOKENS, WINDOW_BLOCKS

CHECKPOINTS_PREFIX: Final = "grail/checkpoints/"
ANCHOR_BLOCKS: Final = 300
BOOTSTRAP_WINDOWS: Final = range(0, ANCHOR_BLOCKS, WINDOW_BLOCKS)
MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
MAX_MANIFEST_FILES: Final = 4096
THINKING_MODES: Final = ("native", "instructed")
POLICY_KEYS: Final = ("max_tokens", "temperature", "top_p", "top_k", "repetition_penalty")

Kind = Literal["FULL", "DELTA"]

_READY_KEY: Final = re.compile(r"[^/]+/[^/]+/checkpoint-([^/]{1,64})/READY-([^/]{1,64})")
_MOST: Final = 10**18
_FILE_NAME: Final = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9._+-]{0,99}/){0,3}[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WEIGHTS_HASH: Final = re.compile(r"[0-9a-f]{32}")


class MalformedMetadata(WindrowError):
    """A checkpoint's metadata.json cannot be used; nobody mines or validates its window."""


@dataclass(frozen=True)
class GenerationPolicy:
    """How completions are sampled, as published with the checkpoint (§7). top_k None: no limit."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int | None
    repetition_penalty: float

    @classmethod
    def parse(cls, params: object) -> "GenerationPolicy":
        """Read ``generation_params``; numbers in strings are accepted, extra keys ignored (§7).

        Raises MalformedMetadata for a missing key, a non-number or a value out of range.
        """
        if not isinstance(params, Mapping):
            raise MalformedMetadata(
                "generation_params is not an object; the trainer must republish"
            )
        max_tokens = _integer(params, "max_tokens", low=1)
        return cls(
            max_new_tokens=min(max_tokens, MAX_COMPLETION_TOKENS),
            temperature=_real(params, "temperature", 0.01, 2.0),
            top_p=_real(params, "top_p", 0.0, 1.0),
            top_k=_integer(params, "top_k", low=0, high=1000) or None,
            repetition_penalty=_real(params, "repetition_penalty", 1.0, 2.0),
        )


@dataclass(frozen=True)
class CheckpointMetadata:
    """The parts of metadata.json that Windrow acts on (§9.3).

    file_manifest: relative file name -> SHA-256 hex. prev_window, anchor_window: set for a DELTA.
    weights_hash: XXH3-128 hex of the weights, None where the trainer gave none.
    """

    window: int
    kind: Kind
    file_manifest: Mapping[str, str]
    prev_window: int | None
    anchor_window: int | None
    weights_hash: str | None
    model_name: str
    env_id: str
    env_params: Mapping[str, object]
    thinking_mode: str
    policy: GenerationPolicy
    document: Mapping[str, object] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: bytes | str) -> "CheckpointMetadata":
        """Read metadata.json. Raises MalformedMetadata with everything that is missing or wrong."""
        if len(text) > MAX_METADATA_BYTES:
            raise MalformedMetadata(
                f"metadata.json holds {len(text)} bytes, at most 4 MiB are read"
            )
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MalformedMetadata(f"metadata.json is not JSON: {error}") from error
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: object) -> "CheckpointMetadata":
        """Read metadata that is already parsed JSON. Raises MalformedMetadata."""
        if not isinstance(document, Mapping):
            raise MalformedMetadata("metadata.json is not an object")
        missing = missing_fields(document)
        if missing:
            raise MalformedMetadata(f"metadata.json lacks {', '.join(missing)}; skip its window")
        window = _window(document, "window")
        if window is None:
            raise MalformedMetadata("metadata.json names no window")
        env_params = document.get("env_params") or {}
        if not isinstance(env_params, Mapping):
            raise MalformedMetadata("metadata.json: env_params is not an object")
        weights_hash = _text(document, "weights_hash")
        if weights_hash and not _WEIGHTS_HASH.fullmatch(weights_hash):
            raise MalformedMetadata("metadata.json: weights_hash is not 32 hex digits")
        return cls(
            window=window,
            kind=_kind(document),
            file_manifest=MappingProxyType(_manifest(document)),
            prev_window=_window(document, "prev_window"),
            anchor_window=_window(document, "anchor_window"),
            weights_hash=weights_hash or None,
            model_name=_text(document, "model_name"),
            env_id=_text(document, "env_id"),
            env_params=MappingProxyType(dict(env_params)),
            thinking_mode=_text(document, "thinking_mode"),
            policy=GenerationPolicy.parse(document["generation_params"]),
            document=MappingProxyType(dict(document)),
        )


def missing_fields(document: Mapping[str, object]) -> list[str]:
    """What mining and validating a window needs and this metadata lacks, in protocol order (§7)."""
    missing = []
    if not document.get("env_id"):
        missing.append("env_id")
    mode = document.get("thinking_mode")
    if not mode:
        missing.append("thinking_mode")
    elif mode not in THINKING_MODES:
        missing.append(f"thinking_mode (invalid value {mode!r})")
    params = document.get("generation_params")
    if not params or not isinstance(params, Mapping):
        missing.append("generation_params")
    else:
        missing += [f"generation_params.{key}" for key in POLICY_KEYS if key not in params]
    return missing


def checkpoint_prefix(window: int) -> str:
    """Folder of one checkpoint, without a trailing slash (§9.1)."""
    return f"{CHECKPOINTS_PREFIX}checkpoint-{window}"


def kind_prefix(window: int, kind: Kind) -> str:
    """Folder of a checkpoint's FULL or DELTA files, without a trailing slash (§9.1)."""
    return f"{checkpoint_prefix(window)}/{kind}"


def metadata_key(window: int, kind: Kind) -> str:
    return f"{kind_prefix(window, kind)}/metadata.json"


def ready_key(window: int, ready_window: int) -> str:
    """Empty marker that a checkpoint became whole during ``ready_window`` (§9.1)."""
    return f"{checkpoint_prefix(window)}/READY-{ready_window}"


def select_ready(keys: Iterable[str], before_window: int) -> int | None:
    """The checkpoint a window uses: of those ready strictly before it, the latest ready (§9.2).

    Among equals the newer checkpoint wins. Keys of any other form are ignored.
    """
    ready = [
        (ready_window, window)
        for window, ready_window in filter(None, map(parse_ready_key, keys))
        if ready_window < before_window
    ]
    return max(ready)[1] if ready else None


def parse_ready_key(key: str) -> tuple[int, int] | None:
    """(checkpoint window, ready window) of a READY marker's key, or None for any other key."""
    match = _READY_KEY.fullmatch(key)
    if not match:
        return None
    window, ready = window_number(match[1]), window_number(match[2])
    return None if window is None or ready is None else (window, ready)


def window_number(text: str) -> int | None:
    """The number in the last part of a checkpoint's key, None where there is none (§9.2).

    The network reads it as Python's `int` does: a sign, blanks around it and single underscores
    between digits are read, and so are the digits of other scripts.
    """
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) < _MOST else None


def anchor_window(window: int) -> int:
    """The window at or before this one whose checkpoint is a FULL anchor (§9.1)."""
    return window // ANCHOR_BLOCKS * ANCHOR_BLOCKS


def retained_windows(current: int) -> list[int]:
    """Checkpoint windows to keep: the first ten, and from the previous anchor on (§9.4). Sorted."""
    first = max(0, anchor_window(current) - ANCHOR_BLOCKS)
    recent = range(first, current + WINDOW_BLOCKS, WINDOW_BLOCKS)
    return sorted({w for w in BOOTSTRAP_WINDOWS if w <= current}.union(recent))


def delta_dependencies(
    retained: Iterable[int], previous: Mapping[int, int], anchors: Mapping[int, int]
) -> set[int]:
    """Windows without which the retained deltas cannot be rebuilt (§9.4).

    previous: window -> the window its DELTA builds on. anchors: window -> the FULL its chain ends
    at; a window without one has no delta. Links that never reach the anchor end where they stop.
    """
    needed: set[int] = set()
    for window in retained:
        anchor = anchors.get(window)
        if anchor is None:
            continue
        chain = {anchor}
        link = previous.get(window)
        while link is not None and link not in chain:
            chain.add(link)
            link = previous.get(link)
        needed |= chain
    return needed


def _integer(params: Mapping[str, object], key: str, *, low: int, high: int | None = None) -> int:
    value = params.get(key)
    if not isinstance(value, int | float | str):
        raise MalformedMetadata(f"generation_params.{key} is {value!r:.80}, not a number")
    try:
        number = int(value)
    except (ValueError, OverflowError) as error:
        raise MalformedMetadata(f"generation_params.{key}: {value!r:.80} is no integer") from error
    if number < low or (high is not None and number > high):
        raise MalformedMetadata(f"generation_params.{key} is {number}, outside {low}..{high or ''}")
    return number


def _real(params: Mapping[str, object], key: str, low: float, high: float) -> float:
    value = params.get(key)
    if not isinstance(value, int | float | str):
        raise MalformedMetadata(f"generation_params.{key} is {value!r:.80}, not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise MalformedMetadata(f"generation_params.{key}: {value!r:.80} is no number") from error
    if not low <= number <= high:
        raise MalformedMetadata(f"generation_params.{key} is {number}, outside {low}..{high}")
    return number


def _window(document: Mapping[str, object], key: str) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise MalformedMetadata(f"metadata.json: {key} is {value!r:.80}, not a window")
    return value


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedMetadata(f"metadata.json: {key} is {value!r:.80}, not text")
    return value


def _kind(document: Mapping[str, object]) -> Kind:
    value = document.get("checkpoint_type", "FULL")
    if value == "FULL":
        return "FULL"
    if value == "DELTA":
        return "DELTA"
    raise MalformedMetadata(f"metadata.json: checkpoint_type is {value!r:.80}, not FULL or DELTA")


def _manifest(document: Mapping[str, object]) -> dict[str, str]:
    """The manifest's names become paths, so only plain relative ones pass (§13, W7)."""
    manifest = document.get("file_manifest")
    if not isinstance(manifest, Mapping) or len(manifest) > MAX_MANIFEST_FILES:
        raise MalformedMetadata("metadata.json: file_manifest is not an object of a sane size")
    for name, digest in manifest.items():
        if not _FILE_NAME.fullmatch(name):
            raise MalformedMetadata(
                f"metadata.json: {name!r:.80} is not a plain relative file name"
            )
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise MalformedMetadata(f"metadata.json: the SHA-256 of {name} is not 64 hex digits")
    return dict(manifest)
