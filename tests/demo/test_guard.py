"""The requests that the page makes, those of strangers, and what is left of them."""

import asyncio
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from bad_uploads import encoded

pytest.importorskip("gradio")

from starlette.exceptions import HTTPException

from keras_convnext.demo import bodies as bodies_module
from keras_convnext.demo import guard as guard_module
from keras_convnext.demo import uploads as uploads_module
from keras_convnext.demo.answers import Classifier
from keras_convnext.demo.costs import FREE, HALF_LIFE, Costs
from keras_convnext.demo.decoder import MOST_BYTES
from keras_convnext.demo.gate import BusyError
from keras_convnext.demo.guard import Guard
from keras_convnext.demo.page import demo_page, start

PHOTO = encoded("JPEG")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def classify(pixels):
    return np.tile(np.array([0.25, 0.75], "float32"), (len(pixels), 1))


@pytest.fixture(scope="module")
def page(free_port, tmp_path_factory):
    """A page whose temporary files have a folder of their own."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    page = demo_page(Classifier(classify, 32, "ab"))
    try:
        page.address = start(page, port=free_port)
        page.folder = Path(tempfile.tempdir)
        yield page
    finally:
        page.close()
        tempfile.tempdir = before


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    yield
    if "page" in request.fixturenames:
        page = request.getfixturevalue("page")
        page.uploads.clear()
        until(lambda: page.uploads._stored == 0)
        assert [path for path in page.folder.rglob("*") if path.is_file()] == []


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(page, path, **options):
    return requests.post(f"{page.address}gradio_api/{path}", timeout=120, **options)


def send(page, data=PHOTO, name="photo.jpg", **options):
    return post(page, "upload", files={"files": (name, data)}, **options)


def ask(page, file, **options):
    return post(page, "run/predict", json={"data": [file], "fn_index": 0}, **options)


def line_of(answer):
    assert answer.status_code == 200
    return answer.json()["data"][-1]


def test_visitors_with_the_same_picture_are_both_answered(page):
    tokens = [send(page).json()[0] for _ in range(2)]
    assert tokens[0] != tokens[1]
    for token in tokens:
        assert "photo.jpg, classified in" in line_of(ask(page, {"path": token}))
        assert "no longer here" in line_of(ask(page, {"path": token}))


def test_the_page_has_what_it_needs(page):
    for path in ("", "config", "theme.css", "static/img/logo.svg"):
        assert requests.get(page.address + path, timeout=60).status_code == 200, path
    config = requests.get(f"{page.address}config", timeout=60).json()
    assert (config["analytics_enabled"], config["run_history"]) == (False, False)
    assert config["footer_links"] == []
    assert requests.head(page.address, timeout=60).status_code == 200


def test_a_port_in_use_is_an_error(page, free_port):
    with pytest.raises(OSError, match=f"Received: host=127.0.0.1, port={free_port}"):
        start(demo_page(Classifier(classify, 32, "ab")), port=free_port)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "file=/etc/hostname"),
        ("GET", "file/etc/hostname"),
        ("HEAD", "file=/etc/hostname"),
        ("GET", "file=http://127.0.0.1/"),
        ("GET", "proxy=http://127.0.0.1/"),
        ("GET", "queue/data?session_hash=x"),
        ("GET", "queue/status"),
        ("GET", "heartbeat/x"),
        ("GET", "call/predict/x"),
        ("GET", "stream/x/0/0/playlist-file"),
        ("GET", "upload_progress?upload_id=x"),
        ("GET", "deep_link"),
        ("POST", "queue/join"),
        ("POST", "call/predict"),
        ("POST", "call/v2/predict"),
        ("POST", "api/predict"),
        ("POST", "stream/x"),
        ("POST", "component_server"),
        ("POST", "process_recording"),
        ("POST", "cancel"),
        ("POST", "reset"),
        ("POST", "vibe-edit"),
        ("PUT", "upload"),
        ("DELETE", "upload"),
        ("GET", "upload"),
        ("GET", "../monitoring"),
        ("GET", "../gradio_api/run/predict"),
    ],
)
def test_nothing_else_is_served(method, path, page):
    body = {"data": [{"path": "/etc/hostname"}], "session_hash": "x", "fn_index": 0}
    answer = requests.request(method, f"{page.address}gradio_api/{path}", json=body, timeout=60)
    assert answer.status_code == 404


@pytest.fixture
def elsewhere():
    """The address of another server, and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret.jpg", asked
    server.shutdown()
    server.server_close()


