"""How to reach S3, from the variables every S3 tool reads, and a bucket there."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from windrow import WindrowError
from windrow.resources.object_store import Bucket, ObjectStoreError
from windrow.resources.secret import Secret


class S3AccessMissing(WindrowError):
    """The environment does not say how to reach S3."""


@dataclass(frozen=True)
class S3Access:
    """How to reach S3. endpoint: URL of a server that is not Amazon's."""

    key_id: str
    secret: Secret
    token: Secret | None
    region: str
    endpoint: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """From AWS_ACCESS_KEY_ID and its kin, as every S3 tool. Raises S3AccessMissing."""
        wanted = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in wanted if not environment.get(name)]:
            raise S3AccessMissing(f"s3:// needs {' and '.join(missing)} in the environment.")
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        url = urlsplit(endpoint or "https://s3")
        if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
            raise S3AccessMissing("AWS_ENDPOINT_URL must be http(s)://host or http(s)://host:port.")
        token = environment.get("AWS_SESSION_TOKEN")
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        return cls(
            environment["AWS_ACCESS_KEY_ID"],
            Secret(environment["AWS_SECRET_ACCESS_KEY"]),
            Secret(token) if token else None,
            region or "us-east-1",
            endpoint,
        )


def s3_bucket(name: str, access: S3Access) -> Bucket:
    """The bucket of this name, as an `ObjectStore`. Raises ObjectStoreError for a name S3 refuses.

    Nothing is asked of the server yet.
    """
    options = {
        "access_key_id": access.key_id,
        "secret_access_key": access.secret.reveal(),
        "token": access.token and access.token.reveal(),
        "region": access.region,
        "endpoint": access.endpoint,
        "virtual_hosted_style_request": access.endpoint is None,
    }
    plain = {"allow_http": (access.endpoint or "").startswith("http://")}
    given = {option: value for option, value in options.items() if value is not None}
    try:
        store = S3Store(name, client_options=plain, **given)
    except BaseError as error:
        raise ObjectStoreError(f"s3://{name} cannot be opened: {error}") from error
    return Bucket(store, f"s3://{name}")
