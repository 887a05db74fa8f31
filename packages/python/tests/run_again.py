"""Runs an agent again and again, and prints what the client received as one JSON object.

Usage: run_again.py (websocket | socketio | sse | polling) URL TOKEN RUNS
Prints one line per ended run to standard error, so that a test can kill gateways in between.
With RUNS 0, makes one request of each kind with the blocking client instead.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from tollgate_client import SyncTollgate, Tollgate  # noqa: E402
from tollgate_client.sse import open_sse  # noqa: E402
from tollgate_client.transports import open_websocket, socketio_transport  # noqa: E402

TRANSPORTS = {
    "websocket": open_websocket,
    "socketio": socketio_transport(("websocket",)),
    "sse": open_sse,
    "polling": socketio_transport(("polling",)),
}
MESSAGE = "How is my workload doing?"


async def again(transport: str, url: str, token: str, runs: int) -> dict[str, object]:
    seqs: list[int] = []
    types: list[list[str]] = []
    states: list[str] = []
    client = Tollgate(url, lambda _: token, transport=TRANSPORTS[transport], first_backoff=0.05, max_backoff=0.5)
    async with client:
        client.on("event", lambda event: seqs.append(event["seq"]))
        client.on("state", states.append)
        client.on("error", lambda error: print(f"error {error}", file=sys.stderr, flush=True))
        for _ in range(runs):
            types.append([event["type"] async for event in client.run(MESSAGE)])
            print("ended", file=sys.stderr, flush=True)
    return {"seqs": seqs, "runs": types, "reconnects": states.count("waiting")}


def one_of_each(transport: str, url: str, token: str) -> dict[str, object]:
    with SyncTollgate(url, lambda _: token, transport=TRANSPORTS[transport]) as client:
        run = client.run(MESSAGE)
        types = [event["type"] for event in run]
        result = run.result()
        call = client.call_tool("list_agents", idempotency_key="k")
        again = client.call_tool("list_agents", idempotency_key="k")
        page = client.thread_history(result.thread_id, limit=1)
        older = client.thread_history(result.thread_id, before=page["before"])
        return {
            "types": types,
            "text": result.text,
            "tools": [tool["name"] for tool in client.tools()],
            "calls": [call["success"], call["tool_call_id"] == again["tool_call_id"], again["repeated"]],
            "threads": [thread["title"] for thread in client.threads()],
            "messages": [message["text"] for message in [*page["messages"], *older["messages"]]],
            "plan": client.usage()["plan"],
        }


def main() -> None:
    transport, url, token, runs = sys.argv[1:]
    if int(runs) == 0:
        print(json.dumps(one_of_each(transport, url, token)))
    else:
        print(json.dumps(asyncio.run(again(transport, url, token, int(runs)))))


main()