def test_no_address_is_fetched_and_no_file_of_the_server_is_read(page, elsewhere, tmp_path):
    address, asked = elsewhere
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    (page.folder / "secret.jpg").write_bytes(PHOTO)
    meta = {"meta": {"_type": "gradio.FileData"}}
    token = send(page).json()[0]
    for path in (address, tmp_path / "secret.jpg", page.folder / "secret.jpg", "../" + token):
        file = {"path": str(path), "url": address, **meta}
        assert "no longer here" in line_of(ask(page, file))
    # The address beside an upload is ignored.
    file = {"path": token, "url": address, "is_stream": True, **meta}
    assert "classified in" in line_of(ask(page, file))
    (page.folder / "secret.jpg").unlink()
    assert asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": [null]}',
        b'{"data": ["x"]}',
        b'{"data": [{}]}',
        b'{"data": [{"path": "x"}, {"path": "x"}]}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
)
def test_a_question_without_an_upload_is_refused(body, page):
    assert post(page, "run/predict", data=body).status_code == 400


def test_a_long_question_is_refused(page):
    body = {"data": [{"path": "x" * 2**16}]}
    assert post(page, "run/predict", json=body).status_code == 413


def form(*parts):
    return b"".join(
        b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n"
        for head, data in parts
    ) + b"--b--\r\n"  # fmt: skip


FILE, OTHER = b'name="files"; filename="x.jpg"', b'name="other"; filename="x.jpg"'


@pytest.mark.parametrize(
    "body",
    [
        form((FILE, PHOTO), (FILE, PHOTO)),
        form((OTHER, PHOTO)),
        form((FILE, PHOTO), (OTHER, PHOTO)),
        form((b'name="files"', PHOTO)),
        form((FILE, PHOTO), (b'name="x"', b"y")),
        form((b'filename="x.jpg"', PHOTO)),
        form(),
        form((FILE, PHOTO))[:-20],
        b"",
    ],
    ids=["two", "field", "both", "text", "more", "nameless", "none", "cut", "empty"],
)
def test_a_form_without_exactly_one_file_is_refused(body, page):
    assert post(page, "upload", data=body, headers=FORM).status_code == 400
    assert not page.uploads._waiting


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "image/jpeg", None])
def test_what_is_no_form_is_refused(kind, page):
    assert post(page, "upload", data=PHOTO, headers={"Content-Type": kind}).status_code == 400


def test_a_file_over_the_limit_is_refused(page):
    for size, status in ((MOST_BYTES + 1, 413), (MOST_BYTES, 200)):
        assert send(page, bytes(size)).status_code == status


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("upload", f"Content-Length: {MOST_BYTES + 2**20}", 413),
        ("upload", f"Content-Length: {10**15}", 413),
        ("upload", "Transfer-Encoding: chunked", 411),
        ("run/predict", f"Content-Length: {2**20}", 413),
        ("run/predict", "Transfer-Encoding: chunked", 411),
        ("upload", "Origin: http://evil.example\r\nContent-Length: 9", 403),
        ("call/predict", "Content-Length: 9", 404),
    ],
)
def test_what_headers_give_away_is_refused_before_anything_is_sent(path, header, status, page):
    head = f"POST /gradio_api/{path} HTTP/1.1\r\n{header}"
    with connection(page, head, b"\r\n") as connected:
        answer = b"".join(iter(lambda: connected.recv(2**16), b""))  # until it is closed
    assert answer.startswith(b"HTTP/1.1 %d" % status)


def test_large_uploads_take_turns_and_ordinary_ones_do_not_wait(page, monkeypatch):
    monkeypatch.setattr(bodies_module, "LARGE_RATE", 1e5)  # ten seconds for a megabyte
    sending = threading.Thread(target=send, args=(page, bytes(5 * 2**20)))
    sending.start()
    until(lambda: page.uploads._stored > bodies_module.LARGE)
    for _ in range(3):
        assert send(page, bytes(2**20)).status_code == 200
        assert sending.is_alive()
    monkeypatch.setattr(bodies_module, "LARGE_RATE", 1e9)
    sending.join()


def test_the_name_of_an_upload_is_escaped_and_short(page):
    token = send(page, b"", name="/etc/\u202e" + "x" * 300 + ".jpg").json()[0]
    line = line_of(ask(page, {"path": token}))
    assert ">\\u202exxx" in line
    assert "x" * 254 + " is empty" in line


def test_an_upload_that_nobody_asks_about_is_dropped(page, monkeypatch):
    monkeypatch.setattr(guard_module, "KEPT", 0.2)
    token = send(page, bytes(3 * 2**20)).json()[0]
    until(lambda: page.uploads._stored == 0)
    assert "no longer here" in line_of(ask(page, {"path": token}))


