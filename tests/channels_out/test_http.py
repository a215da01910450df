"""Failed calls: whether the request can have reached the provider. Real sockets throughout."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from channels_out import http
from tests.channels_out.wire import Echo, failure, outcome, post, read_request, socket_server
from tests.fakes.server import Fault


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as server:
        yield server


@pytest.fixture(autouse=True)
def fresh_session() -> None:
    http._thread.sessions = {}


# --- requests that never left


def test_a_refused_connection_never_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert outcome(failure(f"http://127.0.0.1:{port}/")) == ("connect", True, False)


def test_an_unknown_name_never_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_arguments: Any, **_options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert outcome(failure("http://provider.invalid/")) == ("connect", True, False)


def test_a_connection_that_is_not_taken_in_time_never_left() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # a full backlog lets further SYNs wait
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        error = failure(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=(0.2, 5))
        for filler in fillers:
            filler.close()
    assert outcome(error) == ("connect", True, False)


def test_tls_with_a_server_that_speaks_none_never_left(server: Echo) -> None:
    assert outcome(failure(server.url.replace("http:", "https:"))) == ("connect", True, False)


def test_a_tls_handshake_without_answer_never_left() -> None:
    with socket_server(lambda _connection: None) as address:
        assert outcome(failure(f"https://{address}/", timeout=(0.2, 0.2))) == ("connect", True, False)


def test_a_tls_handshake_that_is_cut_never_left() -> None:
    with socket_server(lambda connection: connection.close()) as address:
        assert outcome(failure(f"https://{address}/")) == ("connect", True, False)


def test_a_proxy_that_is_not_there_never_left(monkeypatch: pytest.MonkeyPatch, server: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert outcome(failure(server.url)) == ("connect", True, False)
    assert outcome(failure("https://provider.invalid/")) == ("connect", True, False)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://", "nonsense://x"])
def test_a_proxy_that_cannot_be_used_is_not_the_accounts_fault(
    proxy: str, monkeypatch: pytest.MonkeyPatch, server: Echo
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    error = failure(server.url)
    assert (*outcome(error), error.account_broken) == ("connect", True, False, False)


def test_a_tunnel_that_the_proxy_refuses_never_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with socket_server(refuse) as address:
        monkeypatch.setenv("https_proxy", f"http://{address}")
        assert outcome(failure("https://provider.invalid/")) == ("connect", True, False)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http://[", "http://a b", "http://x:99999999/"])
def test_what_is_no_url_breaks_the_account(url: str) -> None:
    error = failure(url)
    assert (*outcome(error), error.account_broken) == ("invalid_request", False, False, True)


# --- requests that may have arrived


def test_a_silent_server_is_ambiguous(server: Echo) -> None:
    server.fail_next(Fault(hang=30))
    assert outcome(failure(server.url, timeout=(1, 0.1))) == ("timeout", False, True)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("cut", ["before", "after", "body"])
def test_a_broken_connection_is_ambiguous(server: Echo, cut: Any, reset: bool) -> None:
    server.fail_next(Fault(cut=cut, reset=reset))
    assert outcome(failure(server.url)) == ("connection_lost", False, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_ambiguous(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        connection.close()

    with socket_server(serve) as address:
        assert outcome(failure(f"http://{address}/")) == ("connection_lost", False, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 500\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_an_error_whose_body_cannot_be_read_is_an_answer(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)
        connection.close()

    with socket_server(serve) as address:
        assert post(f"http://{address}/").status == 500


def test_a_dripping_answer_ends_at_the_deadline() -> None:
    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)

    with socket_server(serve) as address:
        began = time.monotonic()
        assert outcome(failure(f"http://{address}/", timeout=(1, 0.3))) == ("timeout", False, True)
        assert time.monotonic() - began < 15


def test_a_certificate_that_nobody_signed_never_left(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    with socket_server(serve) as address:
        assert outcome(failure(f"https://{address}/")) == ("connect", True, False)


def test_a_tls_connection_that_is_cut_after_the_request_is_ambiguous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        secure = context.wrap_socket(connection, server_side=True)
        if secure.recv(65536):
            secure.close()

    with socket_server(serve) as address:
        assert outcome(failure(f"https://{address}/")) == ("connection_lost", False, True)


def _certificate(folder: Path) -> Path:
    """Return a file with a key and a self-signed certificate for 127.0.0.1."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
