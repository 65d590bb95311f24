"""The files that visitors sent, until they are classified.

They have no name in the file system, so nothing remains of them when the server ends, however it
ends. Visitors refer to a file by a token, never by a path.
"""

import secrets
import threading
from concurrent.futures import Future
from typing import IO, Any

MOST_STORED = 2 * 2**30  # bytes of all uploads together
KEPT = 60  # seconds until an upload is dropped that its sender does not ask about


class FullError(Exception):
    """There is no space for an upload now."""


class Upload:
    """A file from a visitor.

    Args:
        file: open binary file without a name.
        name: str. The name that the visitor gave, printable.
        space: Space. What the file takes.
        address: str. As returned by `costs.address_of`. Defaults to "".
    """

    def __init__(self, file: IO[bytes], name: str, space: "Space", address: str = "") -> None:
        self.file = file
        self.name = name
        self.address = address
        self.abandoned = False
        self._space = space
        self._result: Future[Any] = Future()

    def wait_for(self, result: "Future[Any]") -> None:
        """Cancels what the visitor waits for if the visitor leaves."""
        self._result = result
        if self.abandoned:
            result.cancel()

    def abandon(self) -> None:
        """Notes that the visitor has left."""
        self.abandoned = True
        self._result.cancel()

    def close(self) -> None:
        """Removes the file."""
        self.file.close()
        self._space.free()


class Uploads:
    """All files that are not classified yet. May be used by several threads."""

    def __init__(self) -> None:
        self._waiting: dict[str, Upload] = {}  # the oldest first
        self._stored = 0  # bytes
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> str:
        """Keeps an upload, and returns its token."""
        token = secrets.token_urlsafe()
        self._waiting[token] = upload
        return token

    def get(self, token: str) -> Upload | None:
        """Returns an upload, or None if there is none."""
        return self._waiting.get(token)

    def take(self, token: str) -> Upload | None:
        """Returns an upload, which the caller then closes, or None if there is none."""
        return self._waiting.pop(token, None)

    def drop(self, token: str) -> None:
        """Removes an upload unless it was taken."""
        if upload := self.take(token):
            upload.close()

    def clear(self) -> None:
        """Removes all uploads that were not taken."""
        for token in list(self._waiting):
            self.drop(token)

    def reserve(self, count: int) -> None:
        """Claims space for `count` bytes; those who wait longest without asking lose theirs.

        Raises:
            FullError: If there is none.
        """
        while self._stored + count > MOST_STORED:
            try:
                oldest = next(iter(self._waiting))
            except StopIteration:
                raise FullError from None
            self.drop(oldest)
        with self._lock:
            self._stored += count

    def release(self, count: int) -> None:
        """Gives space back."""
        with self._lock:
            self._stored -= count


class Space:
    """The space of an upload, which grows as the file arrives."""

    def __init__(self, uploads: Uploads) -> None:
        self.count = 0  # bytes
        self._uploads = uploads

    def grow(self, count: int) -> None:
        """Claims space for `count` more bytes, or raises a `FullError`."""
        self._uploads.reserve(count)
        self.count += count

    def free(self) -> None:
        """Gives all of it back."""
        self._uploads.release(self.count)
        self.count = 0
