"""What a person can set, read from `WINDROW_*` environment variables and nothing else.

Every default belongs to the embedded set-up: no account, no GPU, no network.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self, get_type_hints

from windrow import WindrowError
from windrow.networks.grail.constants import (
    MAX_UNIQUE_ROLLOUTS,
    ROLLOUTS_PER_GROUP,
    WINDOW_BLOCKS,
)
from windrow.resources import setting_values as values
from windrow.resources.secret import Secret

PREFIX = "WINDROW_"

# Variables of a Grail miner's own `.env`; the embedded default has no use for any of them.
GUIDE_PREFIXES = ("BT_", "R2_", "GRAIL_", "WANDB_")
GUIDE_NAMES = frozenset({"NETUID"})

HIDDEN = "set (hidden)"


class SettingError(WindrowError):
    """An environment variable holds something Windrow cannot use, or names no setting."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value} cannot be used: {allowed}.")
        self.variable = variable
        self.value = value
        self.allowed = allowed


class UnknownSetting(SettingError):
    """A `WINDROW_*` variable that no setting has, most likely a typing mistake."""


@dataclass(frozen=True)
class SettingRow:
    """One line of `windrow doctor`.

    value: printable; a secret reads "set (hidden)".
    source: "environment" or "default".
    used: False for a miner's-guide variable the embedded default does not use.
    """

    name: str
    value: str
    source: str
    meaning: str
    used: bool = True


@dataclass(frozen=True)
class Setting:
    """How a field of `Settings` is read; `{home}` in the default is the home folder."""

    parse: Callable[[str], object]
    default: str
    meaning: str
    secret: bool = False


