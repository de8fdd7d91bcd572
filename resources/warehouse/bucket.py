"""A lake in a bucket, read-only: DuckDB over s3:// with the httpfs extension from its wheel.

`aws s3 sync lake s3://bucket/prefix`, or any tool that copies files, puts a lake there whole.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa

from windrow.resources.storage.objects import ObjectMissing, ObjectStoreError, ObjectTooLarge
from windrow.resources.storage.s3_access import S3Access
from windrow.resources.storage.s3_bucket import S3Bucket
from windrow.resources.warehouse.catalogue import (
    lock_to,
    quoted,
    require_select,
    select,
    view_statements,
)
from windrow.resources.warehouse.files import LakeError
from windrow.resources.warehouse.manifest import MANIFEST, Manifest
from windrow.resources.warehouse.summaries import NO_DOWNLOADS

ASK_SECONDS = 2.0
_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*")


# There is no folder to spill to: a query that needs more memory than there is fails.
_SETTINGS = NO_DOWNLOADS | {"allow_persistent_secrets": "false", "max_temp_directory_size": "0KiB"}


class BucketLake:
    """The lake at an s3:// URL."""

    def __init__(self, url: str, access: S3Access) -> None:
        """Raises LakeError for a URL that names no folder of a bucket."""
        self._url = url.rstrip("/")
        self._access = access
        if not _URL.fullmatch(self._url):
            raise LakeError(f"{url[:200]!r} is no lake: give s3://BUCKET or s3://BUCKET/PREFIX.")

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Run one SELECT over the views; nothing but the lake is in its reach.

        Raises QueryRefused, QueryFailed, LakeError, LakeFileDamaged.
        """
        return select(lambda: self._connect(sql), sql, parameters)

    def _connect(self, sql: str) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config=_SETTINGS)
        require_select(connection, sql)
        # Making a view reads the footers of its files, so only what the query names is made.
        # Its words tell; DuckDB's own list of them opens files before anything is locked.
        names = set(re.findall(r"\w+", sql.lower()))
        try:
            connection.execute(f"LOAD {quoted(_extension())}")
            self._authorise(connection)
            for statement in view_statements(self._url, self._manifest(connection), names):
                connection.execute(statement)
        except duckdb.Error as error:
            said = self._refusal() or error
            raise LakeError(f"There is no readable lake at {self._url}: {said}") from error
        lock_to(connection, f"{self._url}/")
        return connection

    def _refusal(self) -> ObjectStoreError | None:
        """What the bucket says to a request of our own: DuckDB leaves out most of an answer."""
        url = urlsplit(self._url)
        bucket = S3Bucket(url.netloc, self._access, prefix=url.path, read_seconds=ASK_SECONDS)
        try:
            bucket.get(MANIFEST, max_bytes=0)
        except (ObjectMissing, ObjectTooLarge):
            return None
        except ObjectStoreError as error:
            return error
        return None

    def _authorise(self, connection: duckdb.DuckDBPyConnection) -> None:
        # Bound, so that no statement's text holds a secret.
        access = self._access
        values = {
            "key": access.key_id,
            "secret": access.secret.reveal(),
            "region": access.region,
            "scope": f"{self._url}/",
        }
        options = "TYPE s3, KEY_ID $key, SECRET $secret, REGION $region, SCOPE $scope"
        if access.token is not None:
            values["token"] = access.token.reveal()
            options += ", SESSION_TOKEN $token"
        if access.endpoint is not None:
            url = urlsplit(access.endpoint)
            values["endpoint"] = url.netloc
            style = "path" if access.in_path else "vhost"
            options += f", ENDPOINT $endpoint, URL_STYLE '{style}'"
            options += f", USE_SSL {str(url.scheme == 'https').lower()}"
        connection.execute(f"CREATE SECRET lake ({options})", values)

    def _manifest(self, connection: duckdb.DuckDBPyConnection) -> Manifest:
        found = connection.execute(
            "SELECT content FROM read_text(?) WHERE filename = ?",
            [f"{self._url}/*.json", f"{self._url}/{MANIFEST}"],
        ).fetchone()
        return Manifest() if found is None else Manifest.parse(found[0], f"{self._url}/{MANIFEST}")


def _extension() -> str:
    folder = files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}"
    path = folder / "httpfs.duckdb_extension"
    if not path.is_file():
        raise LakeError(
            f"The httpfs extension of DuckDB {duckdb.__version__} is not installed: "
            f"pip install duckdb-extension-httpfs=={duckdb.__version__}"
        )
    return str(path)
