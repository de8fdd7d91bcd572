"""What tests of several folders share: S3 servers, and a proxy before them that fails when told.

Nothing an operator has set reaches a test, so that none touches a wallet, a bucket or a chain.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from tests.support.flaky_proxy import FlakyProxy, flaky_proxy
from tests.support.radosgw import (
    KEY_ID,
    READ_KEY_ID,
    READ_SECRET,
    SECRET,
    make_bucket,
    missing,
    s3_server,
)
from tests.support.small_s3 import small_s3
from windrow.resources.configuration.guide import of_family
from windrow.resources.configuration.setting import PREFIX
from windrow.resources.secret import Secret
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket

_numbers = itertools.count(1)
ROOT = Path(__file__).parents[1]


def pytest_sessionstart() -> None:
    """Leave the operator's own settings behind; Dagster reads .env by itself, so refuse one."""
    if dotenv_values(ROOT / ".env"):
        pytest.exit(
            f"{ROOT / '.env'} would be read by what the tests start, with its wallet and buckets: "
            "run them in a checkout without one (git worktree add ../windrow-tests)",
            returncode=2,
        )
    for name in list(os.environ):
        if name.startswith(PREFIX) or of_family(name) or name in ("COLUMNS", "LINES"):
            del os.environ[name]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped: one line a reason, however many tests it skipped."""
    reasons = Counter(
        " ".join(str(report.longrepr[2]).removeprefix("Skipped: ").split())
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED {count}: {reason}")


@dataclass(frozen=True)
class S3Place:
    """A new, empty bucket on a server. proxy: before the server; url: the server itself."""

    url: str
    bucket: str
    proxy: FlakyProxy

    def access(self, *, read_only: bool = False, url: str | None = None) -> S3Access:
        key_id, secret = (READ_KEY_ID, READ_SECRET) if read_only else (KEY_ID, SECRET)
        return S3Access(key_id, Secret(secret), None, "us-east-1", url or self.proxy.url)

    def open(self, *, read_only: bool = False, **options: Any) -> S3Bucket:
        """The bucket, through the proxy."""
        given = {"read_seconds": 5.0, **options}
        return S3Bucket(self.bucket, self.access(read_only=read_only), **given)

    def direct(self) -> S3Bucket:
        """The bucket, past the proxy."""
        return S3Bucket(self.bucket, self.access(url=self.url), read_seconds=5.0)


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real S3 server, one for all tests."""
    if missing():
        pytest.skip(f"not installed: {missing()}")
    with s3_server(tmp_path_factory.mktemp("radosgw")) as url:
        yield url


@pytest.fixture(params=["small", pytest.param("radosgw", marks=pytest.mark.live)])
def s3(request: pytest.FixtureRequest) -> Iterator[S3Place]:
    """A bucket on the small server and, in live tests, on the real one."""
    name = f"bucket-{next(_numbers)}"
    if request.param == "small":
        with small_s3(name) as server, flaky_proxy(server.url) as proxy:
            yield S3Place(server.url, name, proxy)
        return
    url = request.getfixturevalue("radosgw")
    make_bucket(name, url, read_by="reader")
    with flaky_proxy(url) as proxy:
        yield S3Place(url, name, proxy)
