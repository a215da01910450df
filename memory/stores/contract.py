"""What a store of memory does. Whoever fulfils it passes tests/memory/store_contract.py."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from memory.records import NO_FILTERS, Filters, Hit, SessionRecord


class StoreError(Exception):
    """A store could not do what was asked. The sentence is ours and holds nothing of the request, the answer or a key.

    code         not_configured, unauthorized, bad_request, not_found, forgotten (while it was being remembered):
                 permanent;
                 unreachable, timeout, rate_limited, http_503 (and its like), bad_answer, busy (somebody is still
                 writing what is to be forgotten): retryable;
                 embedding_… with the code of an LLMError: as that says
    retryable    trying again can help
    retry_after  seconds to wait, if that is known
    """

    def __init__(self, message: str, *, code: str, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after


class Store(Protocol):
    """Remembers ended sessions, forgets them, and finds them for their own client.

    Every verb may be repeated, and may be cut off anywhere and repeated: the end is the same. None holds a transaction
    while it waits for the network.
    """

    name: str

    def remember(self, record: SessionRecord) -> None:
        """The session is found from now on, as `record` (tidied) says. Raises StoreError."""
        ...

    def forget(self, conversation_id: UUID) -> None:
        """Nothing of the session is left here. Raises StoreError; what is left then is forgotten by doing it again."""
        ...

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[Hit]:
        """The client's sessions that answer `query`, best first, each once, at most `limit` (1 to 100).

        `query` is whatever a person typed; one without a word finds nothing. Raises StoreError.
        """
        ...
