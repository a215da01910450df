"""Vectors that mean something, without a model: texts that share words are near to each other.

Each word (its first five letters, so that forms of a word are one) counts at a place of its own, which a hash gives it.
The same text has the same vector on every machine.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

DIMENSIONS = 256
MOST_TEXTS = 2_048
MOST_CHARACTERS = 8_192 * 4
FIELDS = {"model", "input", "encoding_format", "dimensions", "user"}
# Words that stand in every text and mean nothing.
EMPTY_WORDS = {"a", "and", "are", "for", "have", "i", "in", "is", "it", "my", "not", "of", "the", "this", "to", "you"}
# Words that mean the same, so that a test can search by meaning with other words than the text's.
SAME_MEANING = {
    "refun": "money",
    "reimb": "money",
    "kettl": "boile",
    "parce": "packa",
    "deliv": "shipp",
    "arriv": "shipp",
}


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of `text`, of length 1."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()):
        if word not in EMPTY_WORDS:
            stem = SAME_MEANING.get(word[:5], word[:5])
            vector[int.from_bytes(hashlib.blake2b(stem.encode(), digest_size=4).digest(), "big") % dimensions] += 1.0
    if not any(vector):
        vector[0] = 1.0
    length = math.hypot(*vector)
    return [number / length for number in vector]


def problem_with(body: Mapping[str, Any]) -> str:
    """Return what OpenAI would refuse in the request's JSON; '' if nothing."""
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        return f"Unrecognized request argument supplied: {unknown[0]}"
    if not isinstance(body.get("model"), str) or not body["model"]:
        return "you must provide a model parameter"
    texts = body.get("input")
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_TEXTS:
        return f"'input' must be 1 to {MOST_TEXTS} texts"
    if not all(isinstance(text, str) and text.strip() and len(text) <= MOST_CHARACTERS for text in texts):
        return "'input' holds something empty, too long or no text"
    dimensions = body.get("dimensions", DIMENSIONS)
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= 3_072:
        return "Invalid 'dimensions'"
    return "" if body.get("encoding_format", "float") == "float" else "Only encoding_format 'float' is faked"


def answer(body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request without a problem."""
    dimensions = body.get("dimensions", DIMENSIONS)
    tokens = sum(len(text) for text in body["input"]) // 4
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embed(text, dimensions)}
            for index, text in enumerate(body["input"])
        ],
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
