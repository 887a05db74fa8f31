"""The client for code without an event loop: scripts and notebooks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from .client import Identity, Listener, State, Tollgate
from .run import Event, Run, RunResult
from .tokens import GetToken

T = TypeVar("T")


class SyncRun:
    """Iterate for the events, or call ``result()``."""

    def __init__(self, owner: SyncTollgate, run: Run) -> None:
        self._owner = owner
        self._run = run

    def __iter__(self) -> Iterator[Event]:
        events = self._run.__aiter__()
        try:
            while True:
                try:
                    yield self._owner._wait(events.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._owner._wait(events.aclose())  # type: ignore[attr-defined]

    def accepted(self) -> tuple[str, str]:
        return self._owner._wait(self._run.accepted())

    def result(self) -> RunResult:
        return self._owner._wait(self._run.result())

    def cancel(self) -> None:
        self._owner._wait(self._run.cancel())


class SyncTollgate:
    """``Tollgate`` with blocking methods. Its event loop runs in a thread of its own, also inside a notebook.

    Accepts the arguments of ``Tollgate``. Listeners are called in that thread.
    """

    def __init__(self, url: str, get_token: GetToken, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tollgate", daemon=True)
        self._thread.start()

        async def create() -> Tollgate:
            return Tollgate(url, get_token, **options)

        self._client = self._wait(create())

    def __enter__(self) -> SyncTollgate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> Identity | None:
        return self._client.identity

    @property
    def state(self) -> State:
        return self._client.state

    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        return self._client.on(name, listener)

    def run(self, message: str, **options: Any) -> SyncRun:
        async def start() -> Run:
            return self._client.run(message, **options)

        return SyncRun(self, self._wait(start()))

    def cancel(self, run_id: str) -> None:
        self._wait(self._client.cancel(run_id))

    def run_status(self, run_id: str) -> dict[str, Any]:
        return self._wait(self._client.run_status(run_id))

    def respond(self, request: Mapping[str, Any], **answer: Any) -> dict[str, Any]:
        return self._wait(self._client.respond(request, **answer))

    def call_tool(self, name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        return self._wait(self._client.call_tool(name, arguments, **options))

    def tools(self) -> list[dict[str, Any]]:
        return self._wait(self._client.tools())

    def usage(self) -> dict[str, Any]:
        return self._wait(self._client.usage())

    def threads(self) -> list[dict[str, Any]]:
        return self._wait(self._client.threads())

    def thread_history(self, thread_id: str, **options: Any) -> dict[str, Any]:
        return self._wait(self._client.thread_history(thread_id, **options))

    def close(self) -> None:
        if self._thread.is_alive():
            self._wait(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T] | Any) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
