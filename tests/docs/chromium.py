"""Runs a script in Chromium, on a page that can open those of the site in frames."""

import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue

import pytest

WAIT = 300  # seconds; a loaded machine takes its time
PAGE = """<!doctype html><meta charset="utf-8"><body><script type="module">
const open = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.onload = () => done(frame);
  frame.src = page;
  document.body.append(frame);
});
const report = found => fetch("/found", {method: "POST", body: JSON.stringify(found)});
try { report(await (async () => { SCRIPT })()); } catch (error) { report({error: String(error)}); }
</script>"""


def in_chromium(site, script, folder):
    """Returns what a script returns, as JSON; `await open(page, width)` gives it a frame.

    Args:
        site: path. The folder that is served.
        script: str. The body of an asynchronous function in JavaScript.
        folder: path. For what Chromium writes.
    """
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        pytest.skip("needs Chromium")
    found = Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, site, script, found))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = subprocess.Popen(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage",         f"--user-data-dir={folder}", f"http://127.0.0.1:{server.server_port}/script"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer = found.get(timeout=WAIT)
    except Empty:
        pytest.fail("Chromium did not answer")
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()
        server.server_close()
    assert "error" not in answer, answer
    return answer


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, site, script, found, *connection):
        self.script, self.found = script, found
        super().__init__(*connection, directory=str(site))

    def do_GET(self):
        if self.path != "/script":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.replace("SCRIPT", self.script).encode())

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.found.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass
