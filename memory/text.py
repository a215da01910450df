"""Text in the form that PostgreSQL can store."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return `text` with everything that PostgreSQL cannot store replaced by U+FFFD.

    That is NUL, and single halves of a surrogate pair, which JSON can contain.
    """
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str, most: int) -> str:
    """Return `text` on one line of at most `most` characters.

    A longer text is cut after a word where possible, and ends with an ellipsis.
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[most // 2 :] else cut).rstrip() + "…"
