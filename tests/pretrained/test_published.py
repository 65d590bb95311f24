"""Where published files are looked for, and what is said before, during and after a download."""

import io
import os
import time
from pathlib import Path

import pytest
from file_server import serving
from forked import Forked
from rich.console import Console

from keras_convnext import DownloadError, download_weights
from keras_convnext.pretrained import catalog, download, transfer_display
from keras_convnext.pretrained.catalog import list_weights
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.other_caches import in_other_cache
from keras_convnext.pretrained.published import locked, published_file
from keras_convnext.pretrained.servers import address_of, addresses

CONTENT = Path(__file__).parents[2] / "weights" / "cifar10" / "convnext_cifar_32.safetensors"
ROW = Checkpoint("convnext_cifar", "toy", "official", "toy.safetensors", 10, 32)
COPY = ROW._replace(source="openmmlab", file="copy.safetensors")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("OFFLINE", "MIRROR"):
        monkeypatch.delenv(f"KERAS_CONVNEXT_{name}", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KERAS_CONVNEXT_ALLOW_HTTP", "1")
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    with serving() as server:
        server.files["toy.safetensors"] = CONTENT.read_bytes()
        yield server


def mirrors(monkeypatch, *urls):
    monkeypatch.setenv("KERAS_CONVNEXT_MIRROR", " ".join(urls))


def test_what_is_said_of_a_download_and_nothing_if_there_is_none(
    server, folder, monkeypatch, capsys
):
    mirrors(monkeypatch, server.url.replace("//", "//me:secret@"))
    assert published_file([ROW]) == (ROW, folder / "toy.safetensors")
    printed = capsys.readouterr()
    assert printed.out == ""
    *lines, last = printed.err.splitlines()
    assert lines == [
        "Downloading the toy weights of convnext_cifar: 4.0 MB, MIT license",
        f"  from {server.url}/toy.safetensors",
        f"  to {folder}",
    ]
    assert last.startswith("  4.0 MB downloaded in ")
    assert published_file([ROW]) == (ROW, folder / "toy.safetensors")
    assert capsys.readouterr().err == ""


def test_terms_of_their_own_are_named(server, folder, monkeypatch, capsys):
    mirrors(monkeypatch, server.url)
    published_file([ROW._replace(tag="dinov3")])
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first.endswith(": 4.0 MB, DINOv3 License")
    assert second == (
        "  license terms: https://ai.meta.com/resources/models-and-libraries/dinov3-license/"
    )
    of_v1 = [row for row in list_weights() if row.license.name != "CC-BY-NC-4.0"]
    assert {row.tag for row in of_v1 if not row.license.is_open} == {"dinov3", "eupe"}


def test_mirrors_are_tried_in_their_order_and_each_failure_is_said(
    server, folder, monkeypatch, capsys
):
    damaged = bytearray(CONTENT.read_bytes())
    damaged[-100:] = b"\xff" * 100
    with serving() as first, serving() as second:
        second.files["toy.safetensors"] = bytes(damaged)
        mirrors(monkeypatch, "http://127.0.0.1:1/weights/", first.url, second.url, server.url)
        published_file([ROW, COPY])
        assert [path for path, _ in first.requests] == ["/toy.safetensors", "/copy.safetensors"]
    said = capsys.readouterr().err
    for line in (
        "  http://127.0.0.1:1/weights/toy.safetensors\n    Connection refused\n",
        f"  {first.url}/toy.safetensors\n    it answers 404 Not Found: it has no such file\n",
        f"  {second.url}/toy.safetensors\n    it sent a wrong file, which was deleted. ",
        f"  from {server.url}/toy.safetensors\n",
    ):
        assert line in said
    assert "http://127.0.0.1:1/weights/copy.safetensors" not in said  # nobody is there, as we know
    assert (folder / "toy.safetensors").read_bytes() == CONTENT.read_bytes()


def test_every_address_is_reported_if_all_fail(server, folder, monkeypatch):
    mirrors(monkeypatch, server.url)
    row = ROW._replace(file="a-01234567.pth")
    with pytest.raises(DownloadError) as told:
        published_file([row, COPY])
    lines = str(told.value).splitlines()
    assert lines == [
        "The toy weights of convnext_cifar are not in the cache, and could not be downloaded",
        f"  {server.url}/a-01234567.pth",
        "    it answers 404 Not Found: it has no such file",
        f"  {server.url}/copy.safetensors",
        "    it answers 404 Not Found: it has no such file",
        "Without a connection, download one of these files elsewhere, and save it as shown:",
        f"  {row.url} (8 MB, sha256:01234567)",
        f"    as {folder / row.file}",
        f"  {COPY.url} (8 MB)",
        f"    as {folder / COPY.file}",
        "Or set KERAS_CONVNEXT_MIRROR to the address of a folder that serves one of them, or "
        "KERAS_CONVNEXT_CACHE to a folder that contains one",
    ]


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_makes_no_connection_and_says_what_goes_where(server, folder, value, monkeypatch):
    mirrors(monkeypatch, server.url)
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", value)
    with pytest.raises(DownloadError) as told:
        published_file([ROW])
    first, *rest = str(told.value).splitlines()
    assert first.endswith("not in the cache, and KERAS_CONVNEXT_OFFLINE forbids connections")
    assert f"  {ROW.url} (8 MB)" in rest
    assert f"    as {folder / 'toy.safetensors'}" in rest
    assert server.requests == []
    (folder / "toy.safetensors").write_bytes(CONTENT.read_bytes())
    assert published_file([ROW])[1] == folder / "toy.safetensors"
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "0")
    (folder / "toy.safetensors").unlink()
    published_file([ROW])
    assert len(server.requests) == 1


