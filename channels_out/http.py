"""HTTP calls to providers. An error states whether the request can have arrived; nothing is retried or logged here.

When a send fails, the question is whether the message may have been accepted. The exceptions of requests do not answer
it: one ConnectionError covers a refused connection and an interrupted answer; a ReadTimeout may come from the TLS
handshake. So our connections note when the first byte of a request is handed to the socket: a failure before that is
`connect` (retryable), one after it is ambiguous.

A pooled connection that the server closed while it was idle must not make a send ambiguous. urllib3 checks before each
use whether the peer has closed it; a server can still close it in the instant in which we write. Servers do so when a
connection reaches their idle limit, so ours are closed earlier: Node's and uvicorn's limit is 5 seconds, AWS's 60,
nginx's 75. Under load a thread sends more often than that and saves the TLS handshakes; otherwise one more handshake
does not matter.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.response import HTTPResponse
from urllib3.util.connection import create_connection

from channels_out.errors import InboundError, SendError
from channels_out.public_addresses import ForbiddenAddressError, Networks, resolve
from channels_out.shapes import clean, load_json

TIMEOUT = (5.0, 20.0)  # seconds to connect; and of silence, also for the body of the answer as a whole
MAX_ANSWER_BYTES = 1024 * 1024
MAX_IDLE = 4.0
MAX_RETRY_AFTER = 3600.0
HEADERS_GRACE = 0.5  # after the timeout, so that mere silence is a timeout

Answer = requests.Response
READING_ERRORS = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A provider's answer, whatever the status. Header names are in lower case.

    The body of an error answer may be cut short (too long, or the connection broke): the status says enough.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_from_gateway(self) -> bool:
        """True if a gateway may have passed the request on and lost its answer (RFC 9110, 15.6.3 and 15.6.5)."""
        return self.status in (502, 504)

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait from the Retry-After header, None if there is none."""
        return parse_retry_after(self.headers.get("retry-after", ""))

    def json(self) -> Any:
        """Return the body as JSON, fit to be stored; None if it is not JSON."""
        try:
            return load_json(self.body)
        except InboundError:
            return None


def post_json(
    url: str,
    payload: dict[str, Any],
    *,
    headers: Mapping[str, str],
    timeout: tuple[float, float] | None = None,
) -> HttpAnswer:
    """POST a JSON document and return the answer, whatever its status; redirects are answers too.

    Arguments:
        payload: strings, numbers, lists and dicts; unpaired surrogates in it become U+FFFD.
        headers: secrets belong here and not in the URL.
        timeout: seconds to connect, and seconds of silence while waiting for the answer; `TIMEOUT` unless given.

    Raises SendError: `invalid_request` (URL or headers cannot be sent), `connect` (nothing left; retryable),
    `timeout` and `connection_lost` (ambiguous), `bad_answer` (a 2xx whose body is too long; ambiguous).
    """
    headers = {"Content-Type": "application/json", **headers}
    return _exchange("POST", url, orjson.dumps(clean(payload)), headers, timeout or TIMEOUT)


def post_bytes(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    timeout: tuple[float, float] | None = None,
    private: Networks | None = None,
    most_bytes: int = MAX_ANSWER_BYTES,
) -> HttpAnswer:
    """POST a body unchanged and return the answer. Its Content-Type is among the headers. See `post_json` for the rest.

    private: given if somebody else chose the URL. It is then called without a proxy, and only if all addresses of its
        host are public or within these networks; else SendError `private_address`.
    most_bytes: of the answer
    """
    return _exchange("POST", url, body, headers, timeout or TIMEOUT, private, most_bytes)


def patch(url: str, *, headers: Mapping[str, str], timeout: tuple[float, float] | None = None) -> HttpAnswer:
    """PATCH a URL without a body and return the answer. Arguments and errors are those of `post_json`."""
    return _exchange("PATCH", url, None, headers, timeout or TIMEOUT)


