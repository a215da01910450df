"""A mail server on a loopback port, which speaks SMTP as far as Django's backend does, and may misbehave."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any


class FakeMailServer:
    """Keeps the messages that it takes.

    behave: called with the number of a message, from 1, once its text is there; returns the answer's line, or None to
    hang up without an answer. An answer that begins with 2 takes the message.
    refuses: recipients that it does not know
    """

    def __init__(self, behave: Callable[[int], str | None] = lambda _number: "250 OK") -> None:
        self.behave = behave
        self.refuses: set[str] = set()
        self.taken: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections = self.offered = 0
        fake = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                fake.connections += 1
                fake._speak(self.rfile, self.wfile)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FakeMailServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _speak(self, reads: Any, writes: Any) -> None:
        def say(line: str) -> None:
            writes.write(f"{line}\r\n".encode())

        say("220 fake ESMTP")
        to: list[str] = []
        while line := reads.readline().decode().strip():
            verb = line.split(":")[0].split()[0].upper()
            if verb == "QUIT":
                say("221 Bye")
                return
            if verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                if address in self.refuses:
                    say("550 No such user here")
                else:
                    to.append(address)
                    say("250 OK")
            elif verb == "DATA":
                say("354 Go on")
                text = b""
                while (each := reads.readline()) not in (b".\r\n", b""):
                    text += each[1:] if each.startswith(b"..") else each
                self.offered += 1
                answer = self.behave(self.offered)
                if answer is None:
                    return
                if answer.startswith("2"):
                    self.taken.append(email.message_from_bytes(text, policy=email.policy.default))  # type: ignore[arg-type]
                    self.recipients += to
                to = []
                say(answer)
            else:
                say("250 fake" if verb in ("EHLO", "HELO") else "250 OK")
