"""A local server in place of the publishers of checkpoints, which can simulate failures."""

import os
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

os.environ["KERAS_CONVNEXT_ALLOW_HTTP"] = "1"  # the server has no certificate by default


class FileServer:
    """Serves `files`, by name, as told by its other attributes.

    `statuses` are the answers to the first requests, 200 being the file, and `headers` go with
    each. `redirects` are addresses by names. Of the first `cuts` files no more than `cut_after`
    bytes come. `pause` is in seconds, before each `piece` of bytes. As a proxy it serves the files
    itself.
    """

    def __init__(self):
        self.files = {}
        self.requests = []
        self.cut_after, self.cuts = 0, 0
        self.statuses = []
        self.headers = {}
        self.redirects = {}
        self.pause, self.piece = 0.0, 1 << 16
        self.content_type = "application/octet-stream"
        self.etag = '"version 1"'
        self.ranges = True
        self.sends_length = True
        self.url = ""


@contextmanager
def serving(certificate=None):
    """Starts one, which speaks TLS with a certificate and key, if a file of them is given."""
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append((self.path, self.headers.get("Range")))
            name = urlsplit(self.path).path.lstrip("/")
            status = server.statuses.pop(0) if server.statuses else 200
            if name in server.redirects:
                self.answer(302, Location=server.redirects[name], Content_Length="0")
                return
            content = server.files.get(name)
            if status != 200 or content is None:
                self.answer(404 if status == 200 else status, Content_Length="0")
                return
            part = content
            asked = self.headers.get("Range")
            headers = {"Content_Type": server.content_type}
            if server.etag:
                headers["ETag"] = server.etag
            if asked and server.ranges and self.headers.get("If-Range") == server.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    whole = f"bytes */{len(content)}"
                    self.answer(416, Content_Length="0", Content_Range=whole)
                    return
                part = content[start:]
                status = 206
                end = f"{len(content) - 1}/{len(content)}"
                headers["Content_Range"] = f"bytes {start}-{end}"
            if server.sends_length:
                headers["Content_Length"] = str(len(part))
            self.answer(status, **headers)
            if server.cuts > 0:
                server.cuts -= 1
                part = part[: server.cut_after]
            for start in range(0, len(part), server.piece):
                time.sleep(server.pause)
                self.wfile.write(part[start : start + server.piece])

        def do_CONNECT(self):
            server.requests.append((self.path, None))
            self.answer(407, Content_Length="0")

        def answer(self, status, **headers):
            self.send_response(status)
            for name, value in {**headers, **server.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.handle_error = lambda *_: None  # tests close connections
    scheme = "http"
    if certificate:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server.url = f"{scheme}://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
