"""An HTTP server that answers each POST as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Answers each POST with the next of its moods, the last one for ever."""

    def __init__(self, *moods, port=0, context=None):
        self.moods, self.requests, self.connections = list(moods), [], 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                receiver.connections += 1

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((time.monotonic(), self.path, dict(self.headers), body))
                mood = receiver.moods.pop(0) if len(receiver.moods) > 1 else receiver.moods[0]
                status, headers = mood if isinstance(mood, tuple) else (mood, {})
                if status == "hang":
                    receiver.released.wait(30)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def frames(self):
        return [json.loads(body)["frame"] for _, _, _, body in self.requests]

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def receiver(*moods, **options):
    receiver = Receiver(*moods, **options)
    try:
        yield receiver
    finally:
        receiver.stop()
