"""Read access on chain, in the network's form, written when it differs and only then."""

import json
from pathlib import Path

import pytest

from tests.conftest import S3Place
from tests.support.radosgw import READ_KEY_ID, READ_SECRET
from windrow.networks.grail.bucket import BucketCommitment, MalformedBucket
from windrow.networks.grail.validation.credentials import already_published
from windrow.resources.development_chain import DevelopmentChain
from windrow.resources.secret import Secret
from windrow.resources.storage.object_store import BucketRefused
from windrow.resources.storage.read_credentials import (
    CommittedBuckets,
    commit_read_credentials,
    read_commitment,
)
from windrow.resources.storage.s3_access import S3Access

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VECTORS = Path(__file__).parents[1] / "vectors" / "grail-validation" / "credentials.json"
ACCOUNT = "0123456789abcdef0123456789abcdef"


class Counting(DevelopmentChain):
    """A real development chain that knows how often it was written to."""

    commits = 0

    def commit(self, hotkey: str, text: str) -> None:
        self.commits += 1
        super().commit(hotkey, text)


@pytest.fixture
def chain(tmp_path: Path) -> Counting:
    return Counting(
        tmp_path / "chain.sqlite", seed="s", genesis=0.0, block_seconds=12.0, stepped=True
    )


def reader(key_id: str = "k" * 32, secret: str = "s" * 64) -> S3Access:
    return S3Access.r2(ACCOUNT, key_id, Secret(secret))


def test_what_is_committed_is_read_back(chain: Counting) -> None:
    made = read_commitment(ACCOUNT, ACCOUNT, reader())
    assert commit_read_credentials(chain, HOTKEY, made)
    assert len(chain.commitment(HOTKEY) or "") == 128
    assert BucketCommitment.decode(chain.commitment(HOTKEY) or "") == made
    assert already_published(made, ACCOUNT, "k" * 32, "s" * 64)


def test_only_another_key_is_written(chain: Counting) -> None:
    made = read_commitment(ACCOUNT, ACCOUNT, reader())
    assert commit_read_credentials(chain, HOTKEY, made)
    assert not commit_read_credentials(chain, HOTKEY, made)
    assert chain.commits == 1
    other = read_commitment(ACCOUNT, ACCOUNT, reader(key_id="n" * 32))
    assert commit_read_credentials(chain, HOTKEY, other)
    assert chain.commits == 2
    chain.commit(HOTKEY, "something else")
    assert commit_read_credentials(chain, HOTKEY, other)


def test_the_networks_own_texts_are_made_and_read() -> None:
    cases = json.loads(VECTORS.read_text())["encode"]
    assert cases
    for case in cases:
        fields = [
            case[name] for name in ("account_id", "read_access_key_id", "read_secret_access_key")
        ]
        made = BucketCommitment(*fields)
        assert made.encode() == case["commitment"]
        if all(part.strip() for part in fields):
            assert BucketCommitment.decode(made.encode()).encode() == case["commitment"]


@pytest.mark.parametrize(
    ("bucket", "access", "said"),
    [
        ("other", reader(), "named like its account"),
        (ACCOUNT, reader(key_id="k" * 33), "does not fit"),
        (ACCOUNT, reader(secret="s" * 65), "does not fit"),
        (ACCOUNT, S3Access("k", Secret("x"), Secret("token"), "auto", None), "session token"),
    ],
)
def test_what_would_not_survive_is_refused(bucket: str, access: S3Access, said: str) -> None:
    with pytest.raises(MalformedBucket, match=said) as raised:
        read_commitment(ACCOUNT, bucket, access)
    assert access.secret.reveal() not in str(raised.value)


def test_a_bucket_is_opened_by_what_was_committed(s3: S3Place, chain: Counting) -> None:
    s3.direct().put("grail/windows/a", b"rows")
    access = S3Access.r2(s3.bucket, READ_KEY_ID, Secret(READ_SECRET), endpoint=s3.proxy.url)
    assert commit_read_credentials(chain, HOTKEY, read_commitment(s3.bucket, s3.bucket, access))
    buckets = CommittedBuckets(chain.commitment, endpoint=s3.proxy.url, region="us-east-1")
    opened = buckets.open(HOTKEY)
    assert opened is not None
    assert opened.get("grail/windows/a") == b"rows"
    with pytest.raises(BucketRefused):
        opened.put("grail/windows/a", b"other rows")


@pytest.mark.parametrize("text", [None, "", "x" * 127, " " * 128, "/" * 128, "A" * 128])
def test_what_cannot_be_read_is_no_bucket(text: str | None) -> None:
    assert CommittedBuckets(lambda _hotkey: text).open(HOTKEY) is None
