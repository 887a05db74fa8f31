"""The Socket.IO transport against a scripted Engine.IO server that fails in the middle of a session."""

from __future__ import annotations

import asyncio
import json
import sys
import unittest
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

try:
    import socketio  # noqa: F401
    from aiohttp import web
except ImportError:
    raise unittest.SkipTest("python-socketio or aiohttp is not installed") from None

from tollgate_client.transports import Transport, TransportClosed, socketio_transport  # noqa: E402

OPEN = {"sid": "s1", "upgrades": [], "pingInterval": 25_000, "pingTimeout": 20_000}
WELCOME = '40{"sid":"n1"}\x1e42["connection_established",{"seq":1}]'
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("the client has not left")


async def cut(request: web.Request) -> web.StreamResponse:
    """A response whose body ends before its announced length, as of a gateway that is killed."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"2")
    if request.transport:
        request.transport.abort()
    return response


def text(body: str, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status)

    return answer


class SocketIoTest(unittest.IsolatedAsyncioTestCase):
    async def start(self, polls: list[Answer], posts: list[Answer]) -> Transport:
        """Connects by long polling to a server that gives these answers, in order."""

        async def get(request: web.Request) -> web.StreamResponse:
            if "sid" not in request.query:
                return web.Response(text=f"0{json.dumps(OPEN)}")
            return await (polls.pop(0) if polls else never)(request)

        async def post(request: web.Request) -> web.StreamResponse:
            await request.text()
            return await (posts.pop(0) if posts else text("ok"))(request)

        app = web.Application()
        app.add_routes([web.get("/socket.io/", get), web.post("/socket.io/", post)])
        runner = web.AppRunner(app)
        await runner.setup()
        self.addAsyncCleanup(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        port = runner.addresses[0][1]
        transport = await socketio_transport(("polling",))(f"http://127.0.0.1:{port}", "token", None)
        self.addAsyncCleanup(transport.close)
        return transport

    async def end(self, transport: Transport) -> TransportClosed:
        """How the connection ends, well before a poll times out."""
        async with asyncio.timeout(5):
            with self.assertRaises(TransportClosed) as raised:
                while True:
                    await transport.receive()
        return raised.exception

    async def welcomed(self, polls: list[Answer], posts: list[Answer]) -> Transport:
        transport = await self.start([text(WELCOME), *polls], [text("ok"), *posts])
        self.assertEqual(await transport.receive(), ("connection_established", {"seq": 1}))
        return transport

    async def test_a_request_that_a_proxy_refuses_ends_the_connection(self) -> None:
        transport = await self.welcomed([never], [text("bad gateway", 502)])
        await transport.send("ping", {})
        await self.end(transport)

    async def test_a_poll_that_is_cut_within_its_response_ends_the_connection(self) -> None:
        await self.end(await self.welcomed([cut], []))

    async def test_a_session_that_the_next_node_does_not_know_ends_the_connection(self) -> None:
        await self.end(await self.welcomed([text('{"code":1,"message":"Session ID unknown"}', 400)], []))

    async def test_a_refusal_of_the_gateway_ends_the_connection_with_its_code(self) -> None:
        refusal = {"code": "RATE_LIMITED", "message": "Later.", "retryable": True, "retry_after_ms": 5}
        error = json.dumps({"message": "Later.", "data": refusal})
        transport = await self.start([text(f"44{error}")], [])
        self.assertEqual(await transport.receive(), ("error", refusal))
        self.assertEqual((await self.end(transport)).code, "RATE_LIMITED")

    async def test_a_refused_session_raises_the_code_of_the_gateway(self) -> None:
        app = web.Application()
        body = {"error": {"code": "SERVER_DRAINING", "message": "Elsewhere.", "retryable": True}}

        async def refuse(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=503)

        app.add_routes([web.get("/socket.io/", refuse)])
        runner = web.AppRunner(app)
        await runner.setup()
        self.addAsyncCleanup(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with self.assertRaises(TransportClosed) as raised:
            await socketio_transport(("polling",))(f"http://127.0.0.1:{runner.addresses[0][1]}", "token", None)
        self.assertEqual(raised.exception.code, "SERVER_DRAINING")


if __name__ == "__main__":
    unittest.main()
