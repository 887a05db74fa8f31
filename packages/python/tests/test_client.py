"""The client against a scripted gateway. Run: python3 -m unittest discover -s packages/python/tests"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tollgate_client import (  # noqa: E402
    EventsLostError,
    FilePositionStore,
    Position,
    RunFailedError,
    Tokens,
    Tollgate,
    TollgateError,
)
from tollgate_client.transports import TransportClosed  # noqa: E402

COMPLETED = {"final_response": "Done.", "duration_ms": 5, "tools_used": ["search"]}


class ScriptedConnection:
    """One connection attempt, played by the test in the role of the gateway."""

    def __init__(self, token: str, position: Position | None) -> None:
        self.token = token
        self.position = position
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()

    async def send(self, type: str, fields: Any) -> None:
        self.sent.append((type, dict(fields)))

    async def receive(self) -> tuple[str, dict[str, Any]]:
        item = await self._incoming.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        pass

    def message(self, type: str, **fields: Any) -> None:
        self._incoming.put_nowait((type, fields))

    def welcome(self, **fields: Any) -> None:
        welcome = {
            "authenticated": True,
            "user_id": "u1",
            "plan": "pro",
            "permissions": [],
            "thread_id": "thread_1",
            "epoch": "e1",
            "seq": 0,
            "limits": {"heartbeat_interval": 30},
        }
        self.message("connection_established", **{**welcome, **fields})

    def end(self, code: str | None = None, final: bool = False) -> None:
        self._incoming.put_nowait(TransportClosed("test", code, final))

    def fail(self, error: Exception) -> None:
        self._incoming.put_nowait(error)

    def last(self, type: str) -> dict[str, Any] | None:
        return next((fields for sent, fields in reversed(self.sent) if sent == type), None)


class ClientTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.connections: list[ScriptedConnection] = []
        self.tokens: list[str | None] = []
        self.clients: list[Tollgate] = []

    async def asyncTearDown(self) -> None:
        for client in self.clients:
            await client.close()

    def create(self, **options: Any) -> Tollgate:
        async def connect(_url: str, token: str, position: Position | None) -> ScriptedConnection:
            self.connections.append(ScriptedConnection(token, position))
            return self.connections[-1]

        def get_token(previous: str | None) -> str:
            self.tokens.append(previous)
            return f"token-{len(self.tokens)}"

        given = {"transport": connect, "first_backoff": 0.001, "max_backoff": 0.002, **options}
        client = Tollgate("http://gateway.test", given.pop("get_token", get_token), **given)
        self.clients.append(client)
        self.events: list[int] = []
        self.errors: list[TollgateError] = []
        self.lost: list[str] = []
        client.on("event", lambda event: self.events.append(event["seq"]))
        client.on("error", self.errors.append)
        client.on("lost", self.lost.append)
        return client

    async def until(self, predicate: Any) -> None:
        async with asyncio.timeout(5):
            while not predicate():
                await asyncio.sleep(0.001)

    async def attempt(self, count: int) -> ScriptedConnection:
        await self.until(lambda: len(self.connections) == count)
        return self.connections[-1]

    async def connected(self, **options: Any) -> tuple[Tollgate, ScriptedConnection]:
        client = self.create(**options)
        client.connect()
        connection = await self.attempt(1)
        connection.welcome()
        await self.until(lambda: client.state == "connected")
        return client, connection

    async def test_resumes_after_the_last_event_and_delivers_each_event_once(self) -> None:
        _, connection = await self.connected()
        for seq in (1, 2):
            connection.message("agent_thinking", seq=seq)
        connection.end()
        connection = await self.attempt(2)
        self.assertEqual(connection.position, Position(2, "e1"))
        connection.welcome(seq=4)
        for seq in (2, 3, 4):
            connection.message("agent_thinking", seq=seq)
        connection.message("resumed")
        # A type that only a backend knows.
        connection.message("order.shipped", seq=5)
        await self.until(lambda: self.events == [1, 2, 3, 4, 5])

    async def test_hands_over_its_refresh_token_and_replaces_it_by_the_next_one(self) -> None:
        client, connection = await self.connected(get_token=lambda _: Tokens("access-1", None, "refresh-1"))
        stored: list[Tokens] = []
        client.on("tokens", stored.append)
        self.assertEqual(connection.last("token_refresh"), {"token": "access-1", "refresh_token": "refresh-1"})
        connection.message("token_refreshed", access_token="access-2", refresh_token="refresh-2")
        connection.end()
        connection = await self.attempt(2)
        self.assertEqual(stored, [Tokens("access-2", None, "refresh-2")])
        connection.welcome()
        await self.until(lambda: connection.last("token_refresh") is not None)
        self.assertEqual(connection.last("token_refresh"), {"token": "access-2", "refresh_token": "refresh-2"})

    async def test_fetches_another_token_when_the_given_expiry_is_near(self) -> None:
        answers = [Tokens("t1", time.time() + 1), Tokens("t2", "2999-01-01T00:00:00Z")]
        _, connection = await self.connected(get_token=lambda _: answers.pop(0))
        connection.end()
        self.assertEqual((await self.attempt(2)).token, "t2")

    async def test_requests_missing_events_and_drops_what_the_replay_repeats(self) -> None:
        _, connection = await self.connected()
        for seq in (1, 3):
            connection.message("agent_thinking", seq=seq)
        await self.until(lambda: connection.last("resume"))
        self.assertEqual(connection.last("resume"), {"after": 1, "epoch": "e1"})
        for seq in (4, 2, 3, 4):
            connection.message("agent_thinking", seq=seq)
        await self.until(lambda: self.events == [1, 2, 3, 4])

    async def test_reports_a_trimmed_log_and_reads_on_from_the_oldest_event(self) -> None:
        _, connection = await self.connected()
        connection.message("resume_failed", reason="trimmed", oldest_seq=7, epoch="e1")
        await self.until(lambda: connection.last("resume"))
        self.assertEqual((self.lost, connection.last("resume")), (["trimmed"], {"after": 6, "epoch": "e1"}))

    async def test_stops_after_a_final_refusal(self) -> None:
        for code, final in (("CONNECTION_LIMIT_EXCEEDED", True), ("USER_BLOCKED", False), (None, True)):
            self.connections.clear()
            client, connection = await self.connected()
            connection.end(code, final)
            await self.until(lambda client=client: client.state == "stopped")
            self.assertEqual(self.errors[-1].code, code or "DISCONNECTED")

    async def test_fetches_a_new_token_once_when_the_token_is_refused(self) -> None:
        client, connection = await self.connected()
        connection.end("TOKEN_EXPIRED")
        connection = await self.attempt(2)
        self.assertEqual((connection.token, self.tokens), ("token-2", [None, "token-1"]))
        connection.end("VALIDATION_FAILED")
        await self.until(lambda: client.state == "stopped")

    async def test_uses_the_token_that_the_gateway_has_refreshed(self) -> None:
        _, connection = await self.connected()
        connection.message("token_refreshed", access_token="newer", token_expires_at="2099-01-01T00:00:00.000Z")
        connection.end()
        self.assertEqual((await self.attempt(2)).token, "newer")

    async def test_presents_a_token_of_its_own_when_the_gateway_cannot_refresh(self) -> None:
        _, connection = await self.connected()
        connection.message("token_degraded", until="2099-01-01T00:00:00.000Z")
        await self.until(lambda: connection.last("token_refresh"))
        self.assertEqual(connection.last("token_refresh"), {"token": "token-2"})

    async def test_tries_again_when_get_token_fails_and_stops_when_signed_out(self) -> None:
        answers: list[Any] = [OSError("offline"), None]

        def get_token(_: str | None) -> str | None:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        client = self.create(get_token=get_token)
        client.connect()
        await self.until(lambda: client.state == "stopped")
        self.assertEqual([(error.code, error.retryable) for error in self.errors], [("SIGNED_OUT", True), ("SIGNED_OUT", False)])

    async def test_a_request_that_times_out_says_why_there_is_no_connection(self) -> None:
        client = self.create(request_timeout=0.2, first_backoff=60.0, max_backoff=60.0)
        call = asyncio.create_task(client.call_tool("search"))
        (await self.attempt(1)).end("OVERLOADED")
        with self.assertRaisesRegex(TollgateError, r"No answer to tool_call: not connected \(OVERLOADED: test\)\."):
            await call

    async def test_get_token_may_omit_its_argument(self) -> None:
        client = self.create(get_token=lambda: "token")
        client.connect()
        self.assertEqual((await self.attempt(1)).token, "token")

    async def test_refuses_a_url_without_a_scheme_and_a_token_in_place_of_get_token(self) -> None:
        with self.assertRaisesRegex(ValueError, "must begin with http://"):
            Tollgate("localhost:8000", lambda: "token")
        with self.assertRaisesRegex(TypeError, "get_token must be a function"):
            Tollgate("http://localhost:8000", "token")  # type: ignore[arg-type]

    async def test_reconnects_after_an_error_that_no_transport_should_raise(self) -> None:
        _, connection = await self.connected()
        connection.fail(ValueError("not JSON"))
        await self.attempt(2)
        self.assertIn("ValueError: not JSON", str(self.errors[-1]))

    async def test_closes_although_a_library_swallows_a_cancellation(self) -> None:
        client, connection = await self.connected()
        receive = connection.receive

        async def swallows() -> tuple[str, dict[str, Any]]:
            try:
                return await receive()
            except asyncio.CancelledError:
                return "heartbeat", {}

        connection.receive = swallows  # type: ignore[method-assign]
        connection.message("heartbeat")
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0.01)
            connection.receive = receive  # type: ignore[method-assign]
            await closing
        self.assertEqual(client.state, "stopped")

    async def test_drops_a_connection_without_heartbeats(self) -> None:
        client = self.create()
        client.connect()
        connection = await self.attempt(1)
        # The client waits 2 x -2.49 + 5 s = 20 ms.
        connection.welcome(limits={"heartbeat_interval": -2.49})
        await self.attempt(2)

    async def test_keeps_its_position_in_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "position.json"
            client, connection = await self.connected(store=FilePositionStore(path))
            connection.message("agent_thinking", seq=1)
            await self.until(lambda: self.events == [1])
            await client.close()
            self.assertEqual(json.loads(path.read_text()), {"after": 1, "epoch": "e1"})
            self.create(store=FilePositionStore(path)).connect()
            self.assertEqual((await self.attempt(2)).position, Position(1, "e1"))

    async def test_reports_a_store_that_fails_and_goes_on(self) -> None:
        client, connection = await self.connected(store=FilePositionStore("/nonexistent/position.json"))
        connection.message("agent_thinking", seq=1)
        await self.until(lambda: self.events == [1])
        self.assertEqual((client.state, self.errors[-1].code), ("connected", "POSITION_NOT_SAVED"))

    def emit(self, connection: ScriptedConnection, request_id: str, *types: str, **fields: Any) -> None:
        for seq, type in enumerate(types, 1):
            connection.message(type, seq=seq, request_id=request_id, run_id="run_1", thread_id="t1", **fields)

    async def accept(self, connection: ScriptedConnection) -> str:
        await self.until(lambda: connection.last("agent_request"))
        request = connection.last("agent_request") or {}
        connection.message("agent_accepted", request_id=request["request_id"], run_id="run_1", thread_id="t1")
        return request["request_id"]

    async def test_a_run_yields_its_events_and_its_result(self) -> None:
        client, connection = await self.connected()
        run = client.run("Hello", agent="triage")
        request_id = await self.accept(connection)
        self.assertEqual(await run.accepted(), ("run_1", "t1"))
        self.emit(connection, request_id, "agent_started", "agent_completed", **COMPLETED)
        self.assertEqual([event["type"] async for event in run], ["agent_started", "agent_completed"])
        self.assertEqual(((await run.result()).text, (await run.result()).tools_used), ("Done.", ("search",)))

    async def test_a_run_is_requested_again_under_the_same_id_until_it_is_accepted(self) -> None:
        client, connection = await self.connected()
        run = client.run("Hello")
        await self.until(lambda: connection.last("agent_request"))
        connection.end()
        connection = await self.attempt(2)
        connection.welcome()
        self.assertEqual(await self.accept(connection), run.request_id)
        await run.accepted()
        connection.end()
        connection = await self.attempt(3)
        connection.welcome()
        await self.until(lambda: client.state == "connected")
        self.assertEqual(connection.sent, [])

    async def test_answers_what_a_run_asks(self) -> None:
        client, connection = await self.connected()
        run = client.run("Hello")
        request_id = await self.accept(connection)
        self.emit(connection, request_id, "input_requested", input_id="input_1", kind="choice", choices=["a", "b"])
        answer: asyncio.Future[Any] | None = None
        async for event in run:
            if event["type"] != "input_requested":
                continue
            answer = asyncio.ensure_future(client.respond(event, action="accept", content={"choice": "b"}))
            await self.until(lambda: connection.last("input_response"))
            sent = connection.last("input_response") or {}
            given = {"run_id": "run_1", "input_id": "input_1", "action": "accept"}
            self.assertEqual(sent, {**given, "content": {"choice": "b"}, "request_id": sent["request_id"]})
            connection.message("input_accepted", **given, repeated=False, request_id=sent["request_id"])
            fields = {"request_id": request_id, "run_id": "run_1", "thread_id": "t1", **COMPLETED}
            connection.message("agent_completed", seq=2, **fields)
        assert answer is not None
        self.assertEqual((await answer)["repeated"], False)

    async def test_a_failed_run_yields_its_end_and_raises_its_error(self) -> None:
        client, connection = await self.connected()
        run = client.run("Hello")
        request_id = await self.accept(connection)
        self.emit(connection, request_id, "agent_failed", error={"code": "RUN_TIMEOUT", "message": "Slow.", "retryable": True})
        self.assertEqual([event["type"] async for event in run], ["agent_failed"])
        with self.assertRaises(RunFailedError) as caught:
            await run.result()
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("RUN_TIMEOUT", True))

    async def test_a_run_whose_events_are_lost_raises(self) -> None:
        client, connection = await self.connected()
        run = client.run("Hello")
        await self.accept(connection)
        await run.accepted()
        await self.lose(connection, status="unknown")
        with self.assertRaises(EventsLostError):
            await run.result()
        with self.assertRaises(EventsLostError):
            await run.__aiter__().__anext__()

    async def lose(self, connection: ScriptedConnection, **state: Any) -> None:
        """Loses the events of a run, and answers what became of it."""
        connection.message("resume_failed", reason="epoch_changed", oldest_seq=1, epoch="e2")
        await self.until(lambda: connection.last("run_status"))
        connection.message("run_status", **{**(connection.last("run_status") or {}), "thread_id": "t1", **state})

    async def test_a_run_whose_events_are_lost_ends_as_the_gateway_reports(self) -> None:
        for status, code in (("failed", "RUN_FAILED"), ("cancelled", "RUN_CANCELLED"), ("completed", "EVENTS_LOST")):
            self.connections.clear()
            client, connection = await self.connected()
            run = client.run("Hello")
            await self.accept(connection)
            await run.accepted()
            await self.lose(connection, status=status)
            with self.assertRaises(TollgateError) as caught:
                await run.result()
            self.assertEqual(caught.exception.code, code)

    async def test_a_run_whose_events_are_lost_has_its_result(self) -> None:
        client, connection = await self.connected()
        first = client.run("Hello")
        await self.accept(connection)
        await first.accepted()
        await self.lose(connection, status="completed", final_response="Done.")
        self.assertEqual((await first.result()).text, "Done.")
        second = client.run("Again")
        await self.until(lambda: (connection.last("agent_request") or {}).get("message") == "Again")
        request_id = await self.accept(connection)
        await second.accepted()
        connection.sent.clear()
        await self.lose(connection, status="running")
        self.emit(connection, request_id, "agent_completed", **COMPLETED)
        self.assertEqual((await second.result()).text, "Done.")

    async def test_a_run_without_a_reader_is_bounded_and_keeps_its_result(self) -> None:
        client, connection = await self.connected(max_queued_events=3)
        run = client.run("Hello")
        request_id = await self.accept(connection)
        self.emit(connection, request_id, *["agent_thinking"] * 5, "agent_completed", **COMPLETED)
        self.assertEqual((await run.result()).text, "Done.")
        with self.assertRaises(TollgateError) as caught:
            await run.__aiter__().__anext__()
        self.assertEqual(caught.exception.code, "RUN_BUFFER_FULL")

    async def test_waits_for_a_short_retry_delay_and_raises_on_a_long_one(self) -> None:
        client, connection = await self.connected()
        limited = {"code": "RATE_LIMITED", "message": "Slow down.", "retryable": True}
        call = asyncio.ensure_future(client.call_tool("search"))
        await self.until(lambda: connection.last("tool_call"))
        first = connection.last("tool_call") or {}
        connection.message("error", **limited, retry_after_ms=1, request_id=first["request_id"])
        await self.until(lambda: len(connection.sent) == 2)
        self.assertEqual(connection.last("tool_call"), first)
        connection.message("error", **limited, retry_after_ms=60_000, request_id=first["request_id"])
        with self.assertRaises(TollgateError) as caught:
            await call
        self.assertEqual((caught.exception.code, caught.exception.retry_after_ms), ("RATE_LIMITED", 60_000))

    async def test_close_rejects_what_is_unanswered(self) -> None:
        client, _ = await self.connected()
        run = client.run("Hello")
        call = asyncio.ensure_future(client.call_tool("search"))
        await asyncio.sleep(0)
        await client.close()
        for work in (run.result(), call):
            with self.assertRaises(TollgateError) as caught:
                await work
            self.assertEqual(caught.exception.code, "CLOSED")


if __name__ == "__main__":
    unittest.main()
