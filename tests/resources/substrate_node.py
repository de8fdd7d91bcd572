"""A JSON-RPC websocket node over a `SubstrateState`, with the ways a real one fails.

It answers what bittensor's own client asks, over a real socket, in a thread of its own.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Self

from bittensor_core import ss58_encode
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.resources.substrate_metadata import (
    SPEC_NAME,
    SPEC_VERSION,
    TRANSACTION_VERSION,
    opaque_metadata,
)
from tests.resources.substrate_state import Block, SubstrateState

Call = Callable[[list[Any]], Any]


class RpcRefusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


class SubstrateNode:
    """A node at `url` while the block lasts.

    silent: requests are read and never answered. garbage: answers are no JSON.
    lose_submissions: an extrinsic is included and its connection cut before the node says so.
    refuse_reads: every read is answered with this error. open: connections that last.
    """

    def __init__(self, state: SubstrateState) -> None:
        self.state = state
        self.silent = False
        self.garbage = False
        self.lose_submissions = False
        self.refuse_reads: str | None = None
        self.asked: list[str] = []
        self.connections = self.open = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Server | None = None
        self._reporting: asyncio.Future[None] | None = None
        self._calls: dict[str, Call] = {
            "account_nextIndex": lambda p: state.nonce(p[0]),
            "chain_getBlock": self._block,
            "chain_getBlockHash": lambda p: state.hash_at(p[0]),
            "chain_getFinalizedHead": lambda p: state.hash_at(state.finalized),
            "chain_getHead": lambda p: self._state_at(None).hash,
            "chain_getHeader": self._header_of,
            "state_call": self._runtime_call,
            "state_getKeysPaged": self._keys,
            "state_getRuntimeVersion": lambda p: {
                "specName": SPEC_NAME,
                "specVersion": SPEC_VERSION,
                "transactionVersion": TRANSACTION_VERSION,
            },
            "state_getStorageAt": lambda p: self._storage_at(p[1]).get(p[0]),
            "state_queryStorageAt": self._query,
        }

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._run(_ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def start(self) -> None:
        """Listen, at the same port as before."""

        async def listen() -> Server:
            return await serve(self._serve, "127.0.0.1", self._port, max_size=1 << 24)

        self._server = self._run(listen())
        self._port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Refuse connections, and cut those there are."""
        if self._server is None:
            return
        server, self._server = self._server, None

        async def close() -> None:
            server.close(close_connections=False)
            for connection in server.connections:
                connection.transport.abort()
            await server.wait_closed()

        self._run(close())

    def reset(self) -> None:
        """Cut every connection without a word."""

        async def cut() -> None:
            for connection in self._server.connections if self._server else ():
                connection.transport.abort()

        self._run(cut())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, socket: ServerConnection) -> None:
        self.connections += 1
        self.open += 1
        with contextlib.suppress(ConnectionClosed):
            await self._converse(socket)
        self.open -= 1

    async def _converse(self, socket: ServerConnection) -> None:
        async for message in socket:
            frame = json.loads(message)
            requests = frame if isinstance(frame, list) else [frame]
            self.asked += [request["method"] for request in requests]
            if self.silent:
                continue
            if self.garbage:
                await socket.send("\x00 not JSON {")
                continue
            answers = [await self._answer(socket, request) for request in requests]
            await socket.send(json.dumps(answers if isinstance(frame, list) else answers[0]))

    async def _answer(self, socket: ServerConnection, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request.get("params") or []
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            with self.state.lock:
                if method == "author_submitAndWatchExtrinsic":
                    result = self._submit(socket, params[0])
                elif "unwatch" in method or "unsubscribe" in method:
                    result = True
                else:
                    result = self._read(method, params)
            return {**answer, "result": result}
        except RpcRefusal as refusal:
            return {**answer, "error": refusal.error}

    def _read(self, method: str, params: list[Any]) -> Any:
        if self.refuse_reads:
            raise RpcRefusal(-32603, self.refuse_reads)
        call = self._calls.get(method)
        if call is None:
            raise RpcRefusal(-32601, f"Method not found: {method}")
        return call(params)

    def _submit(self, socket: ServerConnection, extrinsic: str) -> str:
        state = self.state
        if state.refuse_next is not None:
            refusal, state.refuse_next = state.refuse_next, None
            raise RpcRefusal(refusal["code"], refusal["message"], refusal.get("data"))
        try:
            state.submit(extrinsic)
        except ValueError as error:
            raise RpcRefusal(1010, "Invalid Transaction", str(error)) from error
        state.advance()
        if self.lose_submissions or state.swallow:
            socket.transport.abort()
        watch = "w" + blake2b(extrinsic.encode(), digest_size=4).hexdigest()
        included = state.at(None)
        self._reporting = asyncio.ensure_future(
            self._report(socket, watch, {"inBlock": included and included.hash})
        )
        return watch

    async def _report(self, socket: ServerConnection, watch: str, status: dict[str, Any]) -> None:
        params = {"subscription": watch, "result": status}
        update = {"jsonrpc": "2.0", "method": "author_extrinsicUpdate", "params": params}
        await asyncio.sleep(0.005)
        if not self.lose_submissions:
            await socket.send(json.dumps(update))

    def _state_at(self, block_hash: str | None) -> Block:
        block = self.state.at(block_hash)
        if block is None:
            raise RpcRefusal(4003, f"UnknownBlock: Header was not found: {block_hash}")
        return block

    def _storage_at(self, block_hash: str | None) -> Any:
        block = self._state_at(block_hash)
        if block.number < self.state.discarded_below:
            raise RpcRefusal(
                4003, "Client error", f"UnknownBlock: State already discarded for {block.hash}"
            )
        return block.state

    def _header_of(self, params: list[Any]) -> Any:
        block = self.state.at(params[0] if params else None)
        return None if block is None else self._header(block)

    def _header(self, block: Block) -> dict[str, Any]:
        return {"number": hex(block.number), "parentHash": block.parent, "digest": {"logs": []}}

    def _block(self, params: list[Any]) -> Any:
        block = self._state_at(params[0])
        return {"block": {"header": self._header(block), "extrinsics": list(block.extrinsics)}}

    def _keys(self, params: list[Any]) -> list[str]:
        prefix, count, start, block_hash = params
        keys = sorted(k for k in self._storage_at(block_hash) if k.startswith(prefix))
        return [key for key in keys if key > start][:count]

    def _query(self, params: list[Any]) -> Any:
        keys, block_hash = params
        state = self._storage_at(block_hash)
        return [{"block": block_hash, "changes": [[key, state.get(key)] for key in keys]}]

    def _runtime_call(self, params: list[Any]) -> str:
        if params[0] == "Metadata_metadata_at_version":
            return opaque_metadata()
        if params[0] == "AccountNonceApi_account_nonce":
            nonce = self.state.nonce(ss58_encode(bytes.fromhex(params[1][2:])))
            return "0x" + nonce.to_bytes(4, "little").hex()
        raise RpcRefusal(-32601, f"Execution failed: {params[0]} is not found")


async def _ended() -> None:
    """Wait for the handlers of cut connections."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
