"""An agent of kind `http` for Tollgate, in Python: only the standard library."""

import hashlib
import hmac
import json
import os
import re
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("AGENT_SECRET", "").encode()
PORT = int(os.environ.get("PORT", "9001"))
MAX_AGE_SECONDS = 300
"""A signature that is older than this may be a recording."""


def is_signed(header: str, body: bytes) -> bool:
    match = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", header)
    if match is None or abs(time.time() - int(match[1])) > MAX_AGE_SECONDS:
        return False
    expected = hmac.new(SECRET, match[1].encode() + b"." + body, hashlib.sha256)
    return hmac.compare_digest(expected.hexdigest(), match[2])


def call_tool(tools: dict, name: str) -> object:
    """Calls a tool of Tollgate with the rights of the user."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    headers = {
        "authorization": f"Bearer {tools['token']}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    request = urllib.request.Request(tools["mcp_url"], json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    return answer["result"].get("structuredContent") if "result" in answer else answer["error"]["message"]


class Agent(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if not is_signed(self.headers.get("tollgate-signature", ""), body):
            self.send_error(401)
            return
        task = json.loads(body)
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.end_headers()
        self.line(type="think", text="I look which agents there are.")
        found = call_tool(task["tools"], "list_agents") if task["tools"] else None
        for word in re.split(r"(?<= )", f"You said: {task['message']}"):
            self.line(type="text", delta=word)
        if found is not None:
            self.line(type="text", delta=f" Agents: {json.dumps(found)[:200]}")
        self.line(type="done")

    def line(self, **fields: object) -> None:
        self.wfile.write(json.dumps(fields).encode() + b"\n")
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Logs no requests."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Agent)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
