"""The connection of one user to a Tollgate gateway."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import ConnectionStoppedError, TollgateError
from .position import Position, PositionStore, StreamPosition
from .protocol import RETRYABLE_CODES
from .requests import Requests
from .run import Run
from .tokens import GetToken, TokenSource
from .transports import OpenTransport, Transport, TransportClosed, open_websocket

#: ``decline`` is a refusal, ``cancel`` no decision.
Action = Literal["accept", "decline", "cancel"]
State = Literal["idle", "connecting", "connected", "waiting", "stopped"]
Listener = Callable[[Any], None]

#: Refusals that a fresh token can cure.
TOKEN_CODES = frozenset({"TOKEN_EXPIRED", "VALIDATION_FAILED", "TOKEN_REVOKED", "NO_TOKEN"})
#: Messages whose ``seq`` is the head of the log. Every other message with a ``seq`` is a durable event, also one of a
#: type that a backend or a newer gateway has chosen.
WELCOMES = frozenset({"connection_established", "auth_success"})
#: The gateway ends a handshake after ten seconds.
WELCOME_SECONDS = 15.0
#: Consecutive resumes after a gap. Then the client connects again.
MAX_RESYNCS = 3
SAVE_SECONDS = 0.25


@dataclass(frozen=True)
class Identity:
    """The user of the connection, as of the last welcome."""

    user_id: str
    plan: str
    permissions: tuple[str, ...]
    #: The connection's own thread, to which runs without ``thread`` belong.
    thread_id: str
    limits: Mapping[str, Any]


class Tollgate:
    """Connects at the first use, resumes after a lost connection, and renews its token.

    ``on(name, listener)`` accepts ``state``, ``identity``, ``event`` (every durable event of the user, once and in
    order), ``notice`` (a message that answers no request), ``token``, ``tokens`` (a ``Tokens`` with the next refresh token,
    which replaces the earlier one: store it), ``lost`` and ``error``. Use the client in one
    event loop; ``SyncTollgate`` is the same for code without one.
    """

    def __init__(
        self,
        url: str,
        get_token: GetToken,
        *,
        transport: OpenTransport = open_websocket,
        store: PositionStore | None = None,
        first_backoff: float = 0.5,
        max_backoff: float = 20.0,
        request_timeout: float = 60.0,
        max_retry_after: float = 10.0,
        max_queued_events: int = 10_000,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The URL of the gateway must begin with http:// or https://: {url!r}")
        if not callable(get_token):
            raise TypeError("get_token must be a function that returns an access token")
        self._url = url
        self._tokens = TokenSource(get_token)
        self._open = transport
        self._position = StreamPosition(store)
        self._backoff = (first_backoff, max_backoff)
        self._max_queued = max_queued_events
        self._requests = Requests(self._send, lambda: self._problem, request_timeout, max_retry_after)
        self._listeners: dict[str, list[Listener]] = {}
        self._runs: dict[str, Run] = {}
        self._task: asyncio.Task[None] | None = None
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._transport: Transport | None = None
        self._retry_after: float | None = None
        self._error: TollgateError | None = None
        self._problem: TollgateError | None = None
        self._is_resyncing = False
        self._resyncs = 0
        self._saved_at = 0.0
        self.state: State = "idle"
        self.identity: Identity | None = None

    async def __aenter__(self) -> Tollgate:
        self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Returns a function that removes the listener."""
        listeners = self._listeners.setdefault(name, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def connect(self) -> None:
        """Connects without a request, and also after the client has stopped."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def run(
        self, message: str, *, agent: str | None = None, thread: str | None = None, request_id: str | None = None
    ) -> Run:
        """Starts a run. The same ``request_id`` starts one run within 24 hours."""
        run = Run(request_id or _new_id(), self.cancel, self._max_queued)
        self._runs[run.request_id] = run
        run._result.add_done_callback(lambda _: self._runs.pop(run.request_id, None))
        self._in_background(self._start(run, {"message": message, "agent": agent, "thread_id": thread}))
        return run

    async def cancel(self, run_id: str) -> None:
        """Cancels a run, for example one that another process started."""
        await self._request("agent_cancel", {"run_id": run_id})

    async def run_status(self, run_id: str) -> dict[str, Any]:
        """What became of a run that was accepted within the last 24 hours."""
        return await self._request("run_status", {"run_id": run_id})

    async def respond(
        self, request: Mapping[str, Any], *, action: Action, content: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Answers what a run asks: ``request`` is an event ``input_requested``, or has its ``run_id`` and ``input_id``.

        ``content`` belongs to an accepted choice (``{"choice": …}``), form or tool (``{"result": …}`` or
        ``{"error": "…"}``). The first answer counts; the same one again is ``repeated``. Raises INPUT_ALREADY_ANSWERED,
        INPUT_EXPIRED, or FORMAT_ERROR for content that does not fit.
        """
        ids = {"run_id": request["run_id"], "input_id": request["input_id"]}
        return await self._request("input_response", {**ids, "action": action, "content": content})

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Calls a tool outside a run. Returns the outcome, also of a tool that failed (``success`` is False).

        The same ``idempotency_key`` is executed and charged once within 24 hours. Default: a random one, so the
        client's own retries are safe. Raises the error of a refused call, which is not charged.
        """
        key = idempotency_key or _new_id()
        return await self._request("tool_call", {"tool": name, "arguments": arguments or {}, "idempotency_key": key})

    async def tools(self) -> list[dict[str, Any]]:
        """The tools that the user's plan allows."""
        return (await self._request("tools_list", {}))["tools"]

    async def usage(self) -> dict[str, Any]:
        """The user's limits and what is used of them."""
        return await self._request("usage_summary", {})

    async def threads(self) -> list[dict[str, Any]]:
        """The user's threads, the last changed first."""
        return (await self._request("threads_list", {}))["threads"]

    async def thread_history(
        self, thread_id: str, *, before: str | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """A page of messages, newest first. Its ``before`` requests the next page, and is None on the last one."""
        return await self._request("thread_history", {"thread_id": thread_id, "before": before, "limit": limit})

    async def close(self) -> None:
        """Closes the connection for good. Runs continue in the gateway; unanswered requests raise CLOSED."""
        task, self._task = self._task, None
        # Libraries may swallow a cancellation, so one may not be enough.
        while task and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1)
        self._stop(ConnectionStoppedError("CLOSED", "The client was closed.", retryable=False))
        for side_task in list(self._side_tasks):
            side_task.cancel()
        await asyncio.gather(*self._side_tasks, return_exceptions=True)

    async def _request(self, type: str, fields: Mapping[str, Any], request_id: str | None = None) -> dict[str, Any]:
        self.connect()
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._requests.request(type, given, request_id or _new_id())

    async def _start(self, run: Run, fields: Mapping[str, Any]) -> None:
        try:
            reply = await self._request("agent_request", fields, run.request_id)
            run.accept(str(reply["run_id"]), str(reply["thread_id"]))
        except asyncio.CancelledError:
            run.fail(ConnectionStoppedError("CLOSED", "The client was closed.", retryable=False))
            raise
        except Exception as error:
            run.fail(error)

    async def _send(self, type: str, fields: Mapping[str, Any]) -> None:
        """Sends if connected. A request that is not sent, or lost, is sent again after the next welcome."""
        if self.state == "connected" and self._transport:
            try:
                await self._transport.send(type, fields)
            except TransportClosed:
                pass

    # The connection

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            self._set_state("connecting")
            self._error = None
            try:
                token = await self._tokens.current()
            except Exception as cause:
                error = TollgateError("SIGNED_OUT", f"get_token failed: {cause}", retryable=True)
                failures = await self._wait(failures, error)
                continue
            if token is None:
                return self._stop(ConnectionStoppedError("SIGNED_OUT", "get_token returned no token.", retryable=False))
            closed = await self._serve(token)
            if self.state == "connected":
                failures = 0
            self._leave()
            code = closed.code or (self._error.code if self._error else None)
            if code in TOKEN_CODES and self._tokens.forget():
                continue
            error = self._close_error(code, closed.detail)
            if closed.final or (code is not None and not error.retryable):
                return self._stop(error)
            failures = await self._wait(failures, error)

    async def _serve(self, token: str) -> TransportClosed:
        """Serves one connection and returns how it ended. No error of a library or of a message ends the client."""
        try:
            await self._session(token)
        except TransportClosed as closed:
            return closed
        except Exception as error:
            return TransportClosed(f"{type(error).__name__}: {error}")
        return TransportClosed("the connection ended")

    def _close_error(self, code: str | None, detail: str) -> ConnectionStoppedError:
        known = self._error if self._error and self._error.code == code else None
        retryable = known.retryable if known else code is None or code in RETRYABLE_CODES
        if known and known.retry_after_ms is not None:
            self._retry_after = known.retry_after_ms / 1000
        return ConnectionStoppedError(code or "DISCONNECTED", detail, retryable=retryable)

    async def _wait(self, failures: int, error: TollgateError) -> int:
        """Exponential with full jitter, or as long as the gateway asks."""
        first, most = self._backoff
        delay = random.uniform(0, min(most, first * 2 ** min(failures, 20)))
        if self._retry_after is not None:
            delay = self._retry_after
        self._retry_after = None
        self._problem = error
        self._set_state("waiting")
        self._emit("error", error)
        await asyncio.sleep(delay)
        return failures + 1

    async def _session(self, token: str) -> None:
        """Serves one connection until it ends with TransportClosed."""
        transport = await self._open(self._url, token, self._position.current)
        self._transport = transport
        self._is_resyncing = self._position.current is not None
        self._resyncs = 0
        # Later two missing heartbeats: the socket may be half open.
        timeout = WELCOME_SECONDS
        try:
            while True:
                try:
                    # Not `wait_for`: in Python 3.11 it can swallow a cancellation.
                    async with asyncio.timeout(timeout):
                        type, fields = await transport.receive()
                except TimeoutError:
                    raise TransportClosed("no heartbeat") from None
                await self._received(type, fields)
                if self.identity and self.state == "connected":
                    timeout = 2.0 * float(self.identity.limits.get("heartbeat_interval", 30)) + 5
        finally:
            closing = asyncio.ensure_future(transport.close())
            await asyncio.wait([closing], timeout=2)

    async def _received(self, type: str, fields: dict[str, Any]) -> None:
        if isinstance(fields.get("seq"), int) and type not in WELCOMES:
            await self._durable(type, fields)
        elif type == "connection_established":
            if fields.get("authenticated") is True:
                await self._welcomed(fields)
        elif type == "resumed":
            self._is_resyncing = False
            self._resyncs = 0
        elif type == "resume_failed":
            after = max(0, int(fields.get("oldest_seq") or 1) - 1)
            self._position.current = Position(after, str(fields["epoch"]))
            for run in list(self._runs.values()):
                self._in_background(run.resolve(self.run_status, run.lost(str(fields.get("reason")))))
            self._emit("lost", fields.get("reason"))
            await self._resync()
        elif type == "token_refreshed":
            if isinstance(fields.get("access_token"), str):
                self._token_refreshed(fields["access_token"], fields)
        elif type in ("token_refresh_failed", "token_degraded"):
            self._in_background(self._present_token())
        elif type == "server_draining":
            self._retry_after = float(fields.get("retry_after_ms") or 0) / 1000
        elif type in ("heartbeat", "pong") or self._requests.receive(type, fields):
            return
        elif type == "error":
            self._error = TollgateError.from_fields(fields)
            self._emit("error", self._error)
        elif type == "plan_changed" and self.identity:
            known = self.identity
            permissions = tuple(fields.get("permissions") or ())
            self._identify(Identity(known.user_id, fields["plan"], permissions, known.thread_id, fields["limits"]))
        else:
            self._emit("notice", {"type": type, "fields": fields})

    async def _welcomed(self, fields: dict[str, Any]) -> None:
        self._tokens.accepted(fields.get("token_expires_at"))
        if self._position.current is None:
            self._position.current = Position(int(fields["seq"]), str(fields["epoch"]))
        self._problem = None
        self._set_state("connected")
        # Each connection hands over the refresh token of its session, and so receives the next one.
        if self._tokens.has_refresh_token:
            await self._send("token_refresh", self._tokens.fields)
        permissions = tuple(fields.get("permissions") or ())
        limits = fields.get("limits") or {}
        self._identify(Identity(fields["user_id"], fields["plan"], permissions, fields["thread_id"], limits))
        await self._requests.connected()

    def _identify(self, identity: Identity) -> None:
        self.identity = identity
        self._emit("identity", identity)

    async def _durable(self, type: str, fields: dict[str, Any]) -> None:
        arrival = self._position.arrive(int(fields["seq"]))
        if arrival == "deliver":
            if time.monotonic() - self._saved_at > SAVE_SECONDS:
                self._saved_at = time.monotonic()
                self._save_position()
            event = {"type": type, **fields}
            run = self._runs.get(str(fields.get("request_id")))
            if run:
                run.push(event)
            self._emit("event", event)
        elif arrival == "gap" and not self._is_resyncing:
            await self._resync()

    async def _resync(self) -> None:
        """Requests the events after the position. Until their end only the next event counts: the others repeat."""
        self._resyncs += 1
        if self._resyncs > MAX_RESYNCS:
            raise TransportClosed("the event log is trimmed faster than it can be read")
        self._is_resyncing = True
        position = self._position.current
        if position and self._transport:
            await self._transport.send("resume", {"after": position.after, "epoch": position.epoch})

    def _token_refreshed(self, token: str, fields: Mapping[str, Any]) -> None:
        tokens = self._tokens.refreshed(token, fields)
        self._emit("token", token)
        if tokens:
            self._emit("tokens", tokens)

    async def _present_token(self) -> None:
        try:
            token = await self._tokens.fresh()
        except Exception as cause:
            self._emit("error", TollgateError("SIGNED_OUT", f"get_token failed: {cause}", retryable=True))
            return
        if token is not None:
            await self._send("token_refresh", self._tokens.fields)

    # State

    def _leave(self) -> None:
        self._transport = None
        self._save_position()

    def _save_position(self) -> None:
        """A store that fails costs the position across processes, nothing else."""
        try:
            self._position.save()
        except Exception as cause:
            self._emit("error", TollgateError("POSITION_NOT_SAVED", str(cause), retryable=True))

    def _stop(self, error: TollgateError) -> None:
        if self.state == "stopped":
            return
        self._leave()
        self._set_state("stopped")
        self._requests.reject_all(error)
        for run in list(self._runs.values()):
            run.fail(error)
        self._emit("error", error)

    def _set_state(self, state: State) -> None:
        if self.state != state:
            self.state = state
            self._emit("state", state)

    def _emit(self, name: str, value: Any) -> None:
        for listener in list(self._listeners.get(name, ())):
            try:
                listener(value)
            except Exception as error:
                loop = asyncio.get_running_loop()
                loop.call_exception_handler({"message": f"a listener of {name!r} failed", "exception": error})

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)


def _new_id() -> str:
    return secrets.token_urlsafe(18)
