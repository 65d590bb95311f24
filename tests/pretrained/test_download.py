import os
import shutil
import time
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest
from file_server import serving
from forked import Forked

from keras_convnext import CheckpointError, DownloadError
from keras_convnext.pretrained import download as module
from keras_convnext.pretrained import web
from keras_convnext.pretrained.download import NotWritten, download

CHUNK = 1 << 16  # what is read at a time
CONTENT = os.urandom(300_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    with serving() as server:
        server.files["x.bin"] = CONTENT
        yield server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.bin"


def accept(file):
    assert file.is_file()


def files_in(folder):
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def leave_a_part(server, path, size):
    """As after a call that was broken off for good."""
    server.cut_after, server.cuts = size, 1
    server.statuses = [200, 404]
    with pytest.raises(DownloadError, match="404"):
        download(f"{server.url}/x.bin", path, accept)
    assert not path.exists()
    assert (path.parent / "partial" / "x.bin").stat().st_size == size
    server.requests.clear()


def test_a_file_is_fetched_and_nothing_else_is_left(server, path):
    download(f"{server.url}/x.bin", path, accept, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert files_in(path.parent) == ["x.bin"]


def test_a_cut_connection_is_taken_up_where_it_broke(server, path):
    server.cut_after, server.cuts = CHUNK, 2
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=65536-", "bytes=131072-"]


def test_what_an_earlier_call_left_is_gone_on_with(server, path):
    leave_a_part(server, path, 2 * CHUNK)
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/x.bin", "bytes=131072-")]
    assert files_in(path.parent) == ["x.bin"]


@pytest.mark.parametrize("version", [b"\xff\xfe", b'"a\r\nHost: elsewhere"', b"", b"x" * 10_000])
def test_a_damaged_version_starts_the_download_again(server, path, version):
    leave_a_part(server, path, 2 * CHUNK)
    (path.parent / "partial" / "x.bin.version").write_bytes(version)
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/x.bin", None)]


@pytest.mark.parametrize("length", ["abc", "-5", "1e3"])
def test_a_length_that_is_no_number_is_ignored(server, path, length):
    server.headers["Content_Length"] = length
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"version 1"', 'W/"version 1"', ""], ids=["new", "weak", "none"])
@pytest.mark.parametrize("size", [250_000, 500], ids=["long", "shorter than the part"])
def test_parts_of_two_versions_are_never_joined(server, path, etag, size):
    server.etag = etag
    leave_a_part(server, path, 2 * CHUNK)
    server.files["x.bin"] = another = os.urandom(size)
    if etag == '"version 1"':
        server.etag = '"version 2"'
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == another


def test_a_part_that_the_server_no_longer_has_is_fetched_anew(server, path):
    leave_a_part(server, path, 2 * CHUNK)
    server.files["x.bin"] = another = os.urandom(500)  # under the same tag: it answers 416
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == another


def test_a_server_without_parts_sends_all_again(server, path):
    server.ranges = False
    leave_a_part(server, path, 2 * CHUNK)
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, path, status):
    server.statuses = [status, status]
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_the_pauses_grow_and_are_those_that_a_server_asks_for(server, path, monkeypatch, capsys):
    pauses = []
    monkeypatch.setattr(module, "PAUSE", 10.0)
    own_time = SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", own_time)
    server.statuses = [503, 503]
    download(f"{server.url}/x.bin", path, accept)
    assert 5 <= pauses[0] <= 15
    assert 10 <= pauses[1] <= 30
    assert pauses != [10, 20]  # those of many machines differ
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        f"  {server.url.removeprefix('http://')}: it answers 503 Service Unavailable. "
        f"Trying again in {pauses[0]:.0f} s (1 of 2)"
    )
    server.statuses, server.headers = [429], {"Retry-After": "7"}
    download(f"{server.url}/x.bin", path, accept)
    assert pauses[2:] == [7.0]


def test_a_server_that_stays_busy_is_given_up(server, path):
    server.statuses = [503] * 99
    with pytest.raises(DownloadError, match="it answers 503 Service Unavailable"):
        download(f"{server.url}/x.bin", path, accept)
    assert len(server.requests) == module.ATTEMPTS
    assert files_in(path.parent) == []


def test_a_server_that_always_starts_over_and_breaks_off_is_given_up(server, path):
    server.ranges, server.cut_after, server.cuts = False, CHUNK, 99
    with pytest.raises(DownloadError, match="the connection was interrupted"):
        download(f"{server.url}/x.bin", path, accept)
    assert not path.exists()
    assert len(server.requests) <= module.ATTEMPTS + 1


def test_a_file_that_is_not_there_is_told_at_once(server, path):
    with pytest.raises(DownloadError, match="it answers 404 Not Found: it has no such file"):
        download(f"{server.url}/y.bin", path, accept)
    assert len(server.requests) == 1
    assert files_in(path.parent) == []


def test_a_page_in_place_of_the_file_is_told(server, path):
    server.files["x.bin"] = b"<html>log in</html>"
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="a web page"):
        download(f"{server.url}/x.bin", path, accept)
    assert files_in(path.parent) == []


