"""What a tracked message costs an agent: with the server up, and with it down.

CONVO_API_URL=… CONVO_API_KEY=… python -m tests.bench.client_overhead --sub-domain demo --messages 1000
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from conversations.client import ConversationSync, Settings, blocking, use
from convo_project.address import free_port


def measured(settings: Settings, sub_domain: str, messages: int) -> str:
    use(ConversationSync(settings))
    session_id = blocking.initialize_conversation_for_user("+51988888888", sub_domain)
    times = []
    for number in range(messages):
        began = time.perf_counter()
        assert blocking.add_message_to_conversation(session_id, sub_domain, "user", f"Message {number}")
        times.append(time.perf_counter() - began)
    times.sort()
    p50, p99 = times[messages // 2], times[messages * 99 // 100]
    return f"p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, at most {times[-1] * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sub-domain", default="demo")
    parser.add_argument("--messages", type=int, default=1000)
    wanted = parser.parse_args()
    up = Settings.from_env()
    with tempfile.TemporaryDirectory() as folder:
        up = dataclasses.replace(up, outbox_path=Path(folder) / "up" / "outbox.sqlite3")
        nowhere = f"http://127.0.0.1:{free_port()}"
        down = dataclasses.replace(up, api_url=nowhere, outbox_path=Path(folder) / "down" / "outbox.sqlite3")
        print("server up:  ", measured(up, wanted.sub_domain, wanted.messages))  # noqa: T201
        print("server down:", measured(down, wanted.sub_domain, wanted.messages))  # noqa: T201


if __name__ == "__main__":
    main()
