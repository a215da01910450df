"""The bound of loops in tests that should end by themselves: a loop that does not says what went on for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MOST = 200  # rounds; no loop of the tests needs so many


def rounds(what: str, state: Callable[[], object] = str, most: int = MOST) -> Iterator[int]:
    """Yield 1, 2 … for the rounds of a loop, which breaks when it is done. Raises AssertionError after `most`.

    what: who goes on, such as "Replying"
    state: returns what there is to know of it, such as the conversations that still owe a reply
    """
    yield from range(1, most + 1)
    raise AssertionError(f"{what} did not end within {most} rounds: {state() or 'nothing more is known'}")
