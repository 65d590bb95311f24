"""Requests to web servers, with errors that say what to do.

Proxies (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), certificates (REQUESTS_CA_BUNDLE) and logins
(~/.netrc) are taken from where `requests` takes them.
"""

import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.printable import without_login

CONNECTION = 10.0  # seconds to wait for one
SILENCE = 30.0  # seconds to wait for an answer, or for its next byte
LONGEST_WAIT = 60.0  # seconds that a busy server may ask for

_LATER = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better a moment later
_LOG_IN = "log in to the network with a browser, then try again"
_ADVICE = {
    401: "it needs a login: write one into ~/.netrc",
    403: "it refuses this file to you, or a firewall does",
    404: "it has no such file",
    407: "the proxy needs a login, as in HTTPS_PROXY=http://user:password@host:port",
    410: "it has no such file any more",
    451: "the file is withheld for legal reasons where you are",
    511: _LOG_IN,
}


class Unreachable(DownloadError):
    """The server cannot be reached, so its other files are not tried."""


class Passing(Exception):
    """A failure that may be temporary.

    Args:
        reason: str.
        wait: float. Seconds to wait before the next attempt, if the server asks for that.
        is_connected: bool. Whether the server answered at all.
    """

    def __init__(self, reason: str, wait: float = 0.0, is_connected: bool = True) -> None:
        super().__init__(reason)
        self.wait, self.is_connected = wait, is_connected


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follows no redirect from an encrypted address to one that is not."""
        target = super().get_redirect_target(resp)
        if target and resp.url.startswith("https:"):
            absolute = urljoin(resp.url, target)
            if not absolute.lower().startswith("https:"):
                raise DownloadError(
                    f"it redirects to {without_login(absolute)}, which is not encrypted"
                )
        return target


@contextmanager
def response_of(url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """Sends a request, and yields the response, whose content the caller reads.

    Its status is 200, 206, or 416 if `headers` ask for a part.

    Raises:
        DownloadError: If the file does not exist or cannot be reached.
        Passing: If the failure may be temporary.
    """
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle and not os.path.exists(bundle) and url.startswith("https:"):
        raise DownloadError(f"REQUESTS_CA_BUNDLE names a file that does not exist: {bundle}")
    try:
        with (
            _Session() as session,
            session.get(
                url, headers=dict(headers), stream=True, timeout=(CONNECTION, SILENCE)
            ) as answer,
        ):
            _check(answer)
            yield answer
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error, url) from error


def _check(answer: requests.Response) -> None:
    status = answer.status_code
    said = f"it answers {status} {(answer.reason or '')[:100]}".rstrip()
    if status in _LATER:
        wait = _wait_of(answer.headers.get("Retry-After", ""))
        if wait > LONGEST_WAIT:
            raise DownloadError(f"{said}, and asks to come back in {wait / 60:,.0f} minutes")
        raise Passing(said, wait)
    if status not in (200, 206, 416):
        raise DownloadError(f"{said}: {_ADVICE[status]}" if status in _ADVICE else said)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        sender = urlsplit(answer.url).hostname
        raise DownloadError(f"{sender} sends a web page in place of the file: {_LOG_IN}")
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity":  # not requested, and lengths would not be those of the file
        raise DownloadError(f"it sends the file compressed, by {encoding}")


def _wait_of(retry_after: str) -> float:
    """Seconds, from seconds or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _explained(error: Exception, url: str) -> Exception:
    """Translates a failure into an error with advice."""
    of_requests = requests.exceptions
    cause = _root_of(error)
    reason = (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(cause).__name__
    if isinstance(error, of_requests.InvalidSchema) and "SOCKS" in str(error):
        return DownloadError('a SOCKS proxy needs a package: pip install "requests[socks]"')
    if isinstance(error, of_requests.InvalidProxyURL | of_requests.ProxyError):
        return Unreachable(
            f"the proxy cannot be used: {reason}. HTTPS_PROXY and HTTP_PROXY name it, and NO_PROXY "
            "the hosts that are reached without it"
        )
    if isinstance(error, of_requests.TooManyRedirects):
        return DownloadError("it redirects again and again")
    if isinstance(
        error, of_requests.InvalidURL | of_requests.InvalidSchema | of_requests.MissingSchema
    ):
        return DownloadError("it is not an address that starts with https:// or http://")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Unreachable(
            f"its certificate is not trusted: {cause.verify_message}. If your organization's "
            "network replaces certificates, set REQUESTS_CA_BUNDLE to a file with its certificates"
        )
    if isinstance(cause, socket.gaierror):
        return Unreachable(
            f"{urlsplit(url).hostname} cannot be resolved: there is no connection, or only "
            "through a proxy (HTTPS_PROXY)"
        )
    if isinstance(error, of_requests.ConnectTimeout):
        return Passing(f"no connection within {CONNECTION:g} s", is_connected=False)
    if isinstance(error, of_requests.ReadTimeout):
        return Passing(f"no answer within {SILENCE:g} s", is_connected=False)
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return Passing(f"no data for {SILENCE:g} s")
    if isinstance(cause, urllib3.exceptions.IncompleteRead):
        return Passing("the connection was interrupted")
    is_connected = not isinstance(error, of_requests.ConnectionError)
    return Passing(reason, is_connected=is_connected)


def _root_of(error: BaseException) -> BaseException:
    """The first of the errors that led to this one."""
    deeper = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((_root_of(each) for each in deeper if isinstance(each, BaseException)), error)
