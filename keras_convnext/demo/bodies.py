"""Reads what visitors send: a form with one file, or a question about one."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import PurePath
from typing import Any, TypeVar

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from keras_convnext.demo.decoder import MOST_BYTES
from keras_convnext.demo.uploads import FullError, Space
from keras_convnext.printable import printable

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Content = TypeVar("Content")

LARGE = 4 * 2**20  # bytes of an upload that are read at once
LARGE_RATE = 20e6  # bytes per second of all larger uploads together, beyond that
MOST_HEADERS = 2**16  # bytes of a form besides the file, or of a question
SECONDS = 120  # until a request must have arrived
LONGEST_NAME = 255

# Errors in requests. The first group are those of forms, the second those of questions.
ERRORS = (
    ClientDisconnect, MultiPartException,
    KeyError, RecursionError, TypeError, ValueError,
)  # fmt: skip
UNEXPECTED = 400, "Expected a form with one file, or a question about one."
TOO_LARGE = 413, f"The limit is one file of {MOST_BYTES >> 20} MB."
TOO_SLOW = 408, "Too slow: try again."
TOO_MANY = 503, "Too many visitors: try again later."


async def arrived(content: Coroutine[Any, Any, Content]) -> Content:
    """Waits for the content of a request.

    Raises:
        HTTPException: If it is not as expected, too large or too slow, or if there is no space.
    """
    try:
        return await asyncio.wait_for(content, SECONDS)
    except ERRORS as error:
        raise HTTPException(*UNEXPECTED) from error
    except FullError as error:
        raise HTTPException(*TOO_MANY) from error
    except asyncio.TimeoutError as error:
        raise HTTPException(*TOO_SLOW) from error


async def file_of(
    scope: Scope, receive: Receive, space: Space, turn: asyncio.Lock
) -> tuple[Any, str]:
    """Reads a form with one file into a file without a name, and returns it and its title.

    Args:
        scope: dict. The request.
        receive: callable. Receives its body.
        space: Space. Grows with the file.
        turn: lock. The larger uploads hold it, first come, first served.
    """

    async def counted() -> dict[str, Any]:
        message = await receive()
        count = len(message.get("body", b""))
        if space.count + count > MOST_BYTES + MOST_HEADERS:
            raise HTTPException(*TOO_LARGE)
        space.grow(count)
        if space.count > LARGE:
            async with turn:
                await asyncio.sleep(count / LARGE_RATE)
        return message

    if not Headers(scope=scope).get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(*UNEXPECTED)
    form = await Request(scope, counted).form(max_files=1, max_fields=0)
    (file,) = form.getlist("files") or [None]
    if not isinstance(file, UploadFile):
        await form.close()
        raise HTTPException(*UNEXPECTED)
    if file.size and file.size > MOST_BYTES:
        await form.close()
        raise HTTPException(*TOO_LARGE)
    return file.file, printable(PurePath(file.filename or "").name[:LONGEST_NAME])


async def token_of(scope: Scope, receive: Receive) -> str:
    """Reads a question, and returns the token of the upload that it is about."""
    body = b""
    async for chunk in Request(scope, receive).stream():
        body += chunk
        if len(body) > MOST_HEADERS:
            raise HTTPException(*TOO_LARGE)
    (asked,) = json.loads(body)["data"]
    return str(asked["path"])


async def disconnected(receive: Receive) -> None:
    """Waits until the visitor has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def question(scope: Scope, path: str, token: str, event: int) -> tuple[Scope, Receive]:
    """Returns a request to classify an upload, with nothing of the original but its address.

    Args:
        scope: dict. The original.
        path: str.
        token: str. Of an upload.
        event: int. Gradio's number of the event that classifies.
    """
    body = json.dumps({"data": [token], "fn_index": event}).encode()
    kept = [pair for pair in scope["headers"] if pair[0] in (b"host", b"accept-encoding")]
    headers = [
        *kept,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    new = {**scope, "headers": headers, "path": path, "raw_path": path.encode()}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return {**new, "query_string": b""}, receive
