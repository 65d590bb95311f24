"""The hostile visitors of `demo.py`, in a process of the lowest priority.

Command: `python benchmarks/hostile.py PORT COUNT`. Prints a line when they begin, and what they did
when stdin is closed. They stand for other machines, so they give way to the server and to the
honest visitors.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections import Counter

from PIL import Image
from visitors import MB, Site, encoded, file_of

PAUSE = 0.1  # seconds between the requests of a hostile visitor
EMPTY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10"


def hostile_pictures() -> dict[str, bytes]:
    """Pictures within the limits that take as long as possible, and a large file."""
    size = 7000, 7000
    flat = encoded(Image.new("RGB", size, (90, 120, 40)), "JPEG", progressive=True)
    noise = Image.effect_noise((1000, 1000), 90).convert("RGB").resize(size)
    return {
        "scans.jpg": flat.removesuffix(b"\xff\xd9") + EMPTY_SCAN * 80 + b"\xff\xd9",
        "noise.jpg": encoded(noise, "JPEG", quality=60),
        "flat.png": encoded(Image.new("1", size), "PNG"),
        "flat.webp": encoded(Image.new("RGB", size), "WEBP"),
        "large": random.randbytes(19 * MB),
    }


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


async def leaves_at_once(site, pictures):
    return await site.ask(file_of("nothing"), leave=0)


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


KINDS = {
    "49 megapixels in 80 scans": costly("scans.jpg"),
    "49 megapixels of noise": costly("noise.jpg"),
    "49 megapixels in a small PNG": costly("flat.png"),
    "49 megapixels in a small WebP": costly("flat.webp"),
    "files over the limit": too_large,
    "19 MB, never asked about": never_asks,
    "questions without waiting for the answer": leaves,
    "questions about nothing without waiting": leaves_at_once,
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


async def attack(port: int, count: int) -> dict:
    """Visits until stdin is closed."""
    pictures = hostile_pictures()
    attacks = {kind: Counter() for kind in KINDS}
    kinds = itertools.islice(itertools.cycle(KINDS), count)
    began, used = time.monotonic(), time.process_time()
    foes = [
        asyncio.ensure_future(hostile(Site(port, 2, index), KINDS[kind], pictures, attacks[kind]))
        for index, kind in enumerate(kinds)
    ]
    print("begins", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for foe in foes:
        foe.cancel()
    for outcome in await asyncio.gather(*foes, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return {
        "hostile_cores": round((time.process_time() - used) / (time.monotonic() - began), 2),
        "hostile_requests": {
            kind: {"served": served[True], "refused": served[False]}
            for kind, served in attacks.items()
        },
    }


if __name__ == "__main__":
    os.nice(19)
    print(json.dumps(asyncio.run(attack(*map(int, sys.argv[1:])))))
