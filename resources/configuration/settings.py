"""What a person can set: `WINDROW_*` variables, and those of the miner guide under their own names.

They come from the environment, and from a file `.env` in the working folder for what the
environment does not say.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from windrow import WindrowError
from windrow.resources.configuration import guide, values
from windrow.resources.configuration.env_file import read_env_file
from windrow.resources.configuration.grail_variables import REFUSED
from windrow.resources.configuration.network import NETWORK_SETTINGS
from windrow.resources.configuration.setting import PREFIX, Setting
from windrow.resources.configuration.work import WORK_SETTINGS
from windrow.resources.secret import Secret

SETTINGS = (*NETWORK_SETTINGS, *WORK_SETTINGS)

HIDDEN = "set (hidden)"


class SettingError(WindrowError):
    """A variable holds something Windrow cannot use, or names no setting."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value} cannot be used: {allowed}.")
        self.variable = variable
        self.value = value
        self.allowed = allowed


class SettingErrors(SettingError):
    """Several variables cannot be used. faults: each of them; the attributes are the first's."""

    def __init__(self, faults: Sequence[SettingError]) -> None:
        super().__init__(faults[0].variable, faults[0].value, faults[0].allowed)
        self.faults = tuple(faults)
        lines = "".join(f"\n  {fault}" for fault in faults)
        self.args = (f"{len(faults)} variables cannot be used:{lines}",)


class UnknownSetting(SettingError):
    """A variable that no setting has, most likely a typing mistake."""


@dataclass(frozen=True)
class SettingRow:
    """One line of `windrow doctor`.

    value: printable; a secret reads "set (hidden)".
    source: "environment", the guide's variable, or "default".
    used: False for a variable of the miner guide that changes nothing here.
    """

    name: str
    value: str
    source: str
    meaning: str
    used: bool = True


