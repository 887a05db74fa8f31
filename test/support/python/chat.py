"""One chat turn by a client of another language, as JSON lines on standard output: what came, in the order it came.

Usage: chat.py (websockets | websocket | polling) URL TOKEN MESSAGE
Ends with 0 when the run has completed, else with what went wrong.
"""

import asyncio
import base64
import json
import sys

PATIENCE_S = 30
EVENTS = [
    "connection_established",
    "agent_started",
    "agent_thinking",
    "tool_executing",
    "tool_completed",
    "agent_completed",
    "agent_failed",
    "error",
]


def note(kind, fields):
    print(json.dumps({"type": kind, "fields": fields}), flush=True)


async def over_websocket(url, token, message):
    import websockets

    secure = url.replace("http", "ws", 1) + "/ws/secure"
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    async with websockets.connect(secure, subprotocols=["jwt-auth", f"jwt.{encoded}"]) as socket:
        asked = False
        async for frame in socket:
            event = json.loads(frame)
            note(event["type"], {**event, **event.get("payload", {})})
            if not asked:
                asked = True
                await socket.send(json.dumps({"type": "agent_request", "payload": {"message": message}}))
            if event["type"] in ("agent_completed", "agent_failed", "error"):
                return


async def over_socket_io(url, token, message, transport):
    import socketio

    client = socketio.AsyncClient(reconnection=False)
    done = asyncio.Event()
    welcomed = asyncio.Event()

    def listen(kind):
        @client.on(kind)
        async def heard(fields):
            note(kind, fields)
            if kind == "connection_established":
                welcomed.set()
            if kind in ("agent_completed", "agent_failed", "error"):
                done.set()

    for kind in EVENTS:
        listen(kind)
    await client.connect(url, auth={"token": token}, transports=[transport])
    await welcomed.wait()
    note("transport", {"name": client.transport()})
    answer = await client.call("agent_request", {"message": message}, timeout=PATIENCE_S)
    note("acknowledgement", answer)
    await done.wait()
    await client.disconnect()


async def main():
    kind, url, token, message = sys.argv[1:]
    road = over_websocket(url, token, message) if kind == "websockets" else over_socket_io(url, token, message, kind)
    await asyncio.wait_for(road, PATIENCE_S)


asyncio.run(main())
