"""The visitors of `demo.py`: what honest and hostile ones send to the page."""

import asyncio
import io
import itertools
import json
import random
import statistics
import time
from collections import Counter
from pathlib import Path

from PIL import Image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
LOOKS = 10  # seconds that an honest visitor looks at an answer
PAUSE = 0.1  # seconds between the requests of a hostile visitor
LOST = 300  # seconds after which a visitor gives up
MB = 2**20
EMPTY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10"


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


def costly_pictures() -> dict[str, bytes]:
    """Pictures within the limits that take as long as possible."""
    size = 7000, 7000
    flat = encoded(Image.new("RGB", size, (90, 120, 40)), "JPEG", progressive=True)
    noise = Image.effect_noise((1000, 1000), 90).convert("RGB").resize(size)
    return {
        "scans.jpg": flat.removesuffix(b"\xff\xd9") + EMPTY_SCAN * 80 + b"\xff\xd9",
        "noise.jpg": encoded(noise, "JPEG", quality=60),
        "flat.png": encoded(Image.new("1", size), "PNG"),
        "flat.webp": encoded(Image.new("RGB", size), "WEBP"),
    }


def all_pictures() -> dict:
    """What visitors send, by name; "photos" are those of the honest."""
    return {**costly_pictures(), "large": random.randbytes(19 * MB), "photos": photographs()}


class Site:
    """The server as a visitor sees it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def request(self, method, path, body=b"", kind=None, pace=None, leave=None, **headers):
        """Returns the status and the contents of a response.

        `pace` is the number of bytes per second of a slow sender, `leave` the seconds until the
        visitor leaves without an answer.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
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


def file_of(token, **extra):
    return {"path": token, "meta": {"_type": "gradio.FileData"}, **extra}


def costly(name):
    async def visit(site, pictures):
        token = await site.upload(pictures[name], name)
        return token and await site.ask(file_of(token))

    return visit


async def too_large(site, pictures):
    return await site.upload(bytes(21 * MB))


async def never_asks(site, pictures):
    return await site.upload(pictures["large"])


async def leaves(site, pictures):
    token = await site.upload(pictures["noise.jpg"])
    return token and await site.ask(file_of(token), leave=0.05)


async def slow(site, pictures):
    return await site.upload(pictures["large"], pace=1000)


async def many_files(site, pictures):
    return await site.upload(bytes(2 * MB), field="other", count=9)


async def damaged(site, pictures):
    token = await site.upload(random.randbytes(5000))
    return token and await site.ask(file_of(token))


async def fetches(site, pictures):
    address = f"http://127.0.0.1:{site.port}/config"
    return await site.ask(file_of(address, url=address))


async def reads(site, pictures):
    await site.ask(file_of("/etc/passwd"))
    status, _ = await site.request("GET", "/gradio_api/file=/etc/passwd")
    return status == 200


async def foreign(site, pictures):
    status, _ = await site.request("POST", "/gradio_api/upload", b"x", Origin="http://evil.example")
    return status == 200


HOSTILE = {
    "49 megapixels in 80 scans": costly("scans.jpg"),
    "49 megapixels of noise": costly("noise.jpg"),
    "49 megapixels in a small PNG": costly("flat.png"),
    "49 megapixels in a small WebP": costly("flat.webp"),
    "files over the limit": too_large,
    "19 MB, never asked about": never_asks,
    "questions without waiting for the answer": leaves,
    "a kilobyte per second": slow,
    "nine files in an unexpected field": many_files,
    "no picture": damaged,
    "addresses to fetch": fetches,
    "files of the server": reads,
    "another origin": foreign,
}


async def hostile(site, visit, pictures, served):
    while True:
        try:
            served[bool(await visit(site, pictures))] += 1
        except OSError:
            served[False] += 1
        await asyncio.sleep(PAUSE)


async def visits(port, pictures, honest_count, hostile_count, seconds, watch):
    site, photos = Site(port), itertools.cycle(pictures["photos"])
    waits, counts = [], Counter()
    attacks = {kind: Counter() for kind in HOSTILE}
    for _ in range(3):  # the first pictures of a server take longer
        await site.ask(file_of(await site.upload(next(photos))))
    foes = [
        asyncio.ensure_future(hostile(site, HOSTILE[kind], pictures, attacks[kind]))
        for kind in itertools.islice(itertools.cycle(HOSTILE), hostile_count)
    ]
    ends = time.monotonic() + seconds
    regulars = [
        asyncio.ensure_future(
            late(index * LOOKS / honest_count, honest(site, photos, ends, waits, counts))
        )
        for index in range(honest_count)
    ]
    while not all(visitor.done() for visitor in regulars):
        watch()
        await asyncio.sleep(0.5)
    for foe in foes:
        foe.cancel()
    for outcome in await asyncio.gather(*foes, *regulars, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    figures = {
        "answered": counts["answered"],
        "lost": counts["lost"],
        "median_s": round(statistics.median(waits), 2),
        "p95_s": round(sorted(waits)[int(0.95 * len(waits))], 2),
        "longest_s": round(max(waits), 2),
    }
    if hostile_count:
        figures["hostile_requests"] = {
            kind: {"served": served[True], "refused": served[False]}
            for kind, served in attacks.items()
        }
    return figures


async def late(seconds, visitor):
    await asyncio.sleep(seconds)
    await visitor