def test_a_file_that_another_package_downloaded_is_used(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "1")
    of_hub = ROW._replace(source="huggingface", file="convnext_cifar.toy.safetensors")
    snapshots = tmp_path / "hub" / "models--timm--convnext_cifar.toy" / "snapshots"
    for copy, path in {
        ROW: tmp_path / "torch" / "hub" / "checkpoints" / ROW.file,
        of_hub: snapshots / "0a1b" / "model.safetensors",
    }.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT.read_bytes()[:-1])
        with pytest.raises(DownloadError):
            published_file([copy])
        assert f"{path} is not used: " in capsys.readouterr().err
        path.write_bytes(CONTENT.read_bytes())
        assert published_file([copy]) == (copy, path)
        said = capsys.readouterr().err
        assert said == f"Found the toy weights of convnext_cifar in {path}\n"
        assert not (folder / copy.file).exists()
        path.unlink()


def test_the_caches_of_other_packages(tmp_path, monkeypatch):
    for name in ("TORCH_HOME", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny, _, of_hub = catalog.find("convnext_tiny", "imagenet")
    hub = tmp_path / "huggingface" / "hub" / "models--timm--convnext_tiny.fb_in1k" / "snapshots"
    places = [
        tmp_path / "torch" / "hub" / "checkpoints" / tiny.file,
        hub / "1" / "model.safetensors",
    ]
    for path in (*places, hub / "2" / "model.safetensors"):
        path.parent.mkdir(parents=True)
        path.touch()
    os.utime(hub / "2" / "model.safetensors", (0, 0))  # an older revision
    assert [in_other_cache(tiny), in_other_cache(of_hub)] == places


def test_the_addresses(monkeypatch, folder):
    tiny, openmmlab, timm = catalog.find("convnext_tiny", "imagenet")
    assert addresses([tiny, openmmlab]) == [(tiny, tiny.url), (openmmlab, openmmlab.url)]
    monkeypatch.setenv("KERAS_CONVNEXT_MIRROR", " https://a.example/w/,\nhttp://b.example direct ")
    assert [url for _, url in addresses([tiny])] == [
        f"https://a.example/w/{tiny.file}",
        f"http://b.example/{tiny.file}",
        tiny.url,
    ]
    monkeypatch.setenv("HF_ENDPOINT", "https://hf.example/")
    assert address_of(timm) == (
        "https://hf.example/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors"
    )
    assert address_of(tiny) == tiny.url
    for wrong in ("/mnt/weights", "file:///mnt", "https://", "mirror.example", "http://[::1/x"):
        monkeypatch.setenv("KERAS_CONVNEXT_MIRROR", wrong)
        with pytest.raises(DownloadError) as told:
            addresses([tiny])
        assert str(told.value).endswith(f"set KERAS_CONVNEXT_CACHE. Received: {wrong}")


@pytest.mark.parametrize("value", ["", "0", None])
def test_addresses_that_are_not_encrypted_have_to_be_allowed(server, folder, value, monkeypatch):
    if value is None:
        monkeypatch.delenv("KERAS_CONVNEXT_ALLOW_HTTP")
    else:
        monkeypatch.setenv("KERAS_CONVNEXT_ALLOW_HTTP", value)
    tiny, *_, of_hub = catalog.find("convnext_tiny", "imagenet")
    monkeypatch.setenv("HF_ENDPOINT", "http://hf.example")
    with pytest.raises(DownloadError, match=r"HF_ENDPOINT .* Received: http://hf\.example/timm"):
        addresses([tiny, of_hub])
    mirrors(monkeypatch, "https://a.example", server.url.replace("//", "//me:secret@"))
    with pytest.raises(DownloadError) as told:
        published_file([ROW])
    assert "KERAS_CONVNEXT_MIRROR does not start with https://" in str(told.value)
    assert "set KERAS_CONVNEXT_ALLOW_HTTP=1" in str(told.value)
    assert str(told.value).endswith(f"Received: {server.url}/toy.safetensors")
    assert server.requests == []


def test_a_cache_that_cannot_be_written_is_said_once(server, tmp_path, folder, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path / "file" / "cache"))
    mirrors(monkeypatch, server.url, server.url)
    with pytest.raises(download.NotWritten, match="cannot be written") as told:
        published_file([ROW])
    assert "Set KERAS_CONVNEXT_CACHE to another folder" in str(told.value)
    assert server.requests == []