def test_the_oldest_upload_makes_room(page, monkeypatch):
    monkeypatch.setattr(uploads_module, "MOST_STORED", 5 * 2**20)
    tokens = [send(page, PHOTO + bytes(2 * 2**20)).json()[0] for _ in range(4)]
    assert page.uploads._stored <= 5 * 2**20
    said = [line_of(ask(page, {"path": token})) for token in tokens]
    assert ["no longer here" in line for line in said] == [True, True, False, False]
    assert send(page, bytes(6 * 2**20)).status_code == 503


def connection(page, head, body=b""):
    """Sends a request in part."""
    host, _, port = page.address.removeprefix("http://").strip("/").partition(":")
    connected = socket.create_connection((host, int(port)), 60)
    connected.sendall(f"{head}\r\nHost: {host}:{port}\r\n".encode() + body)
    return connected


def test_an_upload_that_breaks_off_leaves_nothing(page):
    head = "POST /gradio_api/upload HTTP/1.1\r\nContent-Length: 9000000"
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    connected = connection(page, head, kind + form((FILE, bytes(2**21)))[:-20])
    until(lambda: page.uploads._stored > 2**20)
    connected.close()
    until(lambda: page.uploads._stored == 0)


def test_a_request_that_does_not_arrive_is_given_up(page, monkeypatch):
    monkeypatch.setattr(bodies_module, "SECONDS", 0.3)
    kind = b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + form((FILE, PHOTO))[:-20]
    for path in ("upload", "run/predict"):
        head = f"POST /gradio_api/{path} HTTP/1.1\r\nContent-Length: 60000"
        with connection(page, head, kind) as connected:
            assert connected.recv(100).startswith(b"HTTP/1.1 408")


def test_nobody_is_answered_who_has_gone(page, monkeypatch):
    taken, go = [], threading.Event()
    answer = page.lanes.answer

    def waiting(upload):
        taken.append(upload)
        go.wait(60)
        return answer(upload)

    monkeypatch.setattr(page.lanes, "answer", waiting)
    body = json.dumps({"data": [{"path": send(page).json()[0]}]})
    head = f"POST /gradio_api/run/predict HTTP/1.1\r\nContent-Length: {len(body)}"
    connected = connection(page, head, f"\r\n{body}".encode())
    until(lambda: taken)
    assert not taken[0].abandoned
    before = page.lanes.costs._of("127.0.0.1")
    connected.close()
    until(lambda: taken[0].abandoned)
    until(lambda: page.lanes.costs._of("127.0.0.1") > before + 0.2)
    go.set()


def test_too_many_visitors_are_refused(page, monkeypatch):
    monkeypatch.setattr(guard_module, "MOST_WAITING", 1)
    head = "POST /gradio_api/upload HTTP/1.1\r\nContent-Length: 99"
    with connection(page, head, b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"):
        until(lambda: send(page).status_code == 503)
    until(lambda: send(page).status_code == 200)


@pytest.fixture
def guard():
    return Guard(None, "0.0.0.0", None, Costs(), 0)


def test_one_address_does_not_take_all_places(guard):
    with ExitStack() as places:

        def taken(address):
            count = 0
            with suppress(HTTPException):
                while True:
                    places.enter_context(guard._place(address))
                    count += 1
            return count

        assert taken("bad") == 192
        assert taken("good") == 4
        assert taken("bad") == 0
        assert sum(taken(str(index)) for index in range(100)) == 60
    assert not guard._costs.served


def answer_of(guard, method="POST", path="/gradio_api/upload", **headers):
    """The status and the headers of an answer."""
    sent = []

    async def send(message):
        sent.append(message)

    pairs = {"host": "demo.example", "content-length": "9", **headers}.items()
    scope = {"type": "http", "method": method, "path": path, "client": ("192.0.2.1", 1)}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in pairs]
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_who_has_to_wait_for_too_long_hears_when_to_come_again(guard, monkeypatch):
    async def busy(address, seconds):
        raise BusyError

    guard._costs.add("192.0.2.1", 4 * FREE)
    monkeypatch.setattr(guard._gate, "enter", busy)
    status, headers = answer_of(guard)
    assert status == 429
    assert int(headers[b"retry-after"]) == 2 * HALF_LIFE
    assert headers[b"connection"] == b"close"


def test_what_is_refused_costs(guard):
    costs = []
    for request in (
        {"path": "/elsewhere"},
        {"origin": "http://evil.example"},
        {"content-length": "999999999"},
    ):
        before = guard._costs._of("192.0.2.1")
        status, headers = answer_of(guard, **request)
        assert 403 <= status <= 413
        assert headers[b"connection"] == b"close"
        costs.append(round(guard._costs._of("192.0.2.1") - before, 2))
    assert costs == [0.25] * 3


