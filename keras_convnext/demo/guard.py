"""What stands between visitors and Gradio: the few requests that the page makes, and no others.

Gradio also has requests that download addresses, read files of the server, or keep files and
sessions for later. None of them gets through, and of a question only the token of an upload does.
"""

import asyncio
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse

from keras_convnext.demo.decoder import MOST_BYTES
from keras_convnext.demo.lanes import MOST_WAITING
from keras_convnext.demo.uploads import KEPT, FullError, Space, Upload, Uploads
from keras_convnext.printable import printable

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?"
    r"|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|startup-events|app_id|user|login_check|theme\.css)/?"
)
UPLOAD, ASK = "/gradio_api/upload", "/gradio_api/run/"
LARGE = 4 * 2**20  # bytes of an upload that are read at once
LARGE_RATE = 20e6  # bytes per second of all larger uploads together, beyond that
MOST_HEADERS = 2**16  # bytes of a form besides the file, or of a question
SECONDS = 120  # until a request must have arrived
LONGEST_NAME = 255
LOCAL = ("localhost", "127.0.0.1", "::1")


class TooLargeError(Exception):
    """A request is larger than allowed."""


# Errors in requests. The first group are those of forms, the second those of questions.
REFUSED = (
    ClientDisconnect, FullError, HTTPException, MultiPartException, TooLargeError,
    KeyError, RecursionError, TypeError, ValueError, asyncio.TimeoutError,
)  # fmt: skip


class Guard:
    """ASGI middleware that refuses everything but what the page needs.

    Args:
        app: ASGI application of the page.
        host: str. The address that the server listens on.
        uploads: Uploads.
        event: int. Gradio's number of the event that classifies.
    """

    def __init__(self, app: Any, host: str, uploads: Uploads, event: int) -> None:
        self.app = app
        self._uploads = uploads
        self._event = event
        self._hosts = (
            {host.strip("[]"), "localhost", "127.0.0.1", "::1"} if _is_local(host) else None
        )
        self._running = 0
        self._turn = asyncio.Lock()  # of the larger uploads, first come, first served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        headers = Headers(scope=scope)
        if not self._is_at_home(headers):
            return await _refuse(403, "This page is not at this address.", scope, receive, send)
        path, method = scope["path"].rstrip("/") or "/", scope["method"]
        if method in ("GET", "HEAD") and READ.fullmatch(path):
            return await self.app(scope, receive, send)
        if method == "POST" and path == UPLOAD:
            answers = self._store
        elif method == "POST" and path.startswith(ASK):
            answers = self._ask
        else:
            return await _refuse(404, "Not found.", scope, receive, send)
        if self._running >= MOST_WAITING:
            return await _refuse(503, "Too many visitors: try again later.", scope, receive, send)
        self._running += 1
        try:
            await answers(scope, receive, send)
        finally:
            self._running -= 1

    def _is_at_home(self, headers: Headers) -> bool:
        """Whether a request comes from this page, not from another that a visitor has open."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or len(origins) > 1:
            return False
        host = hosts[0].lower()
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return False  # a name of somebody else that leads here: DNS rebinding
        return not origins or origins[0].lower().partition("://")[2] == host

    async def _store(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keeps the one file of a form, and answers with its token."""
        space = Space(self._uploads)
        try:
            file, name = await asyncio.wait_for(
                _file_of(scope, receive, space, self._turn), SECONDS
            )
        except REFUSED as error:
            space.free()
            return await _refuse(*_reason(error), scope, receive, send)
        token = self._uploads.add(Upload(file, name, space))
        asyncio.get_running_loop().call_later(KEPT, self._uploads.drop, token)
        await JSONResponse([token])(scope, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the token of an upload on, and nothing else of the question."""
        try:
            body = await asyncio.wait_for(_body_of(scope, receive), SECONDS)
            (asked,) = json.loads(body)["data"]
            token = str(asked["path"])
        except REFUSED as error:
            return await _refuse(*_reason(error), scope, receive, send)
        question = json.dumps({"data": [token], "fn_index": self._event}).encode()
        upload = self._uploads.get(token)
        leaving = asyncio.ensure_future(_disconnected(receive))

        def abandon(_: object) -> None:
            if upload and not leaving.cancelled():
                upload.abandon()

        leaving.add_done_callback(abandon)
        try:
            await self.app(*_request(scope, question), send)
        finally:
            leaving.cancel()


async def _file_of(
    scope: Scope, receive: Receive, space: Space, turn: asyncio.Lock
) -> tuple[Any, str]:
    """Reads a form with one file into a file without a name, and returns it and its title."""

    async def counted() -> dict[str, Any]:
        message = await receive()
        count = len(message.get("body", b""))
        if space.count + count > MOST_BYTES + MOST_HEADERS:
            raise TooLargeError
        space.grow(count)
        if space.count > LARGE:
            async with turn:
                await asyncio.sleep(count / LARGE_RATE)
        return message

    if not Headers(scope=scope).get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(400)
    form = await Request(scope, counted).form(max_files=1, max_fields=0)
    (file,) = form.getlist("files") or [None]
    if not isinstance(file, UploadFile):
        await form.close()
        raise HTTPException(400)
    if file.size and file.size > MOST_BYTES:
        await form.close()
        raise TooLargeError
    return file.file, printable(PurePath(file.filename or "").name[:LONGEST_NAME])


async def _body_of(scope: Scope, receive: Receive) -> bytes:
    body = b""
    async for chunk in Request(scope, receive).stream():
        body += chunk
        if len(body) > MOST_HEADERS:
            raise TooLargeError
    return body


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request(scope: Scope, body: bytes) -> tuple[Scope, Receive]:
    """Returns a request to classify, with nothing of the original but its address."""
    kept = [pair for pair in scope["headers"] if pair[0] in (b"host", b"accept-encoding")]
    headers = [
        *kept,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    path = f"{ASK}predict"
    new = {**scope, "headers": headers, "path": path, "raw_path": path.encode()}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return {**new, "query_string": b""}, receive


def _reason(error: Exception) -> tuple[int, str]:
    """Returns the status and the text of a refusal."""
    if isinstance(error, TooLargeError):
        return 413, f"The limit is one file of {MOST_BYTES >> 20} MB."
    if isinstance(error, FullError):
        return 503, "Too many visitors: try again later."
    if isinstance(error, asyncio.TimeoutError):
        return 408, "Too slow: try again."
    return 400, "Expected a form with one file, or a question about one."


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(text, status)(scope, receive, send)


def _is_local(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def _name(address: str) -> str | None:
    """Returns the name of the host in an address, without port and brackets."""
    with suppress(ValueError):
        return urlsplit(address).hostname
    return None
