"""Makes the vectors of texts, at providers of OpenAI's protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from django.conf import settings

from memory.language_models.contract import LLMError, ModelAccess
from memory.language_models.transport import post


def embed(access: ModelAccess, texts: Sequence[str], *, seconds: float | None = None) -> list[list[float]]:
    """Return the embedding of each of `texts`, in their order, from one call in one attempt.

    The vectors come from `OPENAI_EMBEDDING_MODEL` and have `OPENAI_EMBEDDING_DIMENSIONS` numbers (0: the model's own
    length), whichever provider makes them: those of one index are comparable. No text may be blank; OpenAI takes up to
    2,048 texts of up to 8,192 tokens. `seconds` is the time for the whole call; None means the provider's time. Raises
    LLMError; `no_embeddings` for a provider of a kind that makes none.
    """
    if not access.kind.has_embeddings:
        sentence = f"{access.kind.label} makes no embeddings. Name another provider for them."
        raise LLMError(sentence, code="no_embeddings", retryable=False)
    body: dict[str, Any] = {
        "model": settings.OPENAI_EMBEDDING_MODEL,
        "input": list(texts),
        "encoding_format": "float",
    }
    if settings.OPENAI_EMBEDDING_DIMENSIONS:
        body["dimensions"] = settings.OPENAI_EMBEDDING_DIMENSIONS
    answer = post(access, "/embeddings", body, access.seconds if seconds is None else seconds)
    return _parse_vectors(answer, count=len(texts))


def _parse_vectors(answer: bytes, *, count: int) -> list[list[float]]:
    """Return the vectors in the server's JSON, in the order of the texts, all of one length. Raises LLMError."""
    try:
        rows = sorted(json.loads(answer)["data"], key=lambda row: row["index"])
        vectors = [[float(number) for number in row["embedding"]] for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        vectors = []
    lengths = {len(vector) for vector in vectors}
    finite = all(math.isfinite(number) for vector in vectors for number in vector)
    if len(vectors) != count or len(lengths) != 1 or 0 in lengths or not finite:
        raise LLMError("The answer is not one vector for each text.", code="bad_answer", retryable=True)
    return vectors
