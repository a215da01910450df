"""A download of 100 MB over the real web process: a reader who is slow or leaves holds nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import requests

from conversations.models import Conversation
from conversations.services.core.sql import rows
from tests.crash.stage import Convo, Process, eventually

VARIABLES = {"WEB_WORKERS": "1", "WEB_THREADS": "1"}
CHUNKS, LENGTH = 200, 500_000
MOST_GROWTH = 60_000_000  # bytes of memory, for a file of 100 MB


def long_conversation(convo: Convo) -> UUID:
    said = convo.post_own(user_id=f"talker {uuid4()}", message="Hello").json()["data"]
    rows(
        """
        WITH written AS (
            INSERT INTO conversation_chunks
                (client_id, conversation_id, position, role, content, message_id, metadata, created_at)
            SELECT (SELECT client_id FROM conversations WHERE id = $1::uuid), $1::uuid, 3 + number, 'user',
                repeat(chr(97 + number % 26), $3::int), '', '{}', now()
            FROM generate_series(1, $2::int) AS number)
        UPDATE conversations SET last_position = 3 + $2::int WHERE id = $1::uuid RETURNING id""",
        *(said["conversation_id"], CHUNKS, LENGTH),
    )
    return Conversation.objects.get(pk=said["conversation_id"]).pk


def download(convo: Convo, pk: UUID) -> requests.Response:
    path = f"{convo.base_url}/conversations/{pk}/transcript?format=csv"
    return requests.get(path, headers={"X-Service-API-Key": convo.key}, stream=True, timeout=60)


def memory(pid: int) -> int:
    """The bytes of memory that a process has to itself."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> list[str]:
    """The deleted files that a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(each))
    return [name for name in found if name.endswith("(deleted)")]


def test_a_download_is_whole_and_others_are_served_beside_it(convo: Convo, web: Process) -> None:
    pk = long_conversation(convo)
    with download(convo, pk) as slow:
        assert slow.status_code == 200
        first = next(slow.iter_content(65_536))
        # The only thread is free again, though the file was not read.
        assert download(convo, pk).headers["Content-Length"] == slow.headers["Content-Length"]
        assert requests.get(f"{convo.base_url}/conversations", headers={"X-Service-API-Key": convo.key}, timeout=30).ok
        length = len(first) + sum(len(piece) for piece in slow.iter_content(1 << 20))
    assert length == int(slow.headers["Content-Length"]) > CHUNKS * LENGTH


def test_a_reader_who_leaves_half_way_leaves_nothing_behind(convo: Convo, web: Process) -> None:
    pk = long_conversation(convo)
    [worker] = web.children()
    before, files = memory(worker), len(open_files(worker))
    for _ in range(3):
        with download(convo, pk) as answer:
            next(answer.iter_content(65_536))
    assert memory(worker) - before < MOST_GROWTH, "the file is on disk, not in memory"
    assert requests.get(f"{convo.base_url}/healthz", timeout=10).ok
    eventually(lambda: len(open_files(worker)) <= files, "the files are closed and gone")
