"""Servers, proxies and certificates that stand in the way, and what is said of them."""

import shutil
import socket
import subprocess
import time
from email.utils import formatdate

import pytest
from file_server import serving

from keras_convnext import DownloadError
from keras_convnext.pretrained import web
from keras_convnext.pretrained.web import Passing, Unreachable, response_of
from keras_convnext.printable import without_login


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server():
    with serving() as server:
        server.files["x.bin"] = b"content"
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate that nobody signed but itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def get(url):
    with response_of(url, {"Accept-Encoding": "identity"}) as answer:
        return answer.raw.read()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, r"401 Unauthorized: it needs a login: write one into ~/\.netrc"),
        (403, "403 Forbidden: it refuses this file"),
        (404, "404 Not Found: it has no such file"),
        (407, "HTTPS_PROXY=http://user:password@host:port"),
        (418, "it answers 418"),
        (451, "451 Unavailable For Legal Reasons: the file is withheld"),
        (511, "log in to the network with a browser"),
    ],
)
def test_an_answer_that_is_final_says_what_to_do(server, status, said):
    server.statuses = [status]
    with pytest.raises(DownloadError, match=said):
        get(f"{server.url}/x.bin")


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_a_busy_server_says_how_long_to_wait(server, as_date):
    def after(seconds):
        return formatdate(time.time() + seconds, usegmt=True) if as_date else str(seconds)

    server.statuses, server.headers = [503, 429], {"Retry-After": after(20)}
    with pytest.raises(Passing, match="it answers 503 Service Unavailable") as told:
        get(f"{server.url}/x.bin")
    assert told.value.wait == pytest.approx(20, abs=2)
    server.headers = {"Retry-After": after(7200)}
    with pytest.raises(DownloadError, match=r"429 .*, and asks to come back in 120 minutes"):
        get(f"{server.url}/x.bin")


@pytest.mark.parametrize("nonsense", ["soon", "-1", "1e9", "\u00b2", ""])
def test_a_wait_that_is_none_is_ignored(server, nonsense):
    server.statuses, server.headers = [503], {"Retry-After": nonsense}
    with pytest.raises(Passing) as told:
        get(f"{server.url}/x.bin")
    assert told.value.wait == 0


def test_a_redirect_is_followed_unless_it_goes_on_for_ever(server):
    with serving() as other:
        other.files["y.bin"] = b"of another"
        server.redirects = {"x.bin": f"{other.url}/y.bin", "loop": "/loop"}
        assert get(f"{server.url}/x.bin") == b"of another"
        with pytest.raises(DownloadError, match="it redirects again and again"):
            get(f"{server.url}/loop")
        other.content_type = "text/html; charset=utf-8"
        with pytest.raises(DownloadError, match=r"127\.0\.0\.1 sends a web page .* log in"):
            get(f"{server.url}/x.bin")


def test_a_compressed_file_is_refused(server):
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="compressed, by gzip"):
        get(f"{server.url}/x.bin")


def test_a_certificate_is_trusted_if_the_environment_says_so(server, certificate, monkeypatch):
    with serving(certificate) as secure:
        secure.files["x.bin"] = b"secret"
        secure.redirects = {"plain": f"{server.url}/x.bin", "moved": "/x.bin"}
        with pytest.raises(Unreachable, match=r"not trusted: self.signed .* REQUESTS_CA_BUNDLE"):
            get(f"{secure.url}/x.bin")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
        assert get(f"{secure.url}/x.bin") == b"secret"
        assert get(f"{secure.url}/moved") == b"secret"
        with pytest.raises(DownloadError, match=r"redirects to http://127.*, which is not encr"):
            get(f"{secure.url}/plain")
        assert server.requests == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".gone")))
        with pytest.raises(DownloadError, match=r"does not exist: .*both\.gone"):
            get(f"{secure.url}/x.bin")


def test_a_proxy_is_taken_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert get("http://weights.invalid/x.bin") == b"content"
    assert server.requests == [("http://weights.invalid/x.bin", None)]
    with serving() as direct:
        direct.files["x.bin"] = b"direct"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert get(f"{direct.url}/x.bin") == b"direct"
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    with pytest.raises(Unreachable, match=r"proxy cannot be used: .*407 .*NO_PROXY"):
        get("https://weights.invalid/x.bin")


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://127.0.0.1:1", "proxy cannot be used: Connection refused"),
        ("http://", "proxy cannot be used"),
        ("socks5://127.0.0.1:1", r'pip install "requests\[socks\]"|refused'),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(proxy, said, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises((DownloadError, Passing), match=said):
        get("http://weights.invalid/x.bin")


def test_a_host_that_nobody_knows(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match=r"weights\.invalid cannot be resolved"):
        get("http://user:secret@weights.invalid/x.bin")


def test_a_host_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(web, "CONNECTION", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        with socket.create_connection(address), pytest.raises(Passing) as told:
            get(f"http://{address[0]}:{address[1]}/x.bin")
    assert "no connection within 0.05 s" in str(told.value)
    assert not told.value.is_connected


def test_a_login_is_not_shown():
    assert without_login("https://me:secret@host:8/x?y=1") == "https://host:8/x?y=1"
    assert without_login("me:secret@proxy:3128") == "proxy:3128"
    assert without_login("https://host/x@y") == "https://host/x@y"
    assert without_login("http://me:secret@[::1/x") == "http://[::1/x"