def delete(url: str, *, headers: Mapping[str, str], timeout: tuple[float, float] | None = None) -> HttpAnswer:
    """DELETE a URL and return the answer, whatever its status. Arguments and errors are those of `post_json`."""
    return _exchange("DELETE", url, None, headers, timeout or TIMEOUT)


def get(url: str, *, headers: Mapping[str, str], timeout: tuple[float, float] | None = None) -> HttpAnswer:
    """GET a URL and return the answer, whatever its status. Arguments and errors are those of `post_json`."""
    return _exchange("GET", url, None, headers, timeout or TIMEOUT)


def exchange(
    method: str,
    url: str,
    body: bytes | None,
    *,
    headers: Mapping[str, str],
    timeout: tuple[float, float],
    private: Networks,
    most_bytes: int = MAX_ANSWER_BYTES,
) -> HttpAnswer:
    """Send a request of any method to a URL that somebody else chose, as `post_bytes` does, and return the answer."""
    return _exchange(method, url, body, headers, timeout, private, most_bytes)


def _exchange(
    method: str,
    url: str,
    data: bytes | None,
    headers: Mapping[str, str],
    timeout: tuple[float, float],
    private: Networks | None = None,
    most_bytes: int = MAX_ANSWER_BYTES,
) -> HttpAnswer:
    response = begin(method, url, data, headers=headers, timeout=timeout, private=private)
    try:
        body = _read(response, deadline=monotonic() + timeout[1], most_bytes=most_bytes)
    finally:
        response.close()
    answered = {name.lower(): value for name, value in response.headers.items()}
    return HttpAnswer(status=response.status_code, headers=answered, body=body)


def begin(
    method: str,
    url: str,
    data: bytes | None,
    *,
    headers: Mapping[str, str],
    timeout: tuple[float, float],
    private: Networks | None,
) -> Answer:
    """Send a request and return the answer, whose body is not read yet. Close it. Raises SendError."""
    _thread.left = False
    _thread.private = private
    try:
        return _session(private).request(
            method, url, data=data, headers=dict(headers), timeout=timeout, allow_redirects=False, stream=True
        )
    except READING_ERRORS as error:
        raise transport_error(error) from None  # the cause may quote a header, and so a token


def parse_retry_after(value: str, now: datetime | None = None) -> float | None:
    """Return the seconds to wait, from 0 to an hour, from a Retry-After header: seconds or an HTTP date.

    Returns None if it is neither. Source: RFC 9110, 10.2.3.
    """
    value = value.strip()
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            at = parsedate_to_datetime(value)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            seconds = (at - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def transport_error(error: Exception) -> SendError:
    """Return the SendError for an exception of requests or of a read; it says whether bytes have left."""
    name = type(error).__name__
    if not _thread.left:
        if _thread.private is not None and _is_forbidden(error):
            sentence = "The account's URL leads to an address that is not public."
            return SendError(sentence, code="private_address", account_broken=True)
        if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.InvalidProxyURL):
            return SendError(
                f"The account's base URL or credentials do not form a valid request ({name}).",
                code="invalid_request",
                account_broken=True,
            )
        return SendError(f"The provider could not be reached ({name}).", code="connect", retryable=True)
    if isinstance(error, (requests.Timeout, ReadTimeoutError)):
        return SendError("The provider did not answer in time.", code="timeout", ambiguous=True)
    return SendError(f"The connection broke before the answer ({name}).", code="connection_lost", ambiguous=True)


def _is_forbidden(error: BaseException) -> bool:
    """Return True if we refused the address, however deep the libraries have wrapped that error."""
    seen: list[Any] = [error]
    for each in seen:
        if isinstance(each, ForbiddenAddressError):
            return True
        inner = [*each.args, each.__cause__, each.__context__, getattr(each, "reason", None)]
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
    return False


