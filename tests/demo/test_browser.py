"""The page as a person has it: a server of its own, and Chromium."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_uploads import REFUSED
from color_network import one_class_a_color, save_with_names
from PIL import Image

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
if not BROWSER:
    pytest.skip("needs Chromium", allow_module_level=True)

PARTS = ("heading", "drop", "status", "labels", "seen", "where")
WAIT = 240_000  # milliseconds; a loaded machine takes its time


class Served:
    """The command `demo` in a process, until it is stopped."""

    def __init__(self, folder, weights, port):
        self.log = folder / "log.txt"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.address = f"http://127.0.0.1:{port}/"
        command = [sys.executable, Path(__file__).with_name("serve_demo.py")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--weights", weights, "--port", str(port)],
                stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(self.temporary)},
            )  # fmt: skip

    def wait(self):
        deadline = time.monotonic() + WAIT / 1000
        while f"Serving {self.address}" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def peak(self):
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return 0
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024


@pytest.fixture(scope="module")
def served(tmp_path_factory, free_port):
    folder = tmp_path_factory.mktemp("served")
    server = Served(folder, save_with_names(one_class_a_color(), folder), free_port)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(served, browser):
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(WAIT)
    opened.requested = []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.goto(served.address)
    opened.wait_for_selector("#drop input[type=file]", state="attached")
    yield opened
    opened.close()


def upload(page, path):
    page.set_input_files("#drop input[type=file]", path)


def answered(page, path, color):
    """Uploads a picture with a patch of color, waits, and compares all that is shown."""
    picture = Image.new("RGB", (120, 90), "#404040")
    picture.paste(color, (20, 10, 60, 60))
    picture.save(path)
    upload(page, path)
    page.wait_for_selector(f"#status >> text=/{path.name}, classified in [0-9.]+ s/")
    first, *labels = re.findall(r"(\w+)\n+(\d+%)", page.inner_text("#labels"))
    assert first[0] == color
    assert int(first[1][:-1]) > 60
    assert sorted(name for name, _ in [first, *labels]) == ["blue", "green", "red"]
    for picture in ("seen", "where"):
        shown = page.wait_for_selector(f"#{picture} img")
        page.wait_for_function("image => image.complete && image.naturalWidth > 300", arg=shown)
    assert page.get_attribute("#seen img", "src") != page.get_attribute("#where img", "src")


def test_a_picture_is_answered_side_by_side(page, tmp_path):
    assert page.inner_text("#heading h1") == "ConvNeXt"
    assert "convnext_isotropic" in page.inner_text("#heading")
    answered(page, tmp_path / "photo.png", "green")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    boxes = {part: page.locator(f"#{part}").bounding_box() for part in PARTS}
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        apart = (
            a["x"] + a["width"] <= b["x"]
            or b["x"] + b["width"] <= a["x"]
            or a["y"] + a["height"] <= b["y"]
            or b["y"] + b["height"] <= a["y"]
        )
        assert apart, f"{one} and {other} overlap"
    assert boxes["seen"]["y"] == boxes["where"]["y"] == pytest.approx(boxes["drop"]["y"], abs=2)
    assert boxes["where"]["x"] + boxes["where"]["width"] <= 1280
    assert not page.locator("footer").is_visible()


def test_each_bad_upload_gets_its_message_and_the_page_lives_on(page, served, tmp_path):
    answered(page, tmp_path / "before.png", "red")
    peak = served.peak()
    for name, (make, said) in REFUSED.items():
        (tmp_path / name).write_bytes(make())
        upload(page, tmp_path / name)
        if name == "large.jpg":  # Gradio does not even send it
            page.wait_for_selector("text=/exceed the maximum allowed size.*large.jpg/")
            continue
        page.wait_for_selector(f"#status [role=alert] >> text={name}")
        assert said in page.inner_text("#status")
        assert "%" not in page.inner_text("#labels")
        assert page.locator("#seen img, #where img").count() == 0
    assert served.peak() - peak < 60 * 2**20
    answered(page, tmp_path / "after.png", "blue")


def test_the_name_of_a_file_is_text(page, tmp_path):
    name = "${1+1} {{value}} <b>x.png"
    (tmp_path / name).write_bytes(b"")
    upload(page, tmp_path / name)
    page.wait_for_selector("#status [role=alert]")
    assert f"{name} is empty" in page.inner_text("#status")


def test_nothing_is_kept(page, served, tmp_path):
    answered(page, tmp_path / "photo.png", "red")
    assert [path for path in served.temporary.rglob("*") if path.is_file()] == []


def test_nothing_is_asked_of_other_machines(page, served, tmp_path):
    answered(page, tmp_path / "photo.png", "red")
    assert len(page.requested) > 10
    outside = [
        url for url in page.requested if not url.startswith((served.address, "data:", "blob:"))
    ]
    assert outside == []
    assert "Reached for" not in served.log.read_text()