WAITING = """
from keras_convnext.pretrained import catalog, published
row = catalog.Checkpoint("convnext_cifar", "toy", "official", "toy.safetensors", 10, 32)
print(published.published_file([row])[1].name)
"""


def test_who_waits_says_for_whom(server, folder, monkeypatch):
    with locked([ROW]):
        process = Forked(WAITING)
        while process.is_running() and "Waiting" not in process.errors():
            time.sleep(0.01)
        (folder / "toy.safetensors").write_bytes(CONTENT.read_bytes())
    done = process.wait()
    assert done.stdout == "toy.safetensors\n"
    assert done.stderr.startswith(f"Waiting for process {os.getpid()} on ")
    assert done.stderr.endswith(", which downloads the toy weights of convnext_cifar\n")
    assert not list(folder.glob("*.holder"))


def shown(monkeypatch, is_terminal, every=0.0):
    monkeypatch.setattr(transfer_display, "EVERY", every)
    file = io.StringIO()
    file.isatty = lambda: is_terminal
    console = Console(file=file, force_terminal=True, width=80, soft_wrap=True)
    monkeypatch.setattr(transfer_display, "console", console)
    return console.file


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    drawn = shown(monkeypatch, is_terminal=True)
    with transfer_display.progress(1_000_000, 4_000_000) as advance:
        advance(1_000_000)
    assert "2.0/4.0 MB" in drawn.getvalue()
    written = shown(monkeypatch, is_terminal=False)
    with transfer_display.progress(1_000_000, 4_000_000) as advance:
        advance(1_000_000)
    (line,) = written.getvalue().splitlines()
    assert line.startswith("  2.0 of 4.0 MB (50 %), ")
    assert line.endswith(" MB/s, 0:00 left")
    with transfer_display.progress(0, None) as advance:
        advance(500_000)
    assert written.getvalue().splitlines()[-1].startswith("  0.5 MB, ")
    rare = shown(monkeypatch, is_terminal=False, every=10.0)
    with transfer_display.progress(0, None) as advance:
        advance(500_000)
    assert rare.getvalue() == ""


def test_what_a_server_says_is_not_obeyed(monkeypatch):
    written = shown(monkeypatch, is_terminal=True)
    transfer_display.say("[red]404\x1b[2J\r gone")
    assert written.getvalue() == "[red]404\\x1b[2J\\r gone\n"


def test_weights_are_downloaded_by_their_names(folder, monkeypatch):
    with pytest.raises(ValueError, match="Received: model='convnext_huge'"):
        download_weights("convnext_huge")
    with pytest.raises(ValueError, match="weights='imagenet22k'"):
        download_weights("convnext_atto", "imagenet22k")
    assert download_weights("convnext_cifar") == CONTENT
    assert not folder.exists()