def _read(response: requests.Response, *, deadline: float, most_bytes: int) -> bytes:
    """Return the body, at most `most_bytes` of it. Raises SendError if a 2xx cannot be read to its end."""
    raw: HTTPResponse = response.raw
    parts: list[bytes] = []
    size = 0
    problem: SendError | None = None
    try:
        while part := raw.read1(_CHUNK, decode_content=True):
            size += len(part)
            if size > most_bytes:
                problem = SendError("The provider's answer is too long.", code="bad_answer", ambiguous=True)
                break
            parts.append(part)
            if monotonic() > deadline:
                problem = SendError("The provider's answer took too long.", code="timeout", ambiguous=True)
                break
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        problem = transport_error(error)
    if problem and response.ok:
        raise problem
    return b"".join(parts)


class _Thread(threading.local):
    """The sessions of one thread, and of its current request: whether bytes have left, and the private networks that it
    may reach (None: any address is allowed)."""

    left: bool = False
    private: Networks | None = None

    def __init__(self) -> None:
        self.sessions: dict[Networks | None, requests.Session] = {}


_thread = _Thread()


def _forget_sessions() -> None:
    _thread.sessions = {}


os.register_at_fork(after_in_child=_forget_sessions)  # parent and child must not write to one socket


class _WatchedHTTPConnection(HTTPConnection):
    """A connection that notes when a request begins to leave, and since when it is idle."""

    _used_at = 0.0

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            _thread.left = False  # the bytes that open a proxy's tunnel are not the request

    def _new_conn(self) -> socket.socket:
        if _thread.private is None:
            return super()._new_conn()
        return self._connect_to_checked(_thread.private)

    def _connect_to_checked(self, private: Networks) -> socket.socket:
        """Return a connection to one of the host's addresses, after all of them were checked."""
        failed: OSError | None = None
        try:
            for address in resolve(self._dns_host, self.port, private):
                try:
                    where = (address, self.port)
                    return create_connection(where, self.timeout, self.source_address, self.socket_options)
                except OSError as error:
                    failed = error
        except OSError as error:
            failed = error
        raise NewConnectionError(self, "The host cannot be reached.") from failed

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _thread.left = True
        super().send(data)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        with self._bounded_wait():
            response = super().getresponse()
        self._used_at = monotonic()
        return response

    @contextmanager
    def _bounded_wait(self) -> Iterator[None]:
        """Break the connection of a server that somebody else chose once its headers take longer than the timeout.

        The socket's own timeout begins anew with each byte, so that a server could hold a thread with slow headers.
        """
        if _thread.private is None or self.sock is None or not isinstance(self.timeout, int | float):
            yield
            return
        over = threading.Event()
        timer = threading.Timer(self.timeout + HEADERS_GRACE, _break, [self.sock, over])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if over.is_set():  # else the headers that came so far would pass for all
            raise TimeoutError("The server's headers took too long.")

    @property
    def is_connected(self) -> bool:
        """False makes the pool connect anew instead of using the connection again."""
        return monotonic() - self._used_at < MAX_IDLE and super().is_connected


def _break(connected: socket.socket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class _WatchedHTTPSConnection(_WatchedHTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Transport(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if not proxy.lower().startswith(("http://", "https://")):
            raise requests.exceptions.InvalidProxyURL("Only HTTP proxies are supported.")  # SOCKS cannot be watched
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None  # else requests reads a redirect's whole body, even when it is not to follow it

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        settings = super().merge_environment_settings(*args, **kwargs)
        if _thread.private is not None:
            settings["proxies"] = {}  # a proxy would look the name up itself
        return settings


def _session(private: Networks | None) -> requests.Session:
    """Return the thread's session. Requests that may reach different networks share no connection."""
    if private not in _thread.sessions:
        session = _Session()
        session.headers.update({"User-Agent": "Convo", "Accept": "application/json", "Accept-Encoding": "identity"})
        session.auth = lambda request: request  # else a ~/.netrc could replace our Authorization header
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # accounts share the session
        transport = _Transport(pool_connections=8, pool_maxsize=1, max_retries=0)
        session.mount("https://", transport)
        session.mount("http://", transport)
        _thread.sessions[private] = session
    return _thread.sessions[private]
