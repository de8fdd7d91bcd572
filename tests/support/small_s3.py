"""A small server that speaks S3 over objects in memory, for tests that need no real one.

It checks signatures' key ids, not signatures; of signed addresses it checks everything. The same
tests run against a real server where one is installed (tests/support/radosgw.py).
"""

import calendar
import contextlib
import hashlib
import hmac
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.radosgw import KEY_ID, READ_KEY_ID, READ_SECRET, SECRET


@dataclass(frozen=True)
class Held:
    """One object. stored_at: unix seconds."""

    data: bytes
    etag: str
    metadata: dict[str, str]
    stored_at: float


@dataclass
class SmallS3:
    """Buckets by name, each a mapping from key to object.

    conditions: what becomes of `If-None-Match` when an object is put or completed: Amazon holds to
    it, Ceph 16 ignores it for uploads in parts, other servers say that they do not know it (501) or
    take it for a mistake (400).
    """

    url: str
    buckets: dict[str, dict[str, Held]] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    upload_metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    conditions: Literal["held", "ignored", "unknown", "invalid"] = "held"
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def small_s3(*buckets: str) -> Iterator[SmallS3]:
    """A running server with these buckets; its users are those of radosgw.py."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    state = SmallS3(f"http://127.0.0.1:{server.server_address[1]}", {name: {} for name in buckets})
    server.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def do_PUT(self) -> None:
        self._serve(self._put)

    def do_POST(self) -> None:
        self._serve(self._post)

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_HEAD(self) -> None:
        self._serve(self._get)

    def do_DELETE(self) -> None:
        self._serve(self._delete)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    @property
    def _state(self) -> SmallS3:
        state: SmallS3 = self.server.state  # type: ignore[attr-defined]
        return state

    def _serve(self, method: Any) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._authorise()
            with self._state.lock:
                if bucket not in self._state.buckets:
                    raise _Refused(404, "NoSuchBucket")
                status, headers, answer = method(self._state.buckets[bucket], key, query, body)
        except _Refused as refused:
            status, headers = refused.status, {"Content-Type": "application/xml"}
            answer = f"<Error><Code>{refused.code}</Code></Error>".encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _authorise(self) -> None:
        if "X-Amz-Signature=" in self.path:
            return self._check_address()
        match = re.search(r"Credential=([^/]*)/", self.headers.get("Authorization") or "")
        known = match[1] if match else None
        if known not in (KEY_ID, READ_KEY_ID):
            raise _Refused(403, "InvalidAccessKeyId")
        if known == READ_KEY_ID and self.command not in ("GET", "HEAD"):
            raise _Refused(403, "AccessDenied")
        return None

    def _check_address(self) -> None:
        """Signature version 4 in the query: good for one verb, host, path and time."""
        path, _, query = self.path.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")]
        named = {name: unquote(value) for name, _, value in pairs}
        signed = "&".join(sorted(f"{n}={v}" for n, _, v in pairs if n != "X-Amz-Signature"))
        key_id, *scope = named["X-Amz-Credential"].split("/")
        lines = self.command, path, signed, f"host:{self.headers['Host']}", "", "host"
        request = hashlib.sha256("\n".join([*lines, "UNSIGNED-PAYLOAD"]).encode()).hexdigest()
        made_at = named["X-Amz-Date"]
        text = "\n".join(["AWS4-HMAC-SHA256", made_at, "/".join(scope), request])
        key = b"AWS4" + {KEY_ID: SECRET, READ_KEY_ID: READ_SECRET}[key_id].encode()
        for part in (*scope, text):
            key = hmac.digest(key, part.encode(), "sha256")
        if key.hex() != named["X-Amz-Signature"]:
            raise _Refused(403, "SignatureDoesNotMatch")
        began = calendar.timegm(time.strptime(made_at, "%Y%m%dT%H%M%SZ"))
        if time.time() > began + int(named["X-Amz-Expires"]):
            raise _Refused(403, "AccessDenied")

    def _put(self, objects: dict[str, Held], key: str, query: dict[str, str], body: bytes) -> Any:
        stated = self.headers["x-amz-content-sha256"]
        if "X-Amz-Signature" not in query and hashlib.sha256(body).hexdigest() != stated:
            raise _Refused(400, "XAmzContentSHA256Mismatch")
        if "uploadId" in query:
            self._state.uploads[query["uploadId"]][int(query["partNumber"])] = body
            return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""
        self._check_condition(key in objects)
        objects[key] = Held(body, hashlib.md5(body).hexdigest(), self._metadata(), time.time())
        return 200, {"ETag": f'"{objects[key].etag}"'}, b""

    def _post(self, objects: dict[str, Held], key: str, query: dict[str, str], body: bytes) -> Any:
        state = self._state
        if "uploads" in query:
            upload = uuid.uuid4().hex
            state.uploads[upload], state.upload_metadata[upload] = {}, self._metadata()
            answer = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>"
            answer += f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return 200, {}, answer.encode()
        if query["uploadId"] not in state.uploads:
            raise _Refused(404, "NoSuchUpload")
        self._check_condition(key in objects)
        parts = state.uploads.pop(query["uploadId"])
        data = b"".join(parts[number] for number in sorted(parts))
        etag = f"{hashlib.md5(data).hexdigest()}-{len(parts)}"
        metadata = state.upload_metadata.pop(query["uploadId"])
        objects[key] = Held(data, etag, metadata, time.time())
        answer = f'<CompleteMultipartUploadResult><ETag>"{etag}"</ETag>'
        answer += "</CompleteMultipartUploadResult>"
        return 200, {}, answer.encode()

    def _check_condition(self, exists: bool) -> None:
        if self.headers.get("If-None-Match") != "*":
            return
        if self._state.conditions == "unknown":
            raise _Refused(501, "NotImplemented")
        if self._state.conditions == "invalid":
            raise _Refused(400, "InvalidArgument")
        if self._state.conditions == "held" and exists:
            raise _Refused(412, "PreconditionFailed")

    def _get(self, objects: dict[str, Held], key: str, query: dict[str, str], body: bytes) -> Any:
        if not key:
            return self._list(objects, query)
        held = objects.get(key)
        if held is None:
            raise _Refused(404, "NoSuchKey")
        if self.headers.get("If-Match", f'"{held.etag}"') != f'"{held.etag}"':
            raise _Refused(412, "PreconditionFailed")
        headers = {
            "ETag": f'"{held.etag}"',
            "Last-Modified": _http_date(held.stored_at),
            **held.metadata,
        }
        status, data = 200, held.data
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            if start >= len(data):
                raise _Refused(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            status, data = 206, data[start : stop + 1]
        headers["Content-Length"] = str(len(data))
        return status, headers, data

    def _list(self, objects: dict[str, Held], query: dict[str, str]) -> Any:
        after = query.get("continuation-token") or query.get("start-after") or ""
        keys = sorted(k for k in objects if k.startswith(query.get("prefix", "")) and k > after)
        page = keys[: int(query.get("max-keys", 1000))]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key].data)}</Size>"
            f'<ETag>"{objects[key].etag}"</ETag>'
            f"<LastModified>{_iso(objects[key].stored_at)}</LastModified></Contents>"
            for key in page
        )
        more = len(page) < len(keys)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        answer = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
        return 200, {}, f"{answer}</ListBucketResult>".encode()

    def _delete(
        self, objects: dict[str, Held], key: str, query: dict[str, str], body: bytes
    ) -> Any:
        if "uploadId" in query:
            self._state.uploads.pop(query["uploadId"], None)
        else:
            objects.pop(key, None)
        return 204, {}, b""

    def _metadata(self) -> dict[str, str]:
        return {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith("x-amz-meta-")
        }


def _http_date(seconds: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
