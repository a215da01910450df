"""The address of the web process: HOST and PORT."""

from __future__ import annotations

import ipaddress
import socket

from django.core.exceptions import ImproperlyConfigured

from convo_project import env
from convo_project.home import CannotStartError


def host() -> str:
    """Return HOST, an IP address. Raises ImproperlyConfigured for anything else."""
    name = env.text("HOST") or "127.0.0.1"
    try:
        return str(ipaddress.ip_address("127.0.0.1" if name == "localhost" else name.strip("[]")))
    except ValueError:
        raise ImproperlyConfigured(f"HOST must be an IP address such as 127.0.0.1 or 0.0.0.0, not {name!r}.") from None


def port() -> int:
    """Return PORT, a TCP port."""
    return env.whole("PORT", 8000, least=1, most=65_535)


def base_url() -> str:
    """Return the address at which this machine itself reaches the web process."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host(), host())  # noqa: S104 - compared, not listened at # nosec B104
    return f"http://[{name}]:{port()}" if ":" in name else f"http://{name}:{port()}"


def refuse_if_taken() -> None:
    """Raise CannotStartError if HOST and PORT are taken, or this user may not listen there."""
    family = socket.AF_INET6 if ":" in host() else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host(), port()))
            probe.listen()
        except OSError as problem:
            raise CannotStartError(
                f"Port {port()} at {host()} cannot be used ({problem.strerror}). "
                f"Choose another one: make up PORT={port() + 1 if port() < 65_535 else 8000}"
            ) from None


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
