"""Records one file of tests: the lines that each test reaches, and its seconds. Runs in a worker's child."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage

from tests.mutants import recording

PLUGINS = ("pytest_django.plugin", "pytest_timeout", "_hypothesis_pytestplugin")


class Reached:
    """A plugin of pytest that tells coverage which test runs, and sums up its seconds."""

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.unusable: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Give the lines that are reached meanwhile to the test."""
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of set-up, call and teardown; a test that does not pass is of no use."""
        self.seconds[report.nodeid] += report.duration
        if report.outcome != "passed":
            self.unusable.add(report.nodeid)


def options(*, fresh: bool, timeout: int) -> list[str]:
    """Return what pytest is given for every run in a child.

    fresh: the database is made anew
    timeout: seconds for each test
    """
    plugins = [argument for name in PLUGINS for argument in ("-p", name)]
    database = ["--reuse-db", *(["--create-db"] if fresh else [])]
    return [*plugins, "-q", "--tb=short", f"--timeout={timeout}", "--hypothesis-seed=0", "-m", "not browser", *database]


def record(file: str, to: Path, *, fresh: bool) -> int:
    """Run the file's tests, write their record, and return pytest's exit code."""
    root = Path.cwd()
    sources = [str(root / folder) for folder in recording.MEASURED]
    coverage = Coverage(
        data_file=None, source=sources, omit=["*/migrations/*"], config_file=False, concurrency="thread"
    )
    reached = Reached(coverage)
    coverage.start()
    code = int(pytest.main([*options(fresh=fresh, timeout=120), file], plugins=[reached]))
    coverage.stop()
    data = coverage.get_data()
    lines = {
        Path(path).relative_to(root).as_posix(): data.contexts_by_lineno(path) for path in sorted(data.measured_files())
    }
    seconds = {test: round(took, 3) for test, took in reached.seconds.items() if test not in reached.unusable}
    to.write_text(json.dumps(recording.made(root, file, seconds, lines)))
    return code
