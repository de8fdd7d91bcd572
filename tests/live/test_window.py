"""A window with every live part that runs on a plain machine, from the command line.

Rollouts by SGLang's own server, proofs by two worker processes, the file in a real S3 server, and
`windrow verify` reading it back from there with the network's rules and ours.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.radosgw import KEY_ID, READ_KEY_ID, READ_SECRET, SECRET, make_bucket
from tests.support.real_sglang import PYTHON, free_port, missing

pytestmark = pytest.mark.live

WINDOW = 5_000_040
BIN = Path(sys.executable).parent
BUCKET = "live-window"


@pytest.fixture
def environment(tmp_path: Path, radosgw: str) -> Iterator[Mapping[str, str]]:
    if missing():
        pytest.skip(f"not installed: {missing()}")
    make_bucket(BUCKET, radosgw, read_by="reader")
    given = {
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "WINDROW_HOME": str(tmp_path / "home"),
        "WINDROW_LAKE": str(tmp_path / "home/lake"),
        "WINDROW_CACHE": str(tmp_path / "home/cache"),
        "WINDROW_CHAIN_CLOCK": "stepped",
        "WINDROW_BUCKET": f"s3://{BUCKET}",
        "WINDROW_BUCKET_ENDPOINT": radosgw,
        "WINDROW_BUCKET_WRITE_KEY_ID": KEY_ID,
        "WINDROW_BUCKET_WRITE_SECRET": SECRET,
        "WINDROW_BUCKET_READ_KEY_ID": READ_KEY_ID,
        "WINDROW_BUCKET_READ_SECRET": READ_SECRET,
        "WINDROW_GENERATION": "sglang",
        "WINDROW_GENERATION_PYTHON": str(PYTHON),
        "WINDROW_GENERATION_GPU": "none",
        "WINDROW_PROOF_GPU": "none",
        "WINDROW_GENERATION_PORT": str(free_port()),
        "WINDROW_GPU_MEMORY": "0.1",
        "WINDROW_CONTEXT_LENGTH": "512",
        "WINDROW_PROOF_SUBPROCESS": "yes",
        "WINDROW_PROOF_WORKERS": "2",
        "WINDROW_GROUPS_IN_FLIGHT": "4",
        "WINDROW_MAX_GROUPS": "4",
    }
    (tmp_path / "dagster").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WINDROW_")}
    yield kept | given
    subprocess.run([BIN / "windrow", "stop"], env=kept | given, check=False)


def run(environment: Mapping[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=600, check=False
    )


def test_a_window_is_mined_live_and_verified_from_the_bucket(
    environment: Mapping[str, str],
) -> None:
    mined = run(
        environment,
        BIN / "dagster",
        *("asset", "materialize", "-m", "windrow.pipelines.definitions"),
        *("--select", "*upload", "--partition", str(WINDOW)),
    )
    assert mined.returncode == 0, mined.stdout[-4000:] + mined.stderr[-4000:]
    assert SECRET not in mined.stdout + mined.stderr

    asked = run(environment, BIN / "windrow", "sql", "--json", "SELECT * FROM uploads")
    [upload] = json.loads(asked.stdout)
    assert upload["window_start"] == WINDOW

    queried = run(
        environment,
        BIN / "windrow",
        *("sql", "--json", "SELECT DISTINCT device FROM proofs"),
    )
    assert [row["device"] for row in json.loads(queried.stdout)] == ["cpu"]

    workers = run(environment, BIN / "windrow", "stop")
    assert workers.stdout.count("ended") == 3, workers.stdout + workers.stderr

    access = {
        "AWS_ACCESS_KEY_ID": READ_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": READ_SECRET,
        "AWS_ENDPOINT_URL": environment["WINDROW_BUCKET_ENDPOINT"],
    }
    url = f"s3://{BUCKET}/{upload['key']}"
    verified = run(dict(environment) | access, BIN / "windrow", "verify", url, "--json")
    assert verified.returncode == 0, verified.stdout[-4000:] + verified.stderr[-4000:]
    [file] = json.loads(verified.stdout)["files"]
    assert file["network_verdict"] == "accepted"
    assert file["windrow_verdict"] == "accepted"
    assert file["failures"] == []
    assert file["metrics"]["total"] == 64
    assert file["metrics"]["valid"] == file["metrics"]["checked"] > 0