@dataclass(frozen=True)
class Settings:
    """Every setting, checked. `SETTINGS` says what each is and where it comes from.

    given: the variable each field was read from, where it is not the default.
    unused: variables of the guide that change nothing here, and why.
    """

    home: Path
    lake: Path
    cache: Path
    fleet: Path
    trusted_node: str | None
    node_models: Path | None
    job_bucket: str
    answer_bucket: str
    callback: tuple[str, ...]
    pod_image: str | None
    pod_namespace: str
    pod_gpu_resource: str | None
    pod_runtime_class: str | None
    pod_pull_secret: str | None
    pod_cpus: int
    pod_memory_gib: int
    pod_disk_gib: int

    chain: str
    chain_seed: str
    chain_clock: str
    chain_block_seconds: float
    chain_genesis: datetime
    network: str
    chain_endpoint: str | None
    netuid: int

    wallet: str
    wallet_uri: Secret
    wallet_cold: str
    wallet_hot: str
    wallet_path: Path

    bucket_account: str | None
    bucket: str
    bucket_endpoint: str | None
    bucket_region: str
    bucket_path_style: bool
    bucket_windows: int
    bucket_read_key_id: Secret | None
    bucket_read_secret: Secret | None
    bucket_write_key_id: Secret | None
    bucket_write_secret: Secret | None

    trainer_hotkey: str | None

    beacon: str
    drand_rounds: Path | None
    drand_relays: tuple[str, ...]
    drand_seconds: float

    generation: str
    generation_gpu: int | None
    tensor_parallel: int
    generation_servers: tuple[str, ...]
    generation_api_key: Secret | None
    generation_python: Path | None
    generation_port: int
    groups_per_batch: int
    max_concurrent: int
    max_sequences: int
    context_length: int
    gpu_memory: float
    disable_cuda_graph: bool
    server_timeout: float

    proof_ray: str | None
    proof_ray_gpu: bool
    proof_gpu: int | None
    proof_gpus: tuple[int, ...]
    proof_subprocess: bool
    proof_workers: int

    groups_in_flight: int
    reward_workers: int
    program_python: Path | None
    any_program_python: bool
    max_groups: int
    safety_blocks: int
    verify_submission: bool
    validation_workers: int
    evaluation_seconds: float
    calibration: bool
    set_weights: bool
    tasks: str

    tracker: str
    wandb_mode: str
    wandb_project: str
    wandb_entity: str | None
    wandb_api_key: Secret | None

    given: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of an environment; without one, this process's and its folder's `.env`.

        Raises SettingError for a value outside what is allowed and for settings that contradict
        each other, UnknownSetting for a variable of Windrow's or the guide's families that names
        no setting.
        """
        given = _surroundings() if environment is None else environment
        given = {name: text for name, text in given.items() if text or not guide.of_family(name)}
        faults = [*_unknown_ones(given)]
        found: dict[str, Any] = {"guide": guide.parts_asked_for(given)}
        sources: dict[str, str] = {}
        for setting in SETTINGS:
            try:
                found[setting.name] = _value(setting, given, found, sources)
            except SettingError as fault:
                faults.append(fault)
                found[setting.name] = _default(setting, found)
        del found["guide"]
        for name, (parse, _) in guide.WITHOUT_EFFECT.items():
            try:
                if given.get(name):
                    _parsed(name, given[name], parse)
            except SettingError as fault:
                faults.append(fault)
        if not faults:  # of values that stand in for wrong ones nothing can be said
            faults += _contradictions(found, sources)
        if faults:
            raise faults[0] if len(faults) == 1 else SettingErrors(faults)
        return cls(**found, given=sources, unused=guide.unused(SETTINGS, found, given))

    def describe(self) -> list[SettingRow]:
        """Every setting, then every variable of the guide that is set and changes nothing."""
        rows = []
        for setting in SETTINGS:
            source = self.given.get(setting.name, "default")
            rows.append(
                SettingRow(
                    setting.variable,
                    _shown(setting, getattr(self, setting.name)),
                    "environment" if source == setting.variable else source,
                    setting.meaning,
                )
            )
        return rows + [
            SettingRow(name, HIDDEN, "environment", f"not used: {reason}", used=False)
            for name, reason in sorted(self.unused.items())
        ]


def is_setting(name: str) -> bool:
    """Whether a variable's name is one that settings are read from, or is checked as one."""
    return name.startswith(PREFIX) or guide.of_family(name)


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a `.env` file; none where there is no file. Raises EnvFileError."""
    return read_env_file(path, is_setting)


def _surroundings() -> dict[str, str]:
    return {**read_env(Path.cwd() / ".env"), **os.environ}


def _unknown_ones(given: Mapping[str, str]) -> Iterator[UnknownSetting]:
    known = {setting.variable for setting in SETTINGS}
    guided = {name for setting in SETTINGS for name in setting.guide} | guide.WITHOUT_EFFECT.keys()
    for name in sorted(given):
        if name in REFUSED:
            instead = REFUSED[name]
            yield UnknownSetting(name, "…", f"an earlier release read it; set {instead} instead")
        elif name.startswith(PREFIX) and name not in known:
            yield _unknown(name, sorted(known), "`windrow doctor` lists Windrow's settings")
        elif guide.must_be_known(name) and name not in guided:
            yield _unknown(name, sorted(guided), "no release of the network reads it; remove it")


def _unknown(name: str, known: list[str], otherwise: str) -> UnknownSetting:
    close = _closest(name, known)
    hint = f"did you mean {close}?" if close else otherwise
    return UnknownSetting(name, "…", f"Windrow has no setting of this name; {hint}")


def _closest(name: str, known: list[str]) -> str | None:
    """Return the name that was probably meant; what a whole family begins with proves nothing."""
    families = (PREFIX, "GRAIL_PIPELINE_", *guide.FAMILIES)
    family = next((family for family in families if name.startswith(family)), "")
    own = {other.removeprefix(family): other for other in known if other.startswith(family)}
    close = difflib.get_close_matches(name.removeprefix(family), own, n=1, cutoff=_ALIKE)
    return own[close[0]] if close else None


_ALIKE = 0.8
"""A typing mistake or a word too much keeps this share of a name."""


def _contradictions(found: Mapping[str, Any], sources: Mapping[str, str]) -> list[SettingError]:
    by_name = {setting.name: setting for setting in SETTINGS}
    return [
        SettingError(
            sources.get(name, by_name[name].variable), _shown(by_name[name], found[name]), allowed
        )
        for name, allowed in guide.contradictions(found)
    ]


def _value(
    setting: Setting, given: Mapping[str, str], found: Mapping[str, Any], sources: dict[str, str]
) -> Any:
    """The setting's value; notes in sources which variable it is from."""
    read = [
        (name, _parsed(name, given[name], parse, hidden=setting.secret))
        for name, parse in setting.readers()
        if name in given
    ]
    if not read:
        return _default(setting, found)
    (first, value), *others = read
    for name, other in others:
        if other != value:
            raise SettingError(
                name, _shown(setting, other), f"{first} says otherwise; keep one of the two"
            )
    sources[setting.name] = first
    return value


def _default(setting: Setting, found: Mapping[str, Any]) -> Any:
    default = setting.default if isinstance(setting.default, str) else setting.default(found)
    return _parsed(setting.variable, default, setting.parse)


def _parsed(name: str, raw: str, parse: Any, *, hidden: bool = False) -> Any:
    try:
        return parse(raw)
    except ValueError as error:
        # A URL may carry a user and password.
        shown = "(hidden)" if hidden else repr(values.without_password(raw))
        raise SettingError(name, shown, str(error)) from None


def _shown(setting: Setting, value: object) -> str:
    return HIDDEN if setting.secret and value is not None else values.shown(value)
