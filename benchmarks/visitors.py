"""The honest visitors of `demo.py`, and how a visitor talks to the page."""

import asyncio
import io
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from PIL import Image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
HOSTILE = Path(__file__).parent / "hostile.py"
LOOKS = 10  # seconds that an honest visitor looks at an answer
LOST = 300  # seconds after which a visitor gives up
MB = 2**20


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photographs() -> list[bytes]:
    """Those of the package, and two of 12 megapixels, as cameras take them."""
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    for path in sorted(PHOTOS.glob("*.jpg"))[:2]:
        with Image.open(path) as image:
            photos.append(encoded(image.resize((4000, 3000)), "JPEG", quality=95))
    return photos


class Site:
    """The server as one visitor sees it.

    Args:
        port: int.
        group: int in 1..254.
        index: int. Visitors of other groups or indices have other addresses.
    """

    def __init__(self, port: int, group: int, index: int) -> None:
        self.port = port
        self.address = f"127.{group}.{index // 256}.{index % 256}"

    async def request(self, method, path, body=b"", kind=None, pace=None, leave=None, **headers):
        """Returns the status and the contents of a response.

        `pace` is the number of bytes per second of a slow sender, `leave` the seconds until the
        visitor leaves without an answer.
        """
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(self.address, 0)
        )
        try:
            sent = {
                "Host": f"127.0.0.1:{self.port}",
                "Content-Length": len(body),
                "Content-Type": kind,
                "Connection": "close",
                **headers,
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
            step = 2**16 if pace is None else max(1, pace // 2)
            for start in range(0, len(body), step):
                writer.write(body[start : start + step])
                await writer.drain()
                if pace is not None:
                    await asyncio.sleep(0.5)
            if leave is not None:
                await asyncio.sleep(leave)
                return 0, b""
            head, _, contents = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split(None, 2)[1]), contents
        except (ConnectionError, IndexError):
            return 0, b""  # cut off
        finally:
            writer.close()

    async def upload(self, data, name="photo.jpg", field="files", count=1, **options):
        """Returns the token of an upload, or None."""
        part = (
            f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        ).encode()
        body = (part + data + b"\r\n") * count + b"--b--\r\n"
        status, answer = await self.request(
            "POST", "/gradio_api/upload", body, "multipart/form-data; boundary=b", **options
        )
        return next(iter(json.loads(answer)), None) if status == 200 else None

    async def ask(self, file, **options):
        """Whether the page classifies a file."""
        question = {"data": [file], "fn_index": 0, "session_hash": random.randbytes(5).hex()}
        body = json.dumps(question).encode()
        status, answer = await self.request(
            "POST", "/gradio_api/run/predict", body, "application/json", **options
        )
        return status == 200 and b"classified in" in answer


def file_of(token, **extra):
    return {"path": token, "meta": {"_type": "gradio.FileData"}, **extra}


async def honest(site, photos, ends, waits, counts):
    while time.monotonic() < ends:
        started, answered = time.monotonic(), False
        try:
            token = await asyncio.wait_for(site.upload(next(photos)), LOST)
            answered = token and await asyncio.wait_for(site.ask(file_of(token)), LOST)
        except (asyncio.TimeoutError, OSError):
            pass
        counts["answered" if answered else "lost"] += 1
        waits.append(time.monotonic() - started)
        await asyncio.sleep(LOOKS)


class Hostile:
    """Hostile visitors in a process, from entry to exit.

    Args:
        port: int.
        count: int. How many.
    """

    def __init__(self, port: int, count: int) -> None:
        command = [sys.executable, HOSTILE, str(port), str(count)]
        self.process = count and subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> None:
        """Waits until they begin."""
        if self.process:
            self.process.stdout.readline()

    def stop(self) -> dict:
        """Ends them, and returns what they did."""
        if not self.process:
            return {}
        output, _ = self.process.communicate()
        return json.loads(output)


async def visits(port, photos, honest_count, hostile_count, seconds, watch):
    photos = itertools.cycle(photos)
    waits, counts = [], Counter()
    site = Site(port, 1, honest_count)
    for _ in range(3):  # the first pictures of a server take longer
        await site.ask(file_of(await site.upload(next(photos))))
    foes = Hostile(port, hostile_count)
    foes.start()
    ends = time.monotonic() + seconds
    regulars = [
        asyncio.ensure_future(
            late(
                index * LOOKS / honest_count,
                honest(Site(port, 1, index), photos, ends, waits, counts),
            )
        )
        for index in range(honest_count)
    ]
    while not all(visitor.done() for visitor in regulars):
        watch()
        await asyncio.sleep(0.5)
    did = foes.stop()
    await asyncio.gather(*regulars)
    return {
        "answered": counts["answered"],
        "lost": counts["lost"],
        "median_s": round(statistics.median(waits), 2),
        "p95_s": round(sorted(waits)[int(0.95 * len(waits))], 2),
        "longest_s": round(max(waits), 2),
        **did,
    }


async def late(seconds, visitor):
    await asyncio.sleep(seconds)
    await visitor
