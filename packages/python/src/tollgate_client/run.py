"""One run: an asynchronous iterator of its events, and its result."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import EventsLostError, RunFailedError, TollgateError
from .protocol import TERMINAL_EVENTS

Event = dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    run_id: str
    thread_id: str
    text: str
    #: NaN, and no tools, if events of the run were lost.
    duration_ms: float
    tools_used: tuple[str, ...]


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Marks an exception as seen: a caller may use only one of the ways to read a run."""
    if not future.cancelled():
        future.exception()


class Run:
    """Iterate for the events (one reader at a time), or await ``result()``."""

    def __init__(self, request_id: str, cancel: Callable[[str], Awaitable[None]], max_queued: int) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._max_queued = max_queued
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[tuple[str, str]] = loop.create_future()
        self._result: asyncio.Future[RunResult] = loop.create_future()
        for future in (self._accepted, self._result):
            future.add_done_callback(_retrieved)
        self._queue: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._has_reader = False
        self._overflowed = False
        self._failure: BaseException | None = None
        self.ended = False

    async def accepted(self) -> tuple[str, str]:
        """Returns the ids of the run and its thread. Raises the error with which the gateway refuses the run."""
        return await asyncio.shield(self._accepted)

    async def result(self) -> RunResult:
        """Raises RunFailedError after ``agent_failed`` or ``agent_cancelled``, or EventsLostError if the end is not known."""
        return await asyncio.shield(self._result)

    async def cancel(self) -> None:
        """Cancels the run. Its events end with ``agent_cancelled``, or with the end that it had reached before."""
        run_id, _ = await self.accepted()
        await self._cancel(run_id)

    async def __aiter__(self) -> AsyncIterator[Event]:
        if self._has_reader:
            raise RuntimeError("The events of a run have one reader.")
        if self._overflowed:
            raise self._buffer_full()
        self._has_reader = True
        try:
            while True:
                if self._queue:
                    yield self._queue.popleft()
                elif self._failure:
                    raise self._failure
                elif self.ended:
                    return
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._has_reader = False
            self._queue.clear()

    def accept(self, run_id: str, thread_id: str) -> None:
        if not self._accepted.done():
            self._accepted.set_result((run_id, thread_id))

    def push(self, event: Event) -> None:
        if self.ended:
            return
        if len(self._queue) >= self._max_queued:
            if self._has_reader:
                return self.fail(self._buffer_full())
            self._overflowed = True
            self._queue.clear()
        # After a loss the remaining events are incomplete, and only the end of the run is of use.
        if not self._overflowed and self._failure is None:
            self._queue.append(event)
        if event["type"] in TERMINAL_EVENTS:
            self._end(event)
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        if self.ended:
            return
        self.ended = True
        self._failure = self._failure or error
        for future in (self._accepted, self._result):
            if not future.done():
                future.set_exception(error)
        self._changed.set()

    def lost(self, reason: str) -> EventsLostError:
        """Ends the iteration over the events, some of which are lost. The result remains open."""
        message = f"Events of the run are no longer in the log ({reason})."
        error = EventsLostError("EVENTS_LOST", message, retryable=False, fields={"reason": reason})
        if not self.ended:
            self._failure = self._failure or error
            self._changed.set()
        return error

    async def resolve(self, ask: Callable[[str], Awaitable[Mapping[str, Any]]], lost: EventsLostError) -> None:
        """Ends the run as the gateway reports it, after a loss of events."""
        try:
            run_id, _ = await self.accepted()
            self._resolve(await ask(run_id), lost)
        except TollgateError:
            self.fail(lost)

    def _resolve(self, state: Mapping[str, Any], lost: EventsLostError) -> None:
        # A run that continues ends with its terminal event.
        status, text = state.get("status"), state.get("final_response")
        if self.ended or status in ("queued", "running", "waiting"):
            return
        if status == "completed" and isinstance(text, str):
            self.ended = True
            run_id, thread_id = str(state.get("run_id")), str(state.get("thread_id"))
            self._result.set_result(RunResult(run_id, thread_id, text, float("nan"), ()))
        elif status == "failed":
            message = "The run failed. Its error was in the lost events."
            self.fail(RunFailedError("RUN_FAILED", message, retryable=False))
        elif status == "cancelled":
            self.fail(_cancelled())
        else:
            self.fail(lost)

    def _buffer_full(self) -> TollgateError:
        message = f"More than {self._max_queued} events of the run waited for their reader."
        return TollgateError("RUN_BUFFER_FULL", message, retryable=False)

    def _end(self, event: Event) -> None:
        self.ended = True
        self.accept(str(event.get("run_id")), str(event.get("thread_id")))
        if event["type"] == "agent_completed":
            self._result.set_result(
                RunResult(
                    str(event.get("run_id")),
                    str(event.get("thread_id")),
                    event["final_response"],
                    event["duration_ms"],
                    tuple(event["tools_used"]),
                )
            )
        elif event["type"] == "agent_failed":
            failure = TollgateError.from_fields(event["error"])
            self._result.set_exception(
                RunFailedError(
                    failure.code,
                    failure.message,
                    retryable=failure.retryable,
                    retry_after_ms=failure.retry_after_ms,
                    fields=failure.fields,
                )
            )
        else:
            self._result.set_exception(_cancelled())


def _cancelled() -> RunFailedError:
    return RunFailedError("RUN_CANCELLED", "The run was cancelled.", retryable=False)
