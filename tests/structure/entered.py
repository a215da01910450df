"""Notes the files of the project that a journey enters, and their functions that run.

A file counts as entered if at least one of its functions runs during the journey, on any thread: methods, properties,
lambdas and comprehensions count, methods of models too. The code of modules and classes does not count; it runs when
they are imported. Not counted are tests, migrations, the simulators of providers (the fakes of the tests use them) and
the database backend (its check of the connection depends on what ran before). An equal journey ran before the measured
one, so that what is imported or cached once does not count either.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.structure.imports import ROOTS

PROJECT = Path(__file__).resolve().parents[2]
LEFT_OUT = (
    "conversations/migrations/",
    "memory/migrations/",
    "channels_out/simulators/",
    "convo_project/postgresql/",
)

Entered = dict[str, list[str]]  # paths of files, relative to the project, with the names of their functions


class Recorder:
    """Notes the files that are entered while `recording`, by this thread and by threads that start once installed."""

    def __init__(self) -> None:
        self._codes: set[CodeType] | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the interpreter report each call of a function to us."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    @contextmanager
    def recording(self) -> Iterator[Entered]:
        """Yield what is entered, which is filled in when the block has ended."""
        entered: Entered = {}
        codes: set[CodeType] = set()
        self._codes = codes
        try:
            yield entered
        finally:
            self._codes = None
            for file, name in sorted({(_file_of(code), code.co_qualname) for code in codes.copy()}):
                if file:
                    entered.setdefault(file, []).append(name)

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        codes = self._codes
        if codes is not None and event == "call":
            codes.add(frame.f_code)


def _file_of(code: CodeType) -> str:
    """Return the path of the project's file that a function stands in; "" for code that does not count."""
    is_function = code.co_flags & inspect.CO_OPTIMIZED  # code of modules and classes is not
    path = Path(code.co_filename)
    if not is_function or not path.is_relative_to(PROJECT):
        return ""
    inside = path.relative_to(PROJECT).as_posix()
    counts = inside.startswith(tuple(f"{root}/" for root in ROOTS)) and not inside.startswith(LEFT_OUT)
    return inside if counts else ""
