"""How to reach S3: from the variables every S3 tool reads, or an R2 account, and a bucket there."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from windrow import WindrowError
from windrow.networks.grail.bucket import BucketCommitment
from windrow.resources.secret import Secret

R2_REGION: Final = "auto"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3AccessMissing(WindrowError):
    """What is given does not say how to reach S3."""


@dataclass(frozen=True)
class S3Access:
    """How to reach S3. endpoint: URL of a server that is not Amazon's.

    path_style: whether the bucket is named in the path of requests, rather than in the host; None
    does so with an endpoint only.
    """

    key_id: str = field(repr=False)
    secret: Secret
    token: Secret | None
    region: str
    endpoint: str | None
    path_style: bool | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """From AWS_ACCESS_KEY_ID and its kin, as every S3 tool. Raises S3AccessMissing."""
        wanted = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in wanted if not environment.get(name)]:
            raise S3AccessMissing(f"s3:// needs {' and '.join(missing)} in the environment.")
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        token = environment.get("AWS_SESSION_TOKEN")
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        return cls(
            environment["AWS_ACCESS_KEY_ID"],
            Secret(environment["AWS_SECRET_ACCESS_KEY"]),
            Secret(token) if token else None,
            region or "us-east-1",
            _endpoint(endpoint, "AWS_ENDPOINT_URL"),
        )

    @classmethod
    def r2(
        cls,
        account_id: str,
        key_id: str,
        secret: Secret,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        path_style: bool | None = None,
    ) -> Self:
        """To an R2 account, as the network's miners configure it (grail-validation §18.2).

        endpoint, region, path_style: R2_ENDPOINT_URL, R2_REGION and R2_FORCE_PATH_STYLE, where
        they are set. Raises S3AccessMissing, and MalformedBucket for an impossible account id.
        """
        account, key, text = account_id.strip(), key_id.strip(), secret.reveal().strip()
        if not account or not key or not text:
            raise S3AccessMissing("R2 needs an account id, an access key id and its secret.")
        return cls(
            key,
            Secret(text),
            None,
            region or R2_REGION,
            _endpoint(endpoint, "R2_ENDPOINT_URL") or BucketCommitment(account, key, text).endpoint,
            path_style,
        )

    @property
    def in_path(self) -> bool:
        """Whether requests name the bucket in their path."""
        return self.endpoint is not None if self.path_style is None else self.path_style

    def endpoint_of(self, bucket: str) -> str | None:
        """Where requests for a bucket go; None is wherever Amazon has it."""
        if self.endpoint is None or self.in_path:
            return self.endpoint
        url = urlsplit(self.endpoint)
        return f"{url.scheme}://{bucket}.{url.netloc}"


def check_bucket_name(name: str) -> str:
    """The name of a bucket. Raises S3AccessMissing for one no server has."""
    if not _BUCKET.fullmatch(name):
        raise S3AccessMissing(
            f"{name[:80]!r} is no bucket name: 3 to 63 lower-case letters, digits, '.' and '-'."
        )
    return name


def _endpoint(text: str | None, variable: str) -> str | None:
    if not text:
        return None
    url = urlsplit(text)
    plain = url.path.strip("/") == "" and not url.query and not url.fragment and "@" not in text
    if url.scheme not in ("http", "https") or not url.hostname or not plain:
        raise S3AccessMissing(f"{variable} must be http(s)://host or http(s)://host:port.")
    return text.rstrip("/")
