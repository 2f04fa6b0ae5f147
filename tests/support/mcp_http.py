"""The MCP server of tests as a server of HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support import mcp_server


@contextmanager
def answering(header: str) -> Iterator[tuple[str, list[str | None]]]:
    """Yield the address of a server, and what its requests bring in a header."""
    shown: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            shown.append(self.headers[header])
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            result = mcp_server.answer(message["method"], message.get("params", {}))
            answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
            self.send_response(200 if result is not None else 202)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode() if result is not None else b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp", shown
        finally:
            server.shutdown()
            thread.join()
