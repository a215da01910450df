"""Writes down what is said in a recording, at providers of OpenAI's protocol."""

from __future__ import annotations

import json

from memory.language_models.contract import LLMError, ModelAccess
from memory.language_models.transport import post
from memory.text import storable

MOST_BYTES = 25 * 1024 * 1024  # OpenAI, API reference, "Audio": files may have 25 MB
LONGEST_TEXT = 50_000  # characters


def transcribe(access: ModelAccess, audio: bytes, name: str, *, seconds: float | None = None) -> str:
    """Return the words of the recording; '' if nothing is said in it.

    name        the file's name, by whose ending the provider knows the format (note.ogg)
    seconds     the time for the whole call; None means the provider's time

    Raises LLMError; `no_transcription` for a provider of a kind that writes none down, `too_large` for a recording of
    more than MOST_BYTES.
    """
    if not access.kind.has_transcription:
        sentence = f"{access.kind.label} transcribes nothing. Name another provider for it."
        raise LLMError(sentence, code="no_transcription", retryable=False)
    if len(audio) > MOST_BYTES:
        raise LLMError("The recording is larger than 25 MB.", code="too_large", retryable=False)
    fields = {"model": access.model, "response_format": "json"}
    until = access.seconds if seconds is None else seconds
    answer = post(access, "/audio/transcriptions", fields, until, files={"file": (name, audio)})
    try:
        text = json.loads(answer)["text"]
    except (ValueError, LookupError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise LLMError("The provider's answer is no transcription.", code="bad_answer", retryable=True)
    return storable(text).strip()[:LONGEST_TEXT]