def test_a_file_of_another_size_is_not_even_fetched(server, path):
    with pytest.raises(DownloadError, match=r"300,000 bytes where 300,001 are expected"):
        download(f"{server.url}/x.bin", path, accept, size=300_001)
    assert not path.exists()


def test_a_file_that_fails_the_check_is_thrown_away(server, path):
    def refuse(file):
        assert file.read_bytes() == CONTENT
        raise CheckpointError("wrong")

    with pytest.raises(CheckpointError, match="wrong"):
        download(f"{server.url}/x.bin", path, refuse)
    assert files_in(path.parent) == []


def test_a_slow_server_is_waited_for(server, path):
    server.pause = 0.05
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(web, "SILENCE", 0.1)
    server.pause = 1.0
    with pytest.raises(DownloadError, match="no data for"):
        download(f"{server.url}/x.bin", path, accept)
    assert not path.exists()


def test_nobody_listens(path, server):
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:1/x.bin", path, accept)


@pytest.mark.parametrize("url", ["folder/x.bin", "file:///folder/x.bin"])
def test_what_is_no_web_address_is_told(url, path):
    with pytest.raises(DownloadError, match="not an address that starts with https"):
        download(url, path, accept)


@pytest.mark.parametrize("sends_length", [True, False])
def test_more_than_the_weights_can_have_is_not_kept(server, path, sends_length):
    server.sends_length = sends_length
    with pytest.raises(DownloadError, match=r"bytes or more, which these weights cannot have"):
        download(f"{server.url}/x.bin", path, accept, most=len(CONTENT) - 1)
    assert not path.exists()
    download(f"{server.url}/x.bin", path, accept, most=len(CONTENT))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["many", "-5", ""])
def test_a_length_that_is_none_is_ignored(server, path, length):
    server.headers = {"Content-Length": length}
    server.sends_length = False
    with suppress(DownloadError):  # of what http.client makes of it
        download(f"{server.url}/x.bin", path, accept)
        assert path.read_bytes() == CONTENT


def test_it_is_announced_once_with_its_size(server, path):
    sizes = []
    server.cut_after, server.cuts, server.statuses = CHUNK, 2, [503]
    download(f"{server.url}/x.bin", path, accept, announce=sizes.append)
    assert sizes == [len(CONTENT)]
    server.sends_length = False
    download(f"{server.url}/x.bin", path, accept, announce=sizes.append)
    assert sizes == [len(CONTENT), None]


def test_a_server_that_trickles_is_connected_to_anew(server, path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_FOR", 0.05)
    monkeypatch.setattr(module, "SLOWEST", 1e9)
    server.pause, server.piece = 0.02, 10_000
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert len(server.requests) > 1
    server.ranges = False  # so that it starts over each time
    with pytest.raises(DownloadError, match=r"only [\d,]+ bytes arrived in 0 s"):
        download(f"{server.url}/x.bin", path, accept)


def test_what_came_of_a_stopped_download_is_kept_and_said(server, path, monkeypatch, capsys):
    def stopped(done, total):
        def advance(count):
            raise KeyboardInterrupt

        return nullcontext(advance)

    with monkeypatch.context() as patch:
        patch.setattr(module, "progress", stopped)
        with pytest.raises(KeyboardInterrupt):
            download(f"{server.url}/x.bin", path, accept)
    kept = (path.parent / "partial" / "x.bin").stat().st_size
    assert kept > 0
    said = capsys.readouterr().err
    assert f"Stopped. {kept / 1e6:.1f} MB of x.bin are kept, and the next download cont" in said
    download(f"{server.url}/x.bin", path, accept)
    assert server.requests[-1] == ("/x.bin", f"bytes={kept}-")
    assert f"  {kept / 1e6:.1f} MB already downloaded" in capsys.readouterr().err


def test_a_file_whose_check_was_stopped_is_not_fetched_again(server, path):
    def stopped(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/x.bin", path, stopped)
    download(f"{server.url}/x.bin", path, accept)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/x.bin", None), ("/x.bin", "bytes=300000-")]
    assert files_in(path.parent) == ["x.bin"]


def test_a_folder_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotWritten, match=r"x\.bin cannot be written in .*file: Not a directory"):
        download(f"{server.url}/x.bin", tmp_path / "file" / "x.bin", accept)
    assert server.requests == []


def test_a_disk_that_is_too_full_is_told_before(server, path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=299_999))
    with pytest.raises(NotWritten, match=r"too full for x\.bin .* KERAS_CONVNEXT_CACHE"):
        download(f"{server.url}/x.bin", path, accept)
    assert files_in(path.parent) == []


def test_a_disk_that_fills_up_is_given_its_room_back(server, path):
    """The quota is a limit on the size of files, which the system enforces as it does a disk's."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from keras_convnext.pretrained.download import download\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "download(sys.argv[1], Path(sys.argv[2]), print)\n"
    )
    run = Forked(script, f"{server.url}/x.bin", path).wait()
    assert "the disk is too full for x.bin" in run.stderr
    assert files_in(path.parent) == []
