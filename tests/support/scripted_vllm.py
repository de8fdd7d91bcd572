"""A small real HTTP server with the shapes that vLLM's completions interface documents."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.scripted_sglang import answer


class ScriptedVLLM:
    """Answers as vLLM is documented to; it is no proof of how a real one behaves.

    spoil: changes an answer before it is sent. gone: connections whose client went away while the
    server held its request.
    """

    def __init__(
        self, model: str, *, eos: int, context: int = 2048, key: str | None = None
    ) -> None:
        self.model, self.eos, self.context, self.key = model, eos, context, key
        self.requests: list[dict[str, Any]] = []
        self.spoil: Callable[[dict[str, Any]], object] = lambda document: None
        self.hold = threading.Event()
        self.hold.set()
        self.gone = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    return answer(self, 200, "")
                if outer.refuses(self):
                    return answer(self, 401, {"error": "Unauthorized"})
                served = {"id": outer.model, "object": "model", "max_model_len": outer.context}
                return answer(self, 200, {"object": "list", "data": [served]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.refuses(self):
                    return answer(self, 401, {"error": "Unauthorized"})
                outer.requests.append(body)
                while not outer.hold.wait(0.02):
                    self.connection.settimeout(0.01)
                    try:
                        if self.connection.recv(1) == b"":
                            outer.gone.release()
                            return None
                    except TimeoutError:
                        pass
                document = outer.completion(body)
                outer.spoil(document)
                return answer(self, 200, document)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ScriptedVLLM":
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def refuses(self, handler: Any) -> bool:
        given = handler.headers.get("Authorization")
        return self.key is not None and given != f"Bearer {self.key}"

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        length = min(3 + body["seed"] % 10, body["max_tokens"])
        ids = [3 + (sum(body["prompt"]) + place) % 100 for place in range(length)]
        if length < body["max_tokens"]:
            ids[-1] = self.eos
        choice = {
            "index": 0,
            "text": "",
            "logprobs": None,
            "finish_reason": "stop" if ids[-1] == self.eos else "length",
            "stop_reason": None,
            "token_ids": ids,
            "prompt_token_ids": body["prompt"],
        }
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": length}
        return {
            "id": f"cmpl-{body['request_id']}",
            "object": "text_completion",
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }
