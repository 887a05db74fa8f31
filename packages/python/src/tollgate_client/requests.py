"""Requests that wait for their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import TollgateError

REPLIES = {
    "agent_request": "agent_accepted",
    "agent_cancel": "cancel_accepted",
    "run_status": "run_status",
    "input_response": "input_accepted",
    "tool_call": "tool_result",
    "usage_summary": "usage_summary",
    "tools_list": "tools_list",
    "threads_list": "threads_list",
    "thread_history": "thread_history",
}
MAX_PENDING = 1_000
MAX_RETRIES = 3


@dataclass
class _Pending:
    type: str
    fields: dict[str, Any]
    future: asyncio.Future[dict[str, Any]]
    retries: int = 0


class Requests:
    """Each request outlives the connection: it is sent again after a reconnect, under the same ids."""

    def __init__(
        self,
        send: Callable[[str, Mapping[str, Any]], Awaitable[None]],
        problem: Callable[[], TollgateError | None],
        timeout: float,
        max_retry_after: float,
    ) -> None:
        self._send = send
        #: Why there is no connection; None while there is one.
        self._problem = problem
        self._timeout = timeout
        self._max_retry_after = max_retry_after
        self._pending: dict[str, _Pending] = {}

    async def request(self, type: str, fields: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """Returns the answer. Raises the gateway's error, or REQUEST_TIMEOUT."""
        if len(self._pending) >= MAX_PENDING:
            message = f"{MAX_PENDING} requests are waiting for their answers."
            raise TollgateError("TOO_MANY_REQUESTS_PENDING", message, retryable=True)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        pending = _Pending(type, {**fields, "request_id": request_id}, future)
        self._pending[request_id] = pending
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(type, pending.fields)
                return await future
        except TimeoutError:
            problem = self._problem()
            message = f"No answer to {type}{f': not connected ({problem})' if problem else ''}."
            raise TollgateError("REQUEST_TIMEOUT", message, retryable=True) from problem
        finally:
            self._pending.pop(request_id, None)

    async def connected(self) -> None:
        """Sends all waiting requests again, in their order."""
        for pending in list(self._pending.values()):
            await self._send(pending.type, pending.fields)

    def receive(self, type: str, fields: dict[str, Any]) -> bool:
        """Settles the request that a message answers, and returns whether there was one."""
        pending = self._pending.get(str(fields.get("request_id")))
        if pending is None or pending.future.done():
            return False
        if type == "error":
            self._refused(pending, TollgateError.from_fields(fields))
        elif REPLIES[pending.type] == type:
            pending.future.set_result(fields)
        else:
            return False
        return True

    def reject_all(self, error: TollgateError) -> None:
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(error)

    def _refused(self, pending: _Pending, error: TollgateError) -> None:
        """A short delay that the gateway asks for is waited for; a longer one is the caller's decision."""
        delay = error.retry_after_ms
        may_retry = error.retryable and delay is not None and delay <= self._max_retry_after * 1000
        if not may_retry or delay is None or pending.retries >= MAX_RETRIES:
            pending.future.set_exception(error)
            return
        pending.retries += 1
        asyncio.get_running_loop().call_later(delay / 1000, self._again, pending)

    def _again(self, pending: _Pending) -> None:
        if not pending.future.done():
            task = asyncio.ensure_future(self._send(pending.type, pending.fields))
            pending.future.add_done_callback(lambda _: task.cancel())
