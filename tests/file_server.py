"""A server on this machine that stands in for the publishers of checkpoints, and can misbehave."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files`, by name, as told by its other attributes.

    `statuses` are the answers to the first requests, 200 being the file. Of the first `cuts` files
    no more than `cut_after` bytes come. `pause` is in seconds, before each 64 KiB.
    """

    def __init__(self):
        self.files = {}
        self.requests = []
        self.cut_after, self.cuts = 0, 0
        self.statuses = []
        self.pause = 0.0
        self.content_type = "application/octet-stream"
        self.etag = '"version 1"'
        self.ranges = True
        self.url = ""


@contextmanager
def serving():
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append((self.path, self.headers.get("Range")))
            status = server.statuses.pop(0) if server.statuses else 200
            if status != 200:
                self.send_error(status)
                return
            content = server.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            part = content
            asked = self.headers.get("Range")
            if asked and server.ranges and self.headers.get("If-Range") == server.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                part = content[start:]
                self.send_response(206)
                end = f"{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", f"bytes {start}-{end}")
            else:
                self.send_response(200)
            if server.etag:
                self.send_header("ETag", server.etag)
            self.send_header("Content-Type", server.content_type)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if server.cuts > 0:
                server.cuts -= 1
                part = part[: server.cut_after]
            for start in range(0, len(part), 1 << 16):
                time.sleep(server.pause)
                self.wfile.write(part[start : start + (1 << 16)])

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.handle_error = lambda *_: None  # a client that hangs up is part of the tests
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