@dataclass(frozen=True)
class Settings:
    """Every setting, checked. Field `x` is read from the variable `WINDROW_X`."""

    home: Annotated[
        Path,
        Setting(values.folder, ".windrow", "folder of everything Windrow keeps"),
    ]
    bucket: Annotated[
        str,
        Setting(values.bucket, "{home}/bucket", "object store: a folder or file:// URL"),
    ]
    lake: Annotated[
        Path,
        Setting(values.folder, "{home}/lake", "folder of the Parquet lake and catalogue"),
    ]
    cache: Annotated[
        Path,
        Setting(values.folder, "{home}/cache", "folder of downloaded checkpoints"),
    ]

    chain_seed: Annotated[
        str,
        Setting(values.text, "windrow", "seed of the development chain's block hashes"),
    ]
    chain_clock: Annotated[
        str,
        Setting(
            values.one_of("wall", "stepped"),
            "wall",
            "development chain: real time, or moved by hand",
        ),
    ]
    chain_block_seconds: Annotated[
        float,
        Setting(values.seconds, "12", "development chain: seconds between blocks"),
    ]
    chain_genesis: Annotated[
        datetime,
        Setting(values.instant, "2024-01-01T00:00:00Z", "development chain: time of block 0"),
    ]

    beacon: Annotated[
        str,
        Setting(
            values.one_of("block_hash", "recorded_drand"),
            "block_hash",
            "window randomness: the block hash alone, or mixed with recorded drand rounds",
        ),
    ]
    drand_rounds: Annotated[
        Path | None,
        Setting(values.optional(values.folder), "none", "JSON file of recorded drand rounds"),
    ]

    wallet_uri: Annotated[
        Secret,
        Setting(values.secret, "//Windrow", "development key that signs rollouts", secret=True),
    ]

    generation_gpu: Annotated[
        int | None,
        Setting(
            values.optional(values.whole(0, 99)), "none", "GPU that generates; none is the CPU"
        ),
    ]
    proof_gpu: Annotated[
        int | None,
        Setting(values.optional(values.whole(0, 99)), "none", "GPU that proves; none is the CPU"),
    ]
    groups_in_flight: Annotated[
        int,
        Setting(values.whole(1, 1024), "2", "groups generated ahead of their proofs"),
    ]
    reward_workers: Annotated[
        int,
        Setting(values.whole(1, 256), "2", "sandboxed processes that evaluate completions"),
    ]

    # More than the cap earns nothing: 5000 unique rollouts a window (grail-protocol §1).
    max_groups: Annotated[
        int,
        Setting(
            values.whole(1, 100_000),
            "8",
            "most groups of 16 mined in one window; a live miner raises it, to "
            f"{MAX_UNIQUE_ROLLOUTS // ROLLOUTS_PER_GROUP} at most: what is beyond earns nothing",
        ),
    ]
    safety_blocks: Annotated[
        int,
        Setting(
            values.whole(0, WINDOW_BLOCKS - 1), "3", "blocks kept free before the window closes"
        ),
    ]
    verify_submission: Annotated[
        bool,
        Setting(
            values.yes_or_no,
            "no",
            "whether a window file is put to the full verifier, model included, before its upload",
        ),
    ]
    validation_workers: Annotated[
        int,
        Setting(values.whole(1, 64), "2", "files validated at a time, at most 1.5 GiB each"),
    ]
    evaluation_seconds: Annotated[
        float,
        Setting(
            values.seconds, "120", "time to evaluate one miner's completions; others are refused"
        ),
    ]
    set_weights: Annotated[
        bool,
        Setting(values.yes_or_no, "no", "whether a validator's weights are sent to the chain"),
    ]
    tasks: Annotated[
        str,
        Setting(
            values.one_of("shipped", "hub"),
            "shipped",
            "tasks: shipped with Windrow, or a hub dataset",
        ),
    ]

    from_environment: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of an environment (default: this process's).

        Raises SettingError for a value outside what is allowed, UnknownSetting for a variable
        that starts with `WINDROW_` and names no setting.
        """
        environment = os.environ if environment is None else environment
        settings = _settings()
        known = {PREFIX + field.upper() for field in settings}
        for name in sorted(environment):
            if name.startswith(PREFIX) and name not in known:
                raise _unknown(name, sorted(known))

        found: dict[str, Any] = {}
        for field, setting in settings.items():
            name = PREFIX + field.upper()
            home = str(found.get("home", ""))
            raw = environment.get(name, setting.default.replace("{home}", home))
            try:
                found[field] = setting.parse(raw)
            except ValueError as error:
                raise SettingError(name, _printable(raw, setting), str(error)) from None

        if found["beacon"] == "recorded_drand" and found["drand_rounds"] is None:
            raise SettingError(
                "WINDROW_DRAND_ROUNDS",
                "'none'",
                "WINDROW_BEACON=recorded_drand needs the path of a JSON file of drand rounds here",
            )
        return cls(
            **found,
            from_environment=frozenset(known & environment.keys()),
            unused=tuple(sorted(n for n in environment if _of_the_guide(n) and environment[n])),
        )

    def describe(self) -> list[SettingRow]:
        """Every setting, then every variable of a miner's guide that is set but not used."""
        rows = []
        for field, setting in _settings().items():
            name = PREFIX + field.upper()
            value = HIDDEN if setting.secret else values.shown(getattr(self, field))
            source = "environment" if name in self.from_environment else "default"
            rows.append(SettingRow(name, value, source, setting.meaning))
        return rows + [
            SettingRow(name, HIDDEN, "environment", "not used by the embedded default", used=False)
            for name in self.unused
        ]


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    return {
        field: hint.__metadata__[0]
        for field, hint in hints.items()
        if hasattr(hint, "__metadata__")
    }


def _printable(raw: str, setting: Setting) -> str:
    # A URL may carry a user and password.
    return "(hidden)" if setting.secret else repr(re.sub(r"//[^/]*@", "//(hidden)@", raw))


def _of_the_guide(name: str) -> bool:
    return name in GUIDE_NAMES or name.startswith(GUIDE_PREFIXES)


def _unknown(name: str, known: list[str]) -> UnknownSetting:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"
    return UnknownSetting(name, "…", f"no setting has this name; {hint}")
