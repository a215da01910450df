"""One agent of several that share an outbox: says its numbered lines, and notes how long each call took.

    python fire_agent.py <sub-domain> <its number> <how many lines> <sessions> <folder>

It may be killed at any time; started again it goes on after the last line that it knows to be kept. What it was saying
when it was killed it says again, by the same message id.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from conversations.client import blocking


def phone_of(agent: int, session: int) -> str:
    return f"+51{960 + agent:03}{session:06}"


def main(sub_domain: str, number: int, lines: int, sessions: int, folder: Path) -> None:
    progress = folder / f"progress-{number}"
    done = int(progress.read_text() or 0) if progress.exists() else 0
    times = (folder / f"times-{number}").open("a", buffering=1)
    handles: dict[int, str | None] = {}
    while done < lines:
        session = done % sessions
        calls = []
        if session not in handles:
            calls.append(lambda s=session: handles.__setitem__(s, start(sub_domain, number, s)))
        calls.append(lambda n=done, s=session: say(handles[s], sub_domain, number, n))
        for call in calls:
            began = time.perf_counter()
            call()
            times.write(f"{time.perf_counter() - began:.4f}\n")
        done += 1
        new = progress.with_suffix(".new")
        new.write_text(str(done))
        new.replace(progress)
    deadline = time.monotonic() + 1_500
    status = blocking.status()
    while status is not None and status.waiting:
        assert time.monotonic() < deadline, f"the outbox does not get empty: {status}"
        time.sleep(0.05)
        status = blocking.status()
    assert status is None or not status.refused


def start(sub_domain: str, number: int, session: int) -> str | None:
    handle = blocking.initialize_conversation_for_user(phone_of(number, session), sub_domain)
    assert handle is not None
    return handle


def say(handle: str | None, sub_domain: str, number: int, line: int) -> None:
    text = f"{number}-{line}"
    assert blocking.add_message_to_conversation(handle, sub_domain, "user", text, message_id=text)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
