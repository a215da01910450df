"""Text as PostgreSQL can keep it."""

from __future__ import annotations


def storable(text: str) -> str:
    """What PostgreSQL cannot keep (NUL, and the halves of a surrogate pair, which JSON can smuggle in) as U+FFFD."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str, most: int) -> str:
    """`text` on one line, in at most `most` characters: cut after a word where it can be, and then with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[most // 2 :] else cut).rstrip() + "…"