def test_pictures_and_tokens_that_are_refused_cost(page):
    for token, seconds in ((send(page, b"no picture").json()[0], 0.25), ("nothing", 0.25)):
        before = page.lanes.costs._of("127.0.0.1")
        ask(page, {"path": token})
        assert page.lanes.costs._of("127.0.0.1") > before + 0.9 * seconds


def test_who_waits_for_an_answer_pays_for_its_work_only(page):
    before = page.lanes.costs._of("127.0.0.1")
    assert "classified in" in line_of(ask(page, {"path": send(page).json()[0]}))
    assert page.lanes.costs._of("127.0.0.1") < before + 0.24


def test_visitors_behind_a_proxy_on_this_machine_are_told_apart(page):
    forwarded = {"X-Forwarded-For": "10.0.0.1, 192.0.2.7"}
    token = send(page, headers=forwarded).json()[0]
    assert page.lanes.costs._of("192.0.2.7") > 0
    assert page.uploads.get(token).address == "192.0.2.7"


def at(page, host=None, origin=None, method="POST"):
    """The status of an upload that was sent to `host` by a page of `origin`."""
    headers = {name: value for name, value in (("Host", host), ("Origin", origin)) if value}
    if method == "GET":
        return requests.get(page.address, headers=headers, timeout=60).status_code
    return send(page, headers=headers).status_code


def test_pages_of_others_are_refused(page):
    own = page.address.strip("/")
    port = own.rpartition(":")[2]
    for origin in ("http://evil.example", "null", "http://localhost:1", f"{own}.evil.example"):
        assert at(page, origin=origin) == 403, origin
    assert at(page, origin=own) == 200
    assert at(page, f"localhost:{port}", f"http://localhost:{port}") == 200
    assert at(page, f"localhost:{port}", own) == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_names_of_others_are_refused(method, page):
    port = page.address.strip("/").rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[::2]", "["):
        assert at(page, host, method=method) == 403, host
    for host in ("127.0.0.1", "localhost:8000", "[::1]:7860", "LOCALHOST"):
        assert at(page, host, method=method) == 200, host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "demo.example", "::"])
def test_a_page_for_others_has_any_name_but_only_its_own_origin(host):
    from starlette.datastructures import Headers

    guard = Guard(None, host, None, Costs(), 0)
    for name in ("demo.example", "demo.example:7860", "192.0.2.1"):
        assert guard._is_at_home(Headers({"Host": name}))
        assert guard._is_at_home(Headers({"Host": name, "Origin": f"http://{name}"}))
        assert guard._is_at_home(Headers({"Host": name, "Origin": f"https://{name}"}))
        for origin in ("http://evil.example", "null", f"http://{name}.evil.example"):
            assert not guard._is_at_home(Headers({"Host": name, "Origin": origin}))
    assert not guard._is_at_home(Headers({}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "::1", "[::1]"])
def test_a_local_page_has_local_names(host):
    from starlette.datastructures import Headers

    guard = Guard(None, host, None, Costs(), 0)
    assert not guard._is_at_home(Headers({"Host": "evil.example"}))
    assert guard._is_at_home(Headers({"Host": "localhost:7860"}))


SERVER = """
import sys
sys.path[:] = {path}
from serve_demo import watch
sys.addaudithook(watch)
import numpy as np
from keras_convnext.demo import Classifier, demo_page, start
page = demo_page(Classifier(lambda pixels: np.array([[0.5, 0.5]]), 32, "ab"))
print(start(page, port={port}), flush=True)
page.block_thread()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists processes as Linux does")
def test_a_server_reaches_for_nobody_and_leaves_nothing_when_it_is_killed(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "temporary").mkdir()
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER.format(path=sys.path, port=port)],
            env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        server.address = server.stdout.readline().strip()
        address = "http://192.0.2.1/photo.jpg"
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        assert "no longer here" in line_of(ask(server, file))
        for path in (f"gradio_api/file={address}", f"gradio_api/proxy={address}"):
            assert requests.get(server.address + path, timeout=60).status_code == 404
        assert send(server, PHOTO + bytes(3 * 2**20)).status_code == 200
        token = send(server, PHOTO + bytes(3 * 2**20)).json()[0]
        assert "classified in" in line_of(ask(server, {"path": token}))
        children = Path(f"/proc/{server.pid}/task").glob("*/children")
        (decoder,) = (pid for child in children for pid in child.read_text().split())
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()
    assert "Reached for" not in (tmp_path / "log.txt").read_text()
    # Gradio makes empty folders.
    left = (tmp_path / "temporary").rglob("*")
    assert [path for path in left if path.is_file()] == []
    until(lambda: not is_alive(decoder))


def is_alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
