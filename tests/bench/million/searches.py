"""What people look for among a million sessions, and how long they wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.bench.million.rows import Say
from tests.bench.million.watching import spread

Ask = Callable[[str], object]


def questions(words: Sequence[str], sentences: Sequence[str], sessions: int) -> dict[str, list[str]]:
    """By kind. A sentence has a small word before each of its others."""
    dice = random.Random(3)
    said = [sentence.split() for sentence in dice.sample(list(sentences), 120)]
    return {
        "among the 50 most common words": dice.sample(words[:50], 20),
        "of the next 2,000": dice.sample(words[50:2_000], 40),
        "rare words": dice.sample(words[2_000:], 40),
        "an order's number": [str(900_000_000 + dice.randint(1, sessions)) for _ in range(20)],
        "words that nobody said": [f"xyz{dice.randint(1, 10**6)}q" for _ in range(10)],
        "two words": [f"{each[1]} {each[-1]}" for each in said[:40]],
        "two common words": [" ".join(dice.sample(words[:50], 2)) for _ in range(10)],
        "several in a row": [f'"{" ".join(each[1:4])}"' for each in said[40:80]],
        "one word, and not another": [f"{each[1]} -{each[-1]}" for each in said[80:100]],
    }


def measure(name: str, asked: dict[str, list[str]], ask: Ask, say: Say) -> str:
    """How long each question takes, by kind. Returns the slowest question."""
    taken: list[tuple[float, str]] = []
    for kind, of_kind in asked.items():
        seconds = []
        for question in of_kind:
            begun = time.perf_counter()
            ask(question)
            seconds.append(time.perf_counter() - begun)
        taken += zip(seconds, of_kind, strict=True)
        say(f"    {kind:>32}: {spread(seconds)}\n")
    say(f"  {name}: {spread([seconds for seconds, _ in taken])}\n")
    return max(taken)[1]


@contextmanager
def explained(beginning: str, say: Say) -> Iterator[None]:
    """Each statement of this connection that begins like that is shown with the plan by which it was done."""
    from django.db import connection

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().startswith(beginning):
            execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {sql}", params, many, context)
            say("".join(f"      {line}\n" for (line,) in context["cursor"].fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield
