"""One connection over WebSocket or Socket.IO."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from .position import Position

Fields = Mapping[str, Any]
#: A frame of this type or size is refused again, or the gateway forbids a reconnect.
FINAL_CLOSES = frozenset({1003, 1009, 4001, 4003})
CODE = re.compile(r"[A-Z][A-Z_]+")
#: Messages that wait for the client to read them.
MAX_WAITING = 10_000
CONNECT_SECONDS = 15.0
MAX_MESSAGE_BYTES = 16 * 2**20


@dataclass
class TransportClosed(Exception):
    """The connection ended, or never opened."""

    detail: str
    #: Error code of the gateway, if it gave one.
    code: str | None = None
    final: bool = False


class Transport(Protocol):
    """Every method raises TransportClosed when the connection has ended."""

    async def send(self, type: str, fields: Fields) -> None: ...

    async def receive(self) -> tuple[str, dict[str, Any]]: ...

    async def close(self) -> None: ...


OpenTransport = Callable[[str, str, Position | None], Awaitable[Transport]]


class _WebSocket:
    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def send(self, type: str, fields: Fields) -> None:
        import websockets

        try:
            await self._socket.send(json.dumps({"type": type, "payload": fields}))
        except websockets.ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def receive(self) -> tuple[str, dict[str, Any]]:
        import websockets

        try:
            while True:
                message = json.loads(await self._socket.recv())
                if isinstance(message, dict) and isinstance(message.get("type"), str):
                    payload = message.get("payload")
                    return message["type"], payload if isinstance(payload, dict) else {}
        except websockets.ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def close(self) -> None:
        await self._socket.close()


def _closed(closed: Any) -> TransportClosed:
    frame = closed.rcvd
    if frame is None:
        return TransportClosed("WebSocket lost")
    code = frame.reason if CODE.fullmatch(frame.reason) else None
    return TransportClosed(f"WebSocket closed with {frame.code} {frame.reason}", code, frame.code in FINAL_CLOSES)


async def open_websocket(url: str, token: str, position: Position | None) -> Transport:
    """Connects to ``/ws/secure``. Works with every version of ``websockets`` from 10 on."""
    import websockets

    query = f"?{urlencode({'after': position.after, 'epoch': position.epoch})}" if position else ""
    target = f"{re.sub('^http', 'ws', url.rstrip('/'))}/ws/secure{query}"
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    try:
        socket = await websockets.connect(
            target, subprotocols=["jwt-auth", f"jwt.{encoded}"], open_timeout=CONNECT_SECONDS, max_size=MAX_MESSAGE_BYTES
        )
    except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
        raise TransportClosed(f"WebSocket: {error or type(error).__name__}") from error
    return _WebSocket(socket)


class _SocketIo:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._messages: asyncio.Queue[tuple[str, dict[str, Any]] | TransportClosed] = asyncio.Queue(MAX_WAITING)
        self._closed: TransportClosed | None = None

    def message(self, type: str, fields: Any) -> None:
        try:
            self._messages.put_nowait((type, fields if isinstance(fields, dict) else {}))
        except asyncio.QueueFull:
            self.ended(TransportClosed(f"more than {MAX_WAITING} messages are waiting"))

    def ended(self, closed: TransportClosed) -> None:
        if self._closed is None:
            self._closed = closed
            if self._messages.full():
                self._messages.get_nowait()
            self._messages.put_nowait(closed)

    async def send(self, type: str, fields: Fields) -> None:
        import socketio

        if self._closed:
            raise self._closed
        try:
            await self._client.emit(type, dict(fields))
        except (socketio.exceptions.SocketIOError, OSError) as error:
            raise TransportClosed(f"Socket.IO: {error}") from error

    async def receive(self) -> tuple[str, dict[str, Any]]:
        item = await self._messages.get()
        if isinstance(item, TransportClosed):
            raise item
        return item

    @property
    def reason(self) -> TransportClosed | None:
        return self._closed

    def refused(self, data: Any) -> None:
        """The gateway's refusal, or what the library says of a connection that never opened."""
        details = data.get("data", data.get("error", data)) if isinstance(data, dict) else {}
        if isinstance(details, dict) and isinstance(details.get("code"), str):
            self.message("error", details)
            self.ended(TransportClosed(f"Socket.IO: {details.get('message')}", details["code"]))
        else:
            self.ended(TransportClosed(f"Socket.IO: {data}"))

    def loop_ended(self, loop: asyncio.Task[None]) -> None:
        error = None if loop.cancelled() else loop.exception()
        self.ended(TransportClosed(f"Socket.IO: {error or 'lost'}"))

    async def close(self) -> None:
        engine = self._client.eio
        await self._client.disconnect()
        if engine.write_loop_task:
            # It sends the last packet, with which the gateway ends the connection at once.
            await asyncio.wait([engine.write_loop_task], timeout=1)
        # Otherwise a poll under way would keep its task and its socket for half a minute.
        for loop in (engine.read_loop_task, engine.write_loop_task):
            if loop:
                loop.cancel()
        if engine.http and not engine.http.closed:
            await engine.http.close()


def socketio_transport(transports: tuple[str, ...] = ("websocket",)) -> OpenTransport:
    """Returns a function that connects over Socket.IO (python-socketio and aiohttp)."""

    async def open_socketio(url: str, token: str, position: Position | None) -> Transport:
        import socketio

        client = socketio.AsyncClient(reconnection=False)
        transport = _SocketIo(client)

        @client.on("*")
        async def on_message(type: str, fields: Any = None) -> None:
            transport.message(type, fields)

        @client.on("connect_error")
        async def on_refusal(data: Any = None) -> None:
            transport.refused(data)

        @client.on("disconnect")
        async def on_disconnect(*_: Any) -> None:
            transport.ended(TransportClosed("Socket.IO: disconnected"))

        auth: dict[str, Any] = {"token": token}
        if position:
            auth |= {"after": position.after, "epoch": position.epoch}
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                # The welcome, or its refusal, is a message: `wait` would give up after a second.
                await client.connect(url, auth=auth, transports=list(transports), wait=False)
        except Exception as error:
            # Of this library, or of its HTTP client.
            await transport.close()
            raise transport.reason or TransportClosed(f"Socket.IO: {error or type(error).__name__}") from error
        # python-engineio reports no disconnect after a refused or failed POST, nor after a poll that was cut within its
        # response. Its loops end then.
        for loop in (client.eio.read_loop_task, client.eio.write_loop_task):
            loop.add_done_callback(transport.loop_ended)
        return transport

    return open_socketio
