"""One connection over server-sent events and HTTP requests, where proxies allow no WebSocket."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

from .position import Position
from .requests import REPLIES
from .transports import CONNECT_SECONDS, MAX_MESSAGE_BYTES, MAX_WAITING, Fields, Transport, TransportClosed

#: The gateway sends a comment every 15 s, so a stream without one for longer is dead.
SILENCE_SECONDS = 20.0
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 2.0


async def open_sse(url: str, token: str, position: Position | None) -> Transport:
    """Receives ``GET /v1/events`` and sends requests as HTTP requests (needs ``aiohttp``)."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    session = aiohttp.ClientSession(timeout=timeout, read_bufsize=2**20, auto_decompress=True)
    link = _EventStream(session, url.rstrip("/"), token, position)
    try:
        await link.open()
    except BaseException:
        await session.close()
        raise
    return link


class _EventStream:
    def __init__(self, session: Any, base: str, token: str, position: Position | None) -> None:
        self._session = session
        self._base = base
        self._token = token
        self._position = position
        self._welcome: dict[str, Any] | None = None
        self._messages: asyncio.Queue[tuple[str, dict[str, Any]] | TransportClosed] = asyncio.Queue(MAX_WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._last_bytes_at = time.monotonic()

    async def open(self) -> None:
        response = await self._connect()
        self._reader = asyncio.create_task(self._read(response))

    async def send(self, type: str, fields: Fields) -> None:
        if type == "resume":
            await self._reopen(Position(int(fields["after"]), str(fields["epoch"])))
        elif type == "token_refresh":
            # A stream keeps the token of its request, so a newer one needs another stream.
            if isinstance(fields.get("token"), str) and fields["token"] != self._token:
                self._token = fields["token"]
                await self._reopen(self._position)
        elif type == "ping":
            if time.monotonic() - self._last_bytes_at < SILENCE_SECONDS:
                await self._messages.put(("pong", {}))
        elif type in REPLIES:
            task = asyncio.create_task(self._request(type, dict(fields)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def receive(self) -> tuple[str, dict[str, Any]]:
        item = await self._messages.get()
        if isinstance(item, TransportClosed):
            raise item
        return item

    async def close(self) -> None:
        tasks = [*self._tasks, *([self._reader] if self._reader else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    async def _reopen(self, position: Position | None) -> None:
        if self._reader:
            self._reader.cancel()
        self._position = position
        await self.open()

    async def _connect(self) -> Any:
        import aiohttp

        at = self._position
        try:
            response = await self._session.get(
                f"{self._base}/v1/events",
                params={"after": str(at.after), "epoch": at.epoch} if at else {},
                headers={"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"},
            )
            if response.status == 200:
                return response
            error = _error_of(await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as cause:
            raise TransportClosed(f"Event stream: {cause or type(cause).__name__}") from cause
        if error:
            await self._messages.put(("error", error))
        raise TransportClosed(f"Event stream: HTTP {response.status}", error.get("code") if error else None)

    async def _read(self, response: Any) -> None:
        detail = "Event stream: the gateway has ended it"
        try:
            async for data in self._events(response):
                await self._received(data)
        except Exception as error:
            # Of the network, or of a message: the client connects again either way.
            detail = f"Event stream: {error or type(error).__name__}"
        finally:
            response.close()
        await self._messages.put(TransportClosed(detail))

    async def _events(self, response: Any) -> AsyncIterator[str]:
        """Parses server-sent events. Only ``data`` counts, because it names its type and position."""
        rest, data = b"", []
        async for chunk in response.content.iter_any():
            self._last_bytes_at = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_MESSAGE_BYTES:
                raise ValueError("an event is too long")
            for line in lines:
                text = line.removesuffix(b"\r").decode()
                if text.startswith(":"):
                    await self._messages.put(("heartbeat", {}))
                elif text.startswith("data:"):
                    data.append(text[5:].removeprefix(" "))
                elif text == "" and data:
                    event, data = "\n".join(data), []
                    yield event

    async def _received(self, data: str) -> None:
        fields = json.loads(data)
        type = fields.pop("type")
        if type == "connection_established":
            # The client has its welcome when a stream is opened again.
            is_first = self._welcome is None
            self._welcome = fields
            self._position = self._position or Position(int(fields["seq"]), str(fields["epoch"]))
            if not is_first:
                return
        elif isinstance(fields.get("seq"), int) and self._welcome:
            self._position = Position(fields["seq"], str(self._welcome["epoch"]))
        elif type == "token_refreshed" and isinstance(fields.get("access_token"), str):
            self._token = fields["access_token"]
        await self._messages.put((type, fields))

    async def _request(self, type: str, fields: dict[str, Any]) -> None:
        request_id = fields.get("request_id")
        thread = {"thread_id": self._welcome["thread_id"]} if self._welcome else {}
        path, body = _call_of(type, fields, thread)
        text = await self._repeat("GET" if body is None else "POST", path, body)
        error = _error_of(text)
        answer = ("error", error) if error else (REPLIES[type], json.loads(text))
        await self._messages.put((answer[0], {**answer[1], "request_id": request_id}))

    async def _repeat(self, method: str, path: str, body: Any) -> str:
        """Repeats a request until the gateway answers: its id makes that safe. Closing the client ends it."""
        import aiohttp

        delay = FIRST_DELAY_SECONDS
        while True:
            headers = {"Authorization": f"Bearer {self._token}"}
            try:
                async with self._session.request(method, self._base + path, json=body, headers=headers) as response:
                    text = await response.text()
                # Anything else is the answer of a proxy, or of a node that drains.
                code = (_error_of(text) or {}).get("code")
                if response.status < 300 or code not in (None, "SERVER_DRAINING"):
                    return text
            except (aiohttp.ClientError, OSError, TimeoutError):
                # The network, or a node that was killed.
                pass
            await asyncio.sleep(random.uniform(0, delay))
            delay = min(2 * delay, MAX_DELAY_SECONDS)


def _call_of(type: str, fields: dict[str, Any], thread: dict[str, Any]) -> tuple[str, Any]:
    """The path and the body of a request; without a body it is a GET. Requests without a thread belong to ``thread``."""
    run = f"/v1/runs/{_segment(fields.get('run_id'))}"
    match type:
        case "agent_request":
            return "/v1/runs", {**thread, **fields}
        case "agent_cancel":
            return f"{run}/cancel", {}
        case "run_status":
            return run, None
        case "input_response":
            answer = {name: fields[name] for name in ("action", "content") if name in fields}
            return f"{run}/inputs/{_segment(fields['input_id'])}", answer
        case "tool_call":
            call = {name: value for name, value in fields.items() if name != "tool"}
            return f"/v1/tools/{_segment(fields['tool'])}", {**thread, **call}
        case "thread_history":
            page = {name: fields[name] for name in ("before", "limit") if name in fields}
            return f"/v1/threads/{_segment(fields['thread_id'])}/messages?{urlencode(page)}", None
        case _:
            return {"tools_list": "/v1/tools", "threads_list": "/v1/threads", "usage_summary": "/v1/usage"}[type], None


def _segment(value: Any) -> str:
    return quote(str(value), safe="")


def _error_of(text: str) -> dict[str, Any] | None:
    """The error of an HTTP answer."""
    try:
        error = json.loads(text).get("error")
    except (ValueError, AttributeError):
        return None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None
