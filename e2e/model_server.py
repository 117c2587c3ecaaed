"""A server that speaks as much of OpenAI's protocol as a client needs to ask for tokens; for replicas in the lab.

A token takes 20 ms, and its text is the name of the replica.
"""

import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN_SECONDS = 0.02


class Handler(BaseHTTPRequestHandler):
    """One connection for each request, so that none is closed between two."""

    def do_GET(self) -> None:
        self.answer({"data": [{"id": "echo"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(asked.get("max_tokens", 1) * TOKEN_SECONDS)
        self.answer({"choices": [{"text": os.environ["HOSTNAME"]}]})

    def answer(self, body: object) -> None:
        """200 and JSON."""
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """No log."""


class Server(ThreadingHTTPServer):
    """Many clients at once."""

    request_queue_size = 256


if __name__ == "__main__":
    # The first process of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    Server(("", 8000), Handler).serve_forever()
