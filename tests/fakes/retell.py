"""Retell's chats over real HTTP, as its API reference and its SDK have them.

    with FakeRetell() as fake:
        settings.RETELL_BASE_URL, settings.RETELL_API_KEYS = fake.url, [fake.key]
        fake.answers = lambda chat, content: [agent("Hello")]

`python -m tests.fakes.retell --port 9100` serves one by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from channels_out import retell
from tests.fakes.server import FakeServer, Received, Reply

UNKNOWN = "Cannot find requested asset under given api key."


def agent(content: str) -> dict[str, Any]:
    """Words of the agent's."""
    return {"role": "agent", "content": content}


def tool(name: str = "book_appointment", kind: str = "custom") -> list[dict[str, Any]]:
    """A tool that the agent used; the first of the two has no content."""
    call = {
        "tool_call_id": f"call_{name}",
        "name": name,
        "arguments": "{}",
        "type": kind,
        "role": "tool_call_invocation",
    }
    return [call, {"role": "tool_call_result", "tool_call_id": f"call_{name}", "content": "done", "successful": True}]


@dataclass
class FakeChat:
    """A chat there."""

    chat_id: str
    agent_id: str
    metadata: dict[str, Any]
    variables: dict[str, str]
    status: str = "ongoing"
    messages: list[dict[str, Any]] = field(default_factory=list)
    analysis: dict[str, Any] | None = None
    ended_ms: int = 0

    def add(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Append, with ids and times, and return what was appended."""
        made = [
            {
                "message_id": f"{self.chat_id}-{len(self.messages) + n}",
                "created_timestamp": int(time.time() * 1000),
                **each,
            }
            for n, each in enumerate(messages)
        ]
        self.messages.extend(made)
        return made

    def heard(self) -> list[str]:
        """What the person said, as the chat has it."""
        return [each["content"] for each in self.messages if each["role"] == "user"]

    def as_json(self) -> dict[str, Any]:
        """As get-chat and the webhooks show it."""
        shown: dict[str, Any] = {
            "chat_id": self.chat_id,
            "agent_id": self.agent_id,
            "chat_status": self.status,
            "chat_type": "api_chat",
            "version": 0,
            "start_timestamp": 1_700_000_000_000,
            "metadata": self.metadata,
            "retell_llm_dynamic_variables": self.variables,
            "message_with_tool_calls": self.messages,
        }
        if self.ended_ms:
            shown["end_timestamp"] = self.ended_ms
        if self.analysis is not None:
            shown["chat_analysis"] = self.analysis
        return shown


class FakeRetell(FakeServer):
    """One account with one key; every agent whose id begins with `agent_` exists."""

    def __init__(self, port: int = 0, key: str = "key_fake") -> None:
        self.key = key
        self.chats: dict[str, FakeChat] = {}
        self.created = 0
        self.begin_message = ""
        self.answers: Callable[[FakeChat, str], list[dict[str, Any]]] = lambda chat, content: [
            agent(f"You said: {content}")
        ]
        super().__init__(port)

    def handle(self, request: Received) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "Invalid API key")
        path = request.path.partition("?")[0]
        if (request.method, path) == ("POST", "/create-chat"):
            return self._create(request.json())
        if (request.method, path) == ("POST", "/create-chat-completion"):
            return self._complete(request.json())
        if request.method == "GET" and path.startswith("/get-chat/"):
            chat = self.chats.get(path.removeprefix("/get-chat/"))
            return Reply(200, chat.as_json()) if chat else _error(422, UNKNOWN)
        if request.method == "PATCH" and path.startswith("/end-chat/"):
            return self._end(path.removeprefix("/end-chat/"))
        if request.method == "DELETE" and path.startswith("/delete-chat/"):
            with self.lock:
                gone = self.chats.pop(path.removeprefix("/delete-chat/"), None)
            return Reply(204, b"") if gone else _error(422, UNKNOWN)
        return _error(404, "Not found")

    def calls(self, name: str) -> list[Received]:
        """The requests of one kind: create-chat, create-chat-completion, get-chat, end-chat, delete-chat."""
        return [each for each in self.requests if each.path.split("/")[1] == name]

    def end(self, chat_id: str) -> None:
        """The chat is over, by silence."""
        self.chats[chat_id].status, self.chats[chat_id].ended_ms = "ended", int(time.time() * 1000)

    def webhook(self, event: str, chat: Any) -> tuple[bytes, dict[str, str]]:
        """The body of a webhook, and its headers."""
        body = json.dumps({"event": event, "chat": chat.as_json() if isinstance(chat, FakeChat) else chat}).encode()
        return body, {retell.SIGNATURE: retell.sign(body, self.key, time.time())}

    def _create(self, body: Any) -> Reply:
        if not isinstance(body, dict) or not isinstance(body.get("agent_id"), str):
            return _error(400, "agent_id is required")
        variables = body.get("retell_llm_dynamic_variables", {})
        if not all(isinstance(value, str) for value in variables.values()):
            return _error(400, "Dynamic variables must be strings")
        if not body["agent_id"].startswith("agent_"):
            return _error(422, UNKNOWN)
        with self.lock:
            self.created += 1
            chat = FakeChat(f"chat_{self.created}", body["agent_id"], body.get("metadata", {}), variables)
            self.chats[chat.chat_id] = chat
        if self.begin_message:
            chat.add([agent(self.begin_message)])
        return Reply(201, chat.as_json())

    def _complete(self, body: Any) -> Reply:
        if not isinstance(body, dict) or not isinstance(body.get("content"), str) or not body["content"]:
            return _error(400, "content is required")
        chat = self.chats.get(str(body.get("chat_id")))
        if chat is None:
            return _error(422, UNKNOWN)
        if chat.status != "ongoing":
            return _error(400, "Chat has ended")
        chat.add([{"role": "user", "content": body["content"]}])
        said = chat.add(self.answers(chat, body["content"]))
        if any(each.get("type") in retell.END_TOOLS for each in said):
            self.end(chat.chat_id)
        return Reply(201, {"messages": said})

    def _end(self, chat_id: str) -> Reply:
        if chat_id not in self.chats:
            return _error(422, UNKNOWN)
        self.end(chat_id)
        return Reply(204, b"")


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"status": "error", "message": message})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A fake of Retell's chats.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    options = parser.parse_args()
    with FakeRetell(port=options.port) as fake:
        print(fake.url, fake.key, flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
