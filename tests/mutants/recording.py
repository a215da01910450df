"""The lines that each test reaches and the time it takes, kept for each file of tests below CONVO_HOME.

A worker runs each file once, without a fault. A file is run again when it has changed, or a module that it reached. A
file that is not run again (`--keep`) runs whole for each mutant if it has changed, or if it is new and names the
module.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tests.mutants.modules import MODULES

MEASURED = ("conversations/services", "conversations/http", "conversations/admin", "memory")
TESTS = ("tests/conversations", "tests/memory", "tests/races", "tests/copilot")
LEFT_OUT = {"tests/conversations/test_schemathesis.py"}  # random requests in other processes, for minutes


class Recording:
    """The recording in `folder` of the project in `root`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def files(self) -> list[str]:
        """The files of tests."""
        found = (path for folder in TESTS for path in (self.root / folder).glob("test_*.py"))
        return sorted({path.relative_to(self.root).as_posix() for path in found} - LEFT_OUT)

    def path_of(self, file: str) -> Path:
        """Return where the record of a file of tests is kept."""
        return self.folder / f"{file.replace('/', '.')}.json"

    def outdated(self) -> list[str]:
        """Return the files of tests to run again; those that name most of the modules that decide come first."""
        outdated = [file for file in self.files if not self._is_current(file)]
        return sorted(outdated, key=lambda file: -sum(self.names(file, module) for module in MODULES))

    def _is_current(self, file: str) -> bool:
        record = self._record(file)
        return record is not None and all(digest(self.root / path) == it for path, it in record["digests"].items())

    def forget(self) -> None:
        """Read the records anew."""
        for name in ("_records", "_tests_by_line", "seconds", "_changed"):
            self.__dict__.pop(name, None)

    def _record(self, file: str) -> dict[str, Any] | None:
        path = self.path_of(file)
        return json.loads(path.read_text()) if path.exists() else None

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {file: record for file in self.files if (record := self._record(file))}

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Return the seconds that each test takes that passed."""
        return {test: seconds for record in self._records.values() for test, seconds in record["seconds"].items()}

    @cached_property
    def _changed(self) -> set[str]:
        return {
            file for file, record in self._records.items() if record["digests"].get(file) != digest(self.root / file)
        }

    def changed_tests(self) -> list[str]:
        """Return the files of tests that are not as they were recorded."""
        return sorted(self._changed)

    @cached_property
    def _tests_by_line(self) -> dict[str, defaultdict[int, set[str]]]:
        found: dict[str, defaultdict[int, set[str]]] = {}
        for file, record in self._records.items():
            if file in self._changed:
                continue
            tests = list(record["seconds"])
            for module, lines in record["lines"].items():
                of_module = found.setdefault(module, defaultdict(set))
                for line, numbers in lines.items():
                    of_module[int(line)].update(tests[number] for number in numbers)
        return found

    def unknown(self, module: str) -> list[str]:
        """Return the files of tests that name the module and were never recorded."""
        return [file for file in self.files if file not in self._records and self.names(file, module)]

    def modules(self) -> list[str]:
        """Return the paths of the modules that tests reach."""
        return sorted(self._tests_by_line)

    def tests(self, module: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that reach any of the lines."""
        by_line = self._tests_by_line.get(module, {})
        return {test for line in lines for test in by_line.get(line, ())}

    def names(self, file: str, module: str) -> bool:
        """Return whether a file of tests names the module: it imports it, or is called like it."""
        folder, stem, dotted = Path(module).parent.name, Path(module).stem, module.removesuffix(".py").replace("/", ".")
        text = _text(self.root / file)
        return stem in Path(file).stem or dotted in text or (f"{folder} import" in text and stem in text)


def made(root: Path, file: str, seconds: dict[str, float], reached: dict[str, dict[int, list[str]]]) -> dict[str, Any]:
    """Return the record of a file of tests: the seconds of each test and, for each module's line, who reaches it."""
    numbers = {test: number for number, test in enumerate(seconds)}
    lines = {
        module: {
            line: sorted(numbers[test] for test in tests if test in numbers)
            for line, tests in by_line.items()
            if any(test in numbers for test in tests)
        }
        for module, by_line in reached.items()
    }
    lines = {module: by_line for module, by_line in lines.items() if by_line}
    shared = [path for path in (root / "tests/conftest.py", (root / file).with_name("conftest.py")) if path.exists()]
    paths = [*lines, file, *(path.relative_to(root).as_posix() for path in shared)]
    return {"digests": {path: digest(root / path) for path in paths}, "seconds": seconds, "lines": lines}


def digest(path: Path) -> str:
    """Return a digest of the file; '' if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.exists() else ""


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
