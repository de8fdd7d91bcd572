"""Gonka: nodes that are registered, by the API's rules and by ours."""

import pytest

from windrow.networks.gonka.registration import (
    UndecodableBody,
    decoded,
    network_findings_2026,
    network_status_2025,
)
from windrow.networks.gonka.strict_registration import inventory_findings, strict_findings

GOOD = {
    "id": "n1",
    "host": "10.0.0.1",
    "inference_port": 5050,
    "poc_port": 8080,
    "max_concurrent": 500,
    "models": {"m": {"args": ["--tensor-parallel-size", "4"]}},
    "hardware": [{"type": "A100", "count": 8}],
}


def test_null_is_nothing_to_the_api() -> None:
    assert decoded(None)["models"] == {}
    assert network_status_2025(dict.fromkeys(GOOD), ["m"]) == 200
    assert network_findings_2026(GOOD | {"models": None}, ["m"], []) == {"MODELS_REQUIRED"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"poc_port": True},
        {"poc_port": 8080.0},
        {"hardware": [{"type": "A100", "count": 2**32}]},
        {"models": {"m": []}},
        {"models": {"m": {"args": [1]}}},
        {"host": 7},
    ],
)
def test_a_body_the_api_cannot_read(wrong: dict[str, object]) -> None:
    with pytest.raises(UndecodableBody):
        decoded(GOOD | wrong)
    assert strict_findings(GOOD | wrong, ["m"]).errors or "hardware" in wrong


@pytest.mark.parametrize(
    ("args", "errors", "warnings"),
    [
        (["-tp", "8"], set(), set()),
        (["-tp", "2", "--pipeline-parallel-size=3"], set(), {"ARGS_EQUALS_FORM", "GPUS_LEFT_IDLE"}),
        (["-tp", "16"], {"PARALLELISM_EXCEEDS_GPUS"}, set()),
        (["-tp", "0"], {"PARALLELISM_VALUE"}, set()),
        (["--tensor-parallel-size"], {"PARALLELISM_VALUE"}, set()),
        (["-tp", "9" * 5000], {"PARALLELISM_VALUE"}, set()),
        ("", {"ARGS_TYPE"}, set()),
        (None, set(), set()),
        (["-tp", "16", "-tp", "4"], {"ARGS_DUPLICATE_FLAG"}, set()),
        (["--model=x"], {"ARGS_RESERVED_FLAG"}, {"ARGS_EQUALS_FORM"}),
    ],
)
def test_arguments(args: object, errors: set[str], warnings: set[str]) -> None:
    found = strict_findings(GOOD | {"models": {"m": {"args": args}}}, ["m"])
    assert (found.errors, found.warnings) == (errors, warnings)


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("::1", "HOST_FORMAT"),
        ("-a", "HOST_FORMAT"),
        ("a:1", "HOST_HAS_PORT"),
        (" ", "HOST_REQUIRED"),
    ],
)
def test_hosts(host: str, code: str) -> None:
    assert strict_findings(GOOD | {"host": host}, ["m"]).errors == {code}


def test_nodes_of_one_inventory_are_held_against_each_other() -> None:
    second = GOOD | {"id": "n2", "poc_port": 8081}
    first, found, again = inventory_findings([GOOD, second, GOOD | {"host": "10.0.0.9"}])
    assert first.errors == set()
    assert found.errors == {"DUPLICATE_INFERENCE_ENDPOINT"}
    assert again.errors == {"ID_DUPLICATE"}
    assert inventory_findings(["n1"])[0].errors == {"BODY_NOT_OBJECT"}


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("override", "args", "codes"),
    [
        ({"hf_repo": "a/b", "hf_commit": COMMIT}, [], set()),
        ({"HF_Repo": "a/b", "Hf_Commit": COMMIT}, [], set()),
        ({"hf_repo": "a/b", "hf_commit": COMMIT, "unknown": 1}, ["--x"], set()),
        (None, ["--revision", "main"], set()),
        ({"hf_repo": "a/b", "hf_commit": COMMIT.upper()}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT[:-1] + "F"}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT[:-1]}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT + "0"}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT + "\n"}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": "g" * 40}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": "\u0661" * 40}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": "main"}, [], {"OVERRIDE_COMMIT_FORMAT"}),
        ({"hf_repo": "a/b", "hf_commit": ""}, [], {"OVERRIDE_COMMIT_REQUIRED"}),
        ({"hf_repo": "a/b", "hf_commit": None}, [], {"OVERRIDE_COMMIT_REQUIRED"}),
        ({"hf_commit": COMMIT}, [], {"OVERRIDE_REPO_REQUIRED"}),
        ({}, [], {"OVERRIDE_REPO_REQUIRED", "OVERRIDE_COMMIT_REQUIRED"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT}, ["--revision"], {"OVERRIDE_RESERVED_ARG"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT}, ["--model=x"], {"OVERRIDE_RESERVED_ARG"}),
        ({"hf_repo": "a/b", "hf_commit": COMMIT}, ["--models=x"], set()),
        ({"hf_repo": 1, "hf_commit": COMMIT}, [], {"BAD_BODY"}),
        ({"hf_repo": "a/b", "hf_commit": 7}, [], {"BAD_BODY"}),
        ([], [], {"BAD_BODY"}),
        ("a/b", [], {"BAD_BODY"}),
    ],
)
def test_an_override_names_a_repository_and_a_whole_commit(
    override: object, args: list[str], codes: set[str]
) -> None:
    body = GOOD | {"models": {"m": {"args": args, "model_override": override}}}
    assert network_findings_2026(body, ["m"], []) == codes
    # The API of 2025 does not know overrides: an unknown key is not looked at.
    assert network_status_2025(body, ["m"]) == 200
