"""What stands between visitors and Gradio: the few requests that the page makes, and no others.

Gradio also has requests that download addresses, read files of the server, or keep files and
sessions for later. None of them gets through, and of a question only the token of an upload does.
A request that its headers give away is refused before anything else of it is read.
"""

import asyncio
import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse

from keras_convnext.demo.bodies import (
    MOST_HEADERS,
    TOO_LARGE,
    TOO_MANY,
    Receive,
    Scope,
    Send,
    arrived,
    disconnected,
    file_of,
    question,
    token_of,
)
from keras_convnext.demo.costs import REFUSED, Costs, address_of
from keras_convnext.demo.decoder import MOST_BYTES
from keras_convnext.demo.gate import BusyError, Gate
from keras_convnext.demo.lanes import MOST_WAITING
from keras_convnext.demo.uploads import KEPT, Space, Upload, Uploads

READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)/?"
    r"|/(assets|static|svelte)/.+"
    r"|/gradio_api/(info|startup-events|app_id|user|login_check|theme\.css)/?"
)
UPLOAD, ASK = "/gradio_api/upload", "/gradio_api/run/"
FEW, RESERVED = 4, MOST_WAITING // 4  # the last places are for addresses with few requests

# Time that a request takes the server, in seconds, without decoder and network: measured on one
# core, rounded up.
REFUSE, READING, ASKING, STORING = 0.002, 0.005, 0.02, 0.005
BYTE = 1e-8  # of an upload


class Guard:
    """ASGI middleware that refuses everything but what the page needs.

    Args:
        app: ASGI application of the page.
        host: str. The address that the server listens on.
        uploads: Uploads.
        costs: Costs.
        event: int. Gradio's number of the event that classifies.
    """

    def __init__(self, app: Any, host: str, uploads: Uploads, costs: Costs, event: int) -> None:
        self.app = app
        self._uploads = uploads
        self._costs = costs
        self._gate = Gate(costs)
        self._event = event
        self._hosts = (
            {host.strip("[]"), "localhost", "127.0.0.1", "::1"} if _is_local(host) else None
        )
        self._turn = asyncio.Lock()  # of the larger uploads, first come, first served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        address = _address(scope)
        answers, seconds = self._chosen(scope)
        try:
            await self._gate.enter(address, seconds)
            await answers(scope, receive, send)
        except BusyError:
            later = {"Retry-After": str(self._costs.wait(address))}
            refusal = PlainTextResponse("Too many requests: try again later.", 429, later)
        except HTTPException as error:
            if error.status_code != 503:
                self._costs.add(address, REFUSED)
            refusal = PlainTextResponse(error.detail, error.status_code)
        else:
            return None
        refusal.headers["Connection"] = "close"  # the rest of the request is not read
        await refusal(scope, receive, send)

    def _chosen(self, scope: Scope) -> tuple[Any, float]:
        """Returns what answers a request, and the seconds it will take, by its headers alone."""
        headers = Headers(scope=scope)
        path, method = scope["path"].rstrip("/") or "/", scope["method"]
        if not self._is_at_home(headers):
            return partial(_refuse, 403, "This page is not at this address."), REFUSE
        if method in ("GET", "HEAD") and READ.fullmatch(path):
            return self.app, READING
        if method == "POST" and path == UPLOAD:
            answers, seconds, most = self._store, STORING, MOST_BYTES + MOST_HEADERS
        elif method == "POST" and path.startswith(ASK):
            answers, seconds, most = self._ask, ASKING, MOST_HEADERS
        else:
            return partial(_refuse, 404, "Not found."), REFUSE
        try:
            count = int(headers["content-length"])
        except (KeyError, ValueError):
            return partial(_refuse, 411, "Expected the header Content-Length."), REFUSE
        if count > most:
            return partial(_refuse, *TOO_LARGE), REFUSE
        return answers, seconds + count * BYTE

    def _is_at_home(self, headers: Headers) -> bool:
        """Whether a request comes from this page, not from another that a visitor has open."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or len(origins) > 1:
            return False
        host = hosts[0].lower()
        if self._hosts is not None and _name(f"//{host}") not in self._hosts:
            return False  # a name of somebody else that leads here: DNS rebinding
        return not origins or origins[0].lower().partition("://")[2] == host

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        """A place for a request among those at a time."""
        served = self._costs.served
        free = MOST_WAITING - served.total()
        if free <= (RESERVED if served[address] >= FEW else 0):
            raise HTTPException(*TOO_MANY)
        with self._costs.serving(address):
            yield

    async def _store(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keeps the one file of a form, and answers with its token."""
        address, space = _address(scope), Space(self._uploads)
        with self._place(address):
            try:
                file, name = await arrived(file_of(scope, receive, space, self._turn))
            except HTTPException:
                space.free()
                raise
            token = self._uploads.add(Upload(file, name, space, address))
            asyncio.get_running_loop().call_later(KEPT, self._uploads.drop, token)
            await JSONResponse([token])(scope, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the token of an upload on, and nothing else of the question."""
        address = _address(scope)
        with self._place(address):
            token = await arrived(token_of(scope, receive))
            upload = self._uploads.get(token)
            if upload is None:
                self._costs.add(address, REFUSED)
            leaving = asyncio.ensure_future(disconnected(receive))

            def abandon(_: object) -> None:
                if upload and not (leaving.cancelled() or upload.file.closed):
                    upload.abandon()
                    self._costs.add(address, REFUSED)

            leaving.add_done_callback(abandon)
            try:
                await self.app(*question(scope, f"{ASK}predict", token, self._event), send)
            finally:
                leaving.cancel()


async def _refuse(status: int, text: str, *_: object) -> NoReturn:
    raise HTTPException(status, text)


def _address(scope: Scope) -> str:
    """Returns what stands for the visitor."""
    host, _ = scope.get("client") or ("", 0)
    return address_of(host)


def _is_local(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def _name(address: str) -> str | None:
    """Returns the name of the host in an address, without port and brackets."""
    with suppress(ValueError):
        return urlsplit(address).hostname
    return None
