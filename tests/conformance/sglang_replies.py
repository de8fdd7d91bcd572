"""What SGLang's server says of itself, replayed to the client that asks it (sglang-http)."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from windrow.networks.grail.checkpoint import GenerationPolicy
from windrow.resources.generation.client import ServerClient, ServerUnreachable
from windrow.resources.generation.requests import SampleRequest
from windrow.resources.generation.sglang_server import SGLangServer
from windrow.resources.generation.sglang_weights import TOKENS_BEYOND_A_PROMPT, WeightsControl

from .framework import Case, VectorFile, handles

Row = dict[str, Any]

OLDER_NAMES = {"/get_model_info": "/model_info", "/get_server_info": "/server_info"}
"""The server answers both alike; Windrow asks by the newer."""


@contextmanager
def replayed(vector: Row) -> Iterator[str]:
    """URL of a server that gives the recorded answer to the recorded request, and to no other."""
    request, response = vector["request"], vector["response"]
    path, body = OLDER_NAMES.get(request["path"], request["path"]), response["body"]
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    class Replay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = (self.command, self.path, json.loads(sent) if sent else None)
            same = asked == (request["method"], path, request["json"])
            self.send_response(response["status"] if same else 404)
            self.send_header("Content-Length", str(len(content) if same else 0))
            self.end_headers()
            self.wfile.write(content if same else b"")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Nothing: what was asked shows in the answer."""

    with HTTPServer(("127.0.0.1", 0), Replay) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def control(url: str) -> WeightsControl:
    client = ServerClient(url)
    return WeightsControl(client, client, seconds=10)


@handles("sglang/health.json")
@handles("sglang/health_after_oov.json")
@handles("sglang/health_end.json")
def health(file: VectorFile) -> Iterator[Case]:
    yield Case("probe", partial(check_health, file.load_json()))


def check_health(vector: Row) -> None:
    if "response" in vector:
        with replayed(vector) as url:
            SGLangServer(url).probe()
        return
    assert "ConnectionError" in vector["error"]  # the server had died
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    with pytest.raises(ServerUnreachable):
        SGLangServer(f"http://127.0.0.1:{port}").probe()


@handles("sglang/model_info*.json")
@handles("sglang/get_model_info.json")
def model_info(file: VectorFile) -> Iterator[Case]:
    yield Case("weight-version", partial(check_version, file.load_json()))


def check_version(vector: Row) -> None:
    with replayed(vector) as url:
        assert control(url).weight_version() == vector["response"]["body"]["weight_version"]


@handles("sglang/get_server_info.json")
def server_info(file: VectorFile) -> Iterator[Case]:
    yield Case("facts", partial(check_facts, file.load_json()))


def check_facts(vector: Row) -> None:
    said = vector["response"]["body"]
    with replayed(vector) as url:
        facts = control(url).facts()
    assert (facts.version, facts.device, facts.dtype) == (
        said["version"],
        said["device"],
        said["dtype"],
    )
    assert facts.ranks == said["tp_size"] * said["pp_size"] * said["dp_size"]
    assert facts.deterministic == said["enable_deterministic_inference"]
    assert facts.max_context == said["max_req_input_len"] + TOKENS_BEYOND_A_PROMPT


@handles("sglang/abort_request.json")
def abort_request(file: VectorFile) -> Iterator[Case]:
    yield Case("abandon", partial(check_abort, file.load_json()))


def check_abort(vector: Row) -> None:
    policy = GenerationPolicy(1, 1.0, 1.0, None, 1.0)
    names = (vector["request"]["json"]["rid"],)
    with replayed(vector) as url:
        SGLangServer(url).abandon(SampleRequest(np.zeros(1, np.int32), (0,), policy, names, 2, 1))
