"""What a node fetches and puts by address: bounded, from where it may, and told to nobody."""

import datetime as dt
import hashlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windrow.engine.fleet.llm_job_objects import (
    BUCKET_ENDPOINT,
    AddressRefused,
    DownloadFailed,
    UploadFailed,
    check_address,
    fetch,
    put,
)

DATA = b"one?\ntwo?"
SHA256 = hashlib.sha256(DATA).hexdigest()
SECRET = "X-Amz-Signature=5ec7e7"

Act = Callable[[BaseHTTPRequestHandler], None]


def answers(status: int, body: bytes = b"", **headers: str) -> Act:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


@contextmanager
def server(act: Act, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A bucket server that does as told: its URL, and every body that was put."""
    stored: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do()

        def do_PUT(self) -> None:
            stored.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._do()

        def _do(self) -> None:
            try:
                act(self)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    scheme = "http"
    if tls is not None:
        scheme, running.socket = "https", tls.wrap_socket(running.socket, server_side=True)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{running.server_address[1]}", stored
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@contextmanager
def bucket(act: Act, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """The address of an object of the node's own bucket server."""
    with server(act) as (url, stored):
        monkeypatch.setenv(BUCKET_ENDPOINT, url)
        yield f"{url}/jobs/x?{SECRET}", stored


def test_what_was_asked_about_is_fetched_and_the_answer_put(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bucket(answers(200, DATA), monkeypatch) as (url, stored):
        assert fetch(url, size=len(DATA), sha256=SHA256) == DATA
        put(url, b"frame")
        assert stored == [b"frame"]


@pytest.mark.parametrize(
    "act",
    [
        answers(200, DATA + b"more"),
        answers(200, DATA[:-1]),
        answers(200, DATA.upper()),
        answers(200, b""),
        answers(302, Location="http://127.0.0.1:1/elsewhere"),
        answers(403, b"<Error><Code>AccessDenied</Code></Error>"),
        answers(500, b"\xff" * 100_000),
        lambda handler: handler.wfile.write(b"babble\r\n\r\n"),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (8 << 20)),
    ],
)
def test_other_objects_and_answers_are_refused(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(act, monkeypatch) as (url, _):
        with pytest.raises(DownloadFailed) as failure:
            fetch(url, size=len(DATA), sha256=SHA256, seconds=5)
        assert "5ec7e7" not in str(failure.value)


def test_a_bucket_that_takes_no_answer_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    expired = answers(403, b"<Error><Code>AccessDenied</Code><Message>expired</Message></Error>")
    with (
        bucket(expired, monkeypatch) as (url, _),
        pytest.raises(UploadFailed, match=r"answers 403 AccessDenied\. Check the permissions"),
    ):
        put(url, b"x" * (4 << 20))
    with (
        bucket(answers(307, Location="https://example.com/"), monkeypatch) as (url, stored),
        pytest.raises(UploadFailed, match="no redirect"),
    ):
        put(url, b"frame")
    assert stored == [b"frame"]
    with pytest.raises(UploadFailed, match="ConnectionRefusedError") as failure:
        put(url, b"frame")
    assert "5ec7e7" not in str(failure.value)


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A byte of a header now and then, which no timeout between two bytes ends."""
    for _ in range(200):
        handler.wfile.write(b"H")
        time.sleep(0.05)


def test_a_bucket_that_answers_too_slowly_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket(drips, monkeypatch) as (url, _):
        with pytest.raises(DownloadFailed, match="within"):
            fetch(url, size=len(DATA), sha256=SHA256, seconds=0.3)
        with pytest.raises(UploadFailed, match="within"):
            put(url, b"frame", seconds=0.3)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/jobs/x",
        "https://127.0.0.1/jobs/x",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/x",
        "https://bucket.internal/x",
        "https://[::1]/x",
        "https://user:word@example.com/x",
        "https://example.com/x#y",
        "https://example.com",
        "https://example.com/x\r\nHost: other",
        "https://example.com/x y",
        "https://example.com/\N{SNOWMAN}",
        "https://example.com:99999/x",
        "https://[::1/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "/etc/passwd",
        "",
    ],
)
def test_addresses_that_lead_elsewhere_are_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in (None, "http://10.0.0.5:9000", "https://s3.internal"):
        monkeypatch.delenv(BUCKET_ENDPOINT, raising=False)
        if endpoint is not None:
            monkeypatch.setenv(BUCKET_ENDPOINT, endpoint)
        with pytest.raises(AddressRefused) as failure:
            check_address(url)
        assert not url or url not in str(failure.value)


def test_public_hosts_and_the_nodes_own_bucket_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BUCKET_ENDPOINT, raising=False)
    check_address("https://bucket.s3.eu-west-1.amazonaws.com/jobs/x?a=b%2F")
    monkeypatch.setenv(BUCKET_ENDPOINT, "http://10.0.0.5:9000")
    check_address("http://10.0.0.5:9000/bucket/x")
    monkeypatch.setenv(BUCKET_ENDPOINT, "https://s3.internal")
    check_address("https://s3.internal/bucket/x")
    check_address("https://bucket.s3.internal:443/x")
    for url in ("http://s3.internal/x", "https://s3.internal:8443/x", "https://bads3.internal/x"):
        with pytest.raises(AddressRefused):
            check_address(url)


def test_a_public_name_of_a_private_host_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BUCKET_ENDPOINT, raising=False)
    looked = socket.create_connection
    with server(answers(200, DATA)) as (url, _):
        port = int(url.rpartition(":")[2])
        # The resolver is the one part that a test cannot have its own of.
        monkeypatch.setattr(
            "windrow.engine.fleet.llm_job_objects.socket.create_connection",
            lambda _address, timeout: looked(("127.0.0.1", port), timeout),
        )
        with pytest.raises(AddressRefused, match="no public host"):
            fetch(f"https://example.com/x?{SECRET}", size=len(DATA), sha256=SHA256)


def certificate(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(
        key.private_bytes(*plain, encryption_algorithm=serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_a_bucket_over_tls_must_have_a_certificate_the_node_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(answers(200, DATA), certificate(tmp_path)) as (url, stored):
        monkeypatch.setenv(BUCKET_ENDPOINT, url)
        with pytest.raises(UploadFailed, match="SSLCertVerificationError"):
            put(f"{url}/x", b"frame")
        assert stored == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        put(f"{url}/x", b"frame")
        assert stored == [b"frame"]
        assert fetch(f"{url}/x", size=len(DATA), sha256=SHA256) == DATA
