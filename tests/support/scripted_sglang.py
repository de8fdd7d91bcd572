"""A small real HTTP server with SGLang's interface, which fails as it is told to."""

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from windrow.resources.generation.sglang_weights import expected_checksums

RECORDED = Path(__file__).parents[1] / "vectors" / "sglang"


def recorded(name: str) -> tuple[int, Any]:
    """Status and body of an answer that a real server gave."""
    response = json.loads((RECORDED / f"{name}.json").read_text())["response"]
    return response["status"], response["body"]


class ScriptedSGLang:
    """Answers as SGLang would; `faults` take the place of the next answers on a path.

    context: most tokens of prompt and completion together.
    shortest: fewest tokens of a completion, as far as a request lets it have so many.
    device: "cpu" computes checksums from the weight files, "cuda" makes them up per version.
    requests: (path, body) of everything that was asked, health checks apart.
    running: names of the sequences at work, while `hold` is set.
    """

    def __init__(
        self,
        *,
        eos: int,
        context: int = 2048,
        key: str | None = None,
        device: str = "cpu",
        deterministic: bool = True,
        shortest: int = 3,
    ) -> None:
        self.shortest = shortest
        self.eos, self.context, self.key, self.device = eos, context, key, device
        self.deterministic = deterministic
        self.version, self.checksums = "default", {"model.norm.weight": "0" * 16}
        self.faults: dict[str, list[Callable[[Any], None]]] = {}
        self.requests: list[tuple[str, Any]] = []
        self.healthy = True
        self.hold = False
        self.running: set[str] = set()
        self.most_running = 0
        self._aborted: set[str] = set()
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self, None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.serve(self, json.loads(body) if body else None)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                pass  # clients that go away are part of the tests

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ScriptedSGLang":
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        """Let what is held go on."""
        with self._changed:
            self.hold = False
            self._changed.notify_all()

    def wait_until_running(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.running) >= count, timeout=10)

    def asked(self, path: str) -> list[Any]:
        return [body for asked, body in self.requests if asked == path]

    def fail(self, path: str, *faults: Callable[[Any], None]) -> None:
        self.faults.setdefault(path, []).extend(faults)

    def serve(self, handler: Any, body: Any) -> None:
        path = handler.path
        if path == "/health":
            return answer(handler, 200 if self.healthy else 503, "")
        self.requests.append((path, body))
        if self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return answer(handler, *recorded("auth_generate_nokey"))
        if self.faults.get(path):
            return self.faults[path].pop(0)(handler)
        return getattr(self, path.strip("/").replace("/", "_"))(handler, body)

    def server_info(self, handler: Any, _: Any) -> None:
        document = {
            "version": "0.5.23",
            "device": self.device,
            "dtype": "float32",
            "max_req_input_len": self.context - 4,
            "tp_size": 1,
            "pp_size": 1,
            "dp_size": 1,
            "enable_deterministic_inference": self.deterministic,
        }
        answer(handler, 200, document)

    def model_info(self, handler: Any, _: Any) -> None:
        answer(handler, 200, {"weight_version": self.version})

    def weights_checker(self, handler: Any, _: Any) -> None:
        answer(handler, 200, {"success": True, "ranks": [{"checksums": self.checksums}]})

    def flush_cache(self, handler: Any, _: Any) -> None:
        busy = bool(self.running)
        answer(handler, *recorded("flush_cache_busy" if busy else "flush_cache"))

    def update_weight_version(self, handler: Any, body: Any) -> None:
        self.version = body["new_version"]
        answer(handler, *recorded("update_weight_version"))

    def update_weights_from_disk(self, handler: Any, body: Any) -> None:
        self.take(body)
        answer(handler, *recorded("update_weights_from_disk"))

    def take(self, body: Any) -> None:
        """Hold other weights from now on."""
        self.version = body["weight_version"]
        if self.device == "cpu":
            self.checksums = expected_checksums(Path(body["model_path"]), "float32")
        else:
            made_up = hashlib.sha256(self.version.encode()).hexdigest()[:16]
            self.checksums = {"model.norm.weight": made_up}

    def abort_request(self, handler: Any, body: Any) -> None:
        with self._changed:
            self._aborted |= self.running if body.get("abort_all") else {body["rid"]}
            self._changed.notify_all()
        answer(handler, 200, "")

    def generate(self, handler: Any, body: Any) -> None:
        names = set(body["rid"])
        with self._changed:
            self.running |= names
            self.most_running = max(self.most_running, len(self.running))
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self.hold or names <= self._aborted, timeout=30)
            self.running -= names
        answer(handler, 200, self.completions(body))

    def completions(self, body: Any) -> list[dict[str, Any]]:
        """Completions that depend on prompt and seed alone, some ended by EOS."""
        made = []
        for prompt, name, params in zip(
            body["input_ids"], body["rid"], body["sampling_params"], strict=True
        ):
            wanted = self.shortest + params.get("sampling_seed", 0) % 10
            length = min(wanted, params["max_new_tokens"])
            ids = [3 + (sum(prompt) + place) % 100 for place in range(length)]
            reason: dict[str, Any] = {"type": "length", "length": length}
            if length < params["max_new_tokens"]:
                ids[-1] = self.eos
                reason = {"type": "stop", "matched": self.eos}
            if name in self._aborted:
                reason = recorded("generate_aborted")[1]["meta_info"]["finish_reason"]
            spans = [{"version": self.version, "start": 0, "end": length}]
            meta = {
                "id": name,
                "finish_reason": reason,
                "completion_tokens": length,
                "weight_version": self.version,
                "weight_versions": spans,
            }
            made.append({"text": "", "output_ids": ids, "meta_info": meta})
        return made


def answer(handler: Any, status: int, body: Any) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def reset(handler: Any) -> None:
    """Close the connection the hard way, without an answer."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def truncated(handler: Any) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"text"')


def saying(status: int, body: Any) -> Callable[[Any], None]:
    return lambda handler: answer(handler, status, body)


def endless(handler: Any) -> None:
    """An answer that never ends."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100_000):
        handler.wfile.write(b"[" * 65536)


def dripping(handler: Any) -> None:
    """A byte now and then, so that no single read times out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        threading.Event().wait(0.05)


def not_http(handler: Any) -> None:
    handler.wfile.write(b"\x00\x01garbage\r\n\r\n" * 10)
