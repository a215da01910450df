"""The contract of a store of memory. Every store passes tests/memory/store_contract.py."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from memory.records import NO_FILTERS, ConversationRecord, Filters, StoreHit


class StoreError(Exception):
    """A store failed. The message contains nothing of the request, the answer or a key.

    code         not_configured, unauthorized, bad_request, not_found, forgotten (while it was being remembered):
                 permanent;
                 unreachable, timeout, rate_limited, http_503 (and other 5xx), bad_answer, busy (another process is
                 still writing what is to be deleted), still_there (found after it was deleted): retryable;
                 embedding_… with the code of an LLMError: like that error
    retryable    True if another attempt can succeed
    retry_after  seconds to wait, if known
    """

    def __init__(self, message: str, *, code: str, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after


class Store(Protocol):
    """Remembers, finds and forgets ended conversations; a client finds only its own.

    Every method may be interrupted anywhere and repeated: the result is the same. No method holds a transaction while
    it waits for the network.
    """

    name: str

    def remember(self, record: ConversationRecord) -> None:
        """Store the record, which must be normalised, so that searches find it. Raises StoreError."""
        ...

    def forget(self, conversation_id: UUID) -> None:
        """Delete the conversation from the store. Raises StoreError; then a repeated call deletes the rest."""
        ...

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[StoreHit]:
        """Return the client's conversations that match `query`, best first, each once, at most `limit` (1 to 100).

        Any text is a valid query; one that contains no word finds nothing. Raises StoreError.
        """
        ...
