"""Settings: defaults that need no set-up, named errors, secrets that never show."""

import copy
import dataclasses
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest

from windrow.resources.configuration.settings import (
    HIDDEN,
    SETTINGS,
    SettingError,
    Settings,
    UnknownSetting,
)
from windrow.resources.secret import Secret

MNEMONIC = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


def test_an_empty_environment_makes_the_embedded_default() -> None:
    settings = Settings.read({})
    assert settings.home == Path(".windrow").absolute()
    assert settings.bucket == str(settings.home / "bucket")
    assert settings.lake == settings.home / "lake"
    assert settings.wallet_uri.reveal() == "//Windrow"
    assert settings.chain_genesis == datetime(2024, 1, 1, tzinfo=UTC)
    assert (settings.chain_clock, settings.beacon, settings.tasks) == (
        "wall",
        "block_hash",
        "shipped",
    )
    assert settings.generation_gpu is None
    assert settings.max_groups * 16 <= 5000


def test_the_process_environment_is_the_default_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDROW_SAFETY_BLOCKS", "7")
    assert Settings.read().safety_blocks == 7


def test_folders_follow_the_home_folder_unless_set(tmp_path: Path) -> None:
    settings = Settings.read({"WINDROW_HOME": str(tmp_path), "WINDROW_LAKE": "/data/lake"})
    assert settings.bucket == f"{tmp_path}/bucket"
    assert settings.lake == Path("/data/lake")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WINDROW_HOME", ""),
        ("WINDROW_HOME", "a\nb"),
        ("WINDROW_HOME", "~nobody-of-this-name/x"),
        ("WINDROW_BUCKET", "s3://bucket/prefix"),
        ("WINDROW_BUCKET", "file://elsewhere/folder"),
        ("WINDROW_CHAIN_CLOCK", "fast"),
        ("WINDROW_CHAIN_BLOCK_SECONDS", "0"),
        ("WINDROW_CHAIN_BLOCK_SECONDS", "nan"),
        ("WINDROW_CHAIN_BLOCK_SECONDS", "twelve"),
        ("WINDROW_CHAIN_GENESIS", "2024-01-01T00:00:00"),
        ("WINDROW_CHAIN_GENESIS", "yesterday"),
        ("WINDROW_SAFETY_BLOCKS", "30"),
        ("WINDROW_SAFETY_BLOCKS", "-1"),
        ("WINDROW_MAX_GROUPS", "1_0"),
        ("WINDROW_MAX_GROUPS", "٣"),
        ("WINDROW_PROOF_GPU", "cuda:0"),
        ("WINDROW_WALLET_URI", " "),
        ("WINDROW_WALLET_HOT", "../../etc/passwd"),
        ("WINDROW_CHAIN_ENDPOINT", "https://node"),
        ("WINDROW_DRAND_RELAYS", "https://a,https://a"),
        ("WINDROW_GENERATION_SERVERS", "http://user:hunter2@host"),
        ("WINDROW_GPU_MEMORY", "1.5"),
        ("WINDROW_SET_WEIGHTS", "maybe"),
        ("WINDROW_CALLBACK", "https://203.0.113.9:8791"),
        ("WINDROW_CALLBACK", "http://203.0.113.9"),
        ("WINDROW_CALLBACK", "http://203.0.113.9:8791/path"),
        ("WINDROW_CALLBACK", "http://user@203.0.113.9:8791"),
        ("WINDROW_CALLBACK", "http://203.0.113.9:87910"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.read({name: value})
    assert caught.value.variable == name
    assert name in str(caught.value)
    assert caught.value.allowed in str(caught.value)


def test_good_values_are_read() -> None:
    settings = Settings.read(
        {
            "WINDROW_BUCKET": "file:///srv/my%20bucket",
            "WINDROW_PROOF_GPU": "1",
            "WINDROW_CHAIN_GENESIS": "2023-08-23T17:39:24+02:00",
            "WINDROW_BEACON": "recorded_drand",
            "WINDROW_DRAND_ROUNDS": "/rounds.json",
            "WINDROW_CALLBACK": "http://203.0.113.9:8791/, http://windrow.example:8792",
        }
    )
    assert settings.callback == ("http://203.0.113.9:8791", "http://windrow.example:8792")
    assert settings.bucket == "/srv/my bucket"
    assert settings.proof_gpu == 1
    assert settings.chain_genesis == datetime(2023, 8, 23, 15, 39, 24, tzinfo=UTC)
    assert settings.drand_rounds == Path("/rounds.json")


def test_recorded_drand_needs_its_rounds() -> None:
    with pytest.raises(SettingError, match="WINDROW_DRAND_ROUNDS"):
        Settings.read({"WINDROW_BEACON": "recorded_drand"})


def test_a_typing_mistake_gets_the_closest_name() -> None:
    with pytest.raises(UnknownSetting, match="did you mean WINDROW_SAFETY_BLOCKS"):
        Settings.read({"WINDROW_SAFTEY_BLOCK": "3"})


def test_a_strange_name_is_sent_to_the_list() -> None:
    with pytest.raises(UnknownSetting, match="`windrow doctor` lists") as caught:
        Settings.read({"WINDROW_ZZZZZZZZZZZZZZZZZZZZ": "secret-value"})
    assert "secret-value" not in str(caught.value)


def test_the_value_of_an_unknown_variable_is_not_shown() -> None:
    with pytest.raises(UnknownSetting) as caught:
        Settings.read({"WINDROW_S3_SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(SettingError) as caught:
        Settings.read({"WINDROW_BUCKET": "s3://key:hunter2@bucket/x"})
    assert "hunter2" not in str(caught.value)


def test_a_secret_is_in_no_text_form_of_the_settings() -> None:
    settings = Settings.read({"WINDROW_WALLET_URI": MNEMONIC})
    texts = [repr(settings), str(settings), f"{settings.wallet_uri:>20}", repr(settings.describe())]
    texts.append(str(dataclasses.asdict(settings)))
    texts.append(repr(copy.deepcopy(settings)))
    assert not any("curtain" in text for text in texts)
    assert dataclasses.asdict(settings)["wallet_uri"].reveal() == MNEMONIC
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(settings, protocol)


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_describe_says_where_each_value_is_from() -> None:
    rows = {row.name: row for row in Settings.read({"WINDROW_SAFETY_BLOCKS": "5"}).describe()}
    assert rows["WINDROW_SAFETY_BLOCKS"].value == "5"
    assert rows["WINDROW_SAFETY_BLOCKS"].source == "environment"
    assert rows["WINDROW_CHAIN_CLOCK"].source == "default"
    assert rows["WINDROW_WALLET_URI"].value == HIDDEN
    assert all(row.meaning and row.used for row in rows.values())


def test_the_table_and_the_fields_agree() -> None:
    names = [field.name for field in dataclasses.fields(Settings)]
    assert names == [*(setting.name for setting in SETTINGS), "given", "unused"]


def test_a_file_in_the_working_folder_says_what_the_environment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "WINDROW_SAFETY_BLOCKS=5   # blocks\nexport WINDROW_MAX_GROUPS='9'\n"
        'WINDROW_CHAIN_SEED="$(touch made)"\nNOT_OURS\nR2_ACCOUNT_ID=\n'
    )
    monkeypatch.setenv("WINDROW_MAX_GROUPS", "11")
    settings = Settings.read()
    assert (settings.safety_blocks, settings.max_groups) == (5, 11)
    assert settings.chain_seed == "$(touch made)"
    assert not (tmp_path / "made").exists()
    assert "WINDROW_SAFETY_BLOCKS" not in os.environ
    assert Settings.read({}).safety_blocks == 3


URLS = [
    f"{scheme}://{rest}"
    for scheme in ("https", "wss", "ray", "s3", "file")
    for rest in (
        "user:s3cr3t-word@db.example:5432/x",
        "s3cr3t-word@db.example",
        "user:s3cr3t-word@[::1]:80",
        "user:a@s3cr3t-word@host/x",
    )
]


@pytest.mark.parametrize("variable", sorted({n for s in SETTINGS for n, _ in s.readers()}))
def test_no_setting_shows_the_password_of_a_url(variable: str) -> None:
    for url in URLS:
        said = []
        try:
            said += [row.value for row in Settings.read({variable: url}).describe()]
        except SettingError as error:
            said.append(str(error))
        assert not any("s3cr3t-word" in text for text in said)
