"""A miner's own `.env`: every variable that a release of the network has read has its answer."""

import random
import string

import pytest

from tests.resources.test_guide_settings import MINER
from windrow.resources.configuration import guide
from windrow.resources.configuration.grail_variables import IGNORED, OTHERS, REFUSED
from windrow.resources.configuration.settings import (
    SETTINGS,
    SettingErrors,
    Settings,
    UnknownSetting,
    _closest,
)

TEMPLATE = {
    "NETUID": "81",
    "BT_WALLET_COLD": "mine",
    "BT_WALLET_HOT": "default",
    "R2_ACCOUNT_ID": "00000000000000000000000000000001",
    "R2_BUCKET_ID": "00000000000000000000000000000001",
    "R2_WRITE_ACCESS_KEY_ID": "w",
    "R2_WRITE_SECRET_ACCESS_KEY": "w2",
    "R2_READ_ACCESS_KEY_ID": "r",
    "R2_READ_SECRET_ACCESS_KEY": "r2",
    "GRAIL_LOG_FILE": "/var/log/grail.log",
    "GRAIL_LOG_MAX_SIZE": "50MB",
    "GRAIL_METRIC_BUFFER_SIZE": "50",
    "GRAIL_THINKING_MODE": "instructed",
    "GRAIL_ENV_ID": "mbpp",
    "GRAIL_GEN_MAX_TOKENS": "2048",
    "GRAIL_GPU_EVAL": "false",
    "GRAIL_VALIDATOR_GPU_IDS": "0",
    "GRAIL_TRAINER_LR": "1e-6",
}
HONOURED = {name for setting in SETTINGS for name in setting.guide}


def test_a_filled_in_template_is_taken_as_it_is() -> None:
    settings = Settings.read(TEMPLATE)
    assert (settings.chain, settings.wallet_cold) == ("bittensor", "mine")
    assert settings.unused.keys() == {name for name in TEMPLATE if name.startswith("GRAIL_")}
    assert all(reason for reason in settings.unused.values())


def test_each_variable_has_one_answer() -> None:
    answers = [HONOURED, set(guide.WITHOUT_EFFECT), set(IGNORED), set(REFUSED), set(OTHERS)]
    assert sum(map(len, answers)) == len(set.union(*answers)) > 270


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_an_ignored_variable_stops_nothing_and_is_listed(name: str) -> None:
    settings = Settings.read({name: "anything at all"})
    assert settings.chain == "development"
    assert settings.unused[name] == IGNORED[name]
    assert name in {row.name for row in settings.describe() if not row.used}
    assert name not in Settings.read({name: ""}).unused


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_name_of_an_earlier_release_is_refused_with_todays(name: str) -> None:
    with pytest.raises(UnknownSetting, match=f"set {REFUSED[name]} instead") as caught:
        Settings.read(MINER | {name: "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert REFUSED[name] in HONOURED | {setting.variable for setting in SETTINGS}


def test_all_faults_are_named_at_once() -> None:
    wrong = {
        "GRAIL_NETUID": "81",
        "GRAIL_WALLET_NAME": "x",
        "BT_NETWORK": "mainnet",
        "WINDROW_MAX_GROUPS": "many",
        "WINDROW_MAX_GRUOPS": "3",
        "GRAIL_WINDOW_LENGTH": "60",
    }
    with pytest.raises(SettingErrors) as caught:
        Settings.read(wrong)
    assert {fault.variable for fault in caught.value.faults} == wrong.keys()
    assert all(name in str(caught.value) for name in wrong)


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(SettingErrors, match="2 variables cannot be used"):
        Settings.read({"WINDROW_BEACON": "recorded_drand", "BT_NETWORK": "custom",
                       "WINDROW_CHAIN": "development", "WINDROW_WALLET": "development",
                       "WINDROW_BUCKET": "/x"})  # fmt: skip


def test_a_local_node_is_a_network() -> None:
    local = {"BT_NETWORK": "local", "WINDROW_WALLET": "development"}
    assert Settings.read(MINER | local).network == "local"


def test_a_hint_is_never_an_unrelated_name() -> None:
    known = sorted(HONOURED | {setting.variable for setting in SETTINGS})
    for name in filter(guide.of_family, IGNORED):
        if close := _closest(name, known):
            assert close.removesuffix("S") == name.removesuffix("S"), (name, close)
    letters = random.Random(0)
    for family in ("GRAIL_", "GRAIL_PIPELINE_", "BT_", "R2_", "WINDROW_"):
        for _ in range(200):
            tail = "".join(letters.choices(string.ascii_uppercase, k=letters.randint(4, 24)))
            assert _closest(family + tail, known) is None


@pytest.mark.parametrize("name", sorted(HONOURED))
def test_a_typing_mistake_is_recognised(name: str) -> None:
    middle = len(name) - 2
    known = sorted(HONOURED)
    mistyped = name[:middle] + name[middle + 1] + name[middle]
    if len(name.split("_", 1)[-1]) > 5 and mistyped not in known:
        assert _closest(mistyped, known) == name
