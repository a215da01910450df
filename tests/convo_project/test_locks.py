"""The locks, as older versions of pip read them: these pick the newest release for an extra that no line pins."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
PINNED = re.compile(r"^([\w.-]+)(?:\[([\w, .-]*)\])?==", re.MULTILINE)


def pinned(lock: str) -> dict[str, set[str]]:
    """Return the extras of each package that the lock pins, by the package's name."""
    found = PINNED.findall((PROJECT / lock).read_text())
    return {canonicalize_name(name): {canonicalize_name(each) for each in extras.split(", ")} for name, extras in found}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_each_extra_that_a_pinned_package_asks_for_is_pinned_too(lock: str) -> None:
    lines = pinned(lock)
    asked = {
        (name, canonicalize_name(wanted.name), canonicalize_name(extra))
        for name, extras in lines.items()
        for text in _requires(name)
        if _holds(wanted := Requirement(text), extras)
        for extra in wanted.extras
    }
    assert asked, "such as a driver's binary form"
    assert {each for each in asked if each[2] not in lines[each[1]]} == set()


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []  # of another version of Python, or of another system


def _holds(wanted: Requirement, extras: set[str]) -> bool:
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": each}) for each in extras)
