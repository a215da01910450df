"""Imports between the project's files and between the folders of the services, read from the source.

An arrow leads from what imports to what is imported. Imports inside functions and for type checking count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import grimp

ROOTS = ("convo_project", "conversations", "channels_out", "memory")
SERVICES = "conversations.services"
# The floors of the services, lowest first. The contract for import-linter in pyproject.toml lists the same.
FLOORS = (
    {"core"},
    {"contacts", "tenants", "engine_chats"},
    {"delivery", "media", "simulator", "events", "figures"},
    {"transitions"},
    {"inbound"},
    {"retention", "voice"},
    {"history"},
    {"replies"},
    {"copilot", "agent_sync", "export", "jobs", "desk"},
    {"staff_actions"},
)

Arrow = tuple[str, str]


@cache
def file_arrows() -> frozenset[Arrow]:
    """Return every import from one file of the project to another."""
    graph = grimp.build_graph(*ROOTS, cache_dir=None)
    return frozenset(
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    )


def folder_of(module: str) -> str:
    """Return the folder of the services that a module belongs to; "" for modules elsewhere."""
    return module.removeprefix(f"{SERVICES}.").partition(".")[0] if module.startswith(f"{SERVICES}.") else ""


def folder_arrows() -> set[Arrow]:
    """Return the arrows between different folders of the services."""
    arrows = {(folder_of(importer), folder_of(imported)) for importer, imported in file_arrows()}
    return {(importer, imported) for importer, imported in arrows if importer and imported and importer != imported}


def folders_without_floor() -> list[str]:
    """Return the folders of the services that FLOORS does not list."""
    return sorted({folder for arrow in folder_arrows() for folder in arrow} - set().union(*FLOORS))


def upward_folders() -> list[Arrow]:
    """Return the arrows from a folder of the services to one on a higher floor."""
    return sorted((low, high) for low, high in folder_arrows() if _floor(low) < _floor(high) and _floor(low) >= 0)


def upward_files() -> list[Arrow]:
    """Return the imports that make up the upward arrows between folders."""
    upward = set(upward_folders())
    return sorted(arrow for arrow in file_arrows() if (folder_of(arrow[0]), folder_of(arrow[1])) in upward)


def level_folders() -> list[Arrow]:
    """Return the arrows between folders of the services that stand on the same floor."""
    return sorted((one, other) for one, other in folder_arrows() if _floor(one) == _floor(other) >= 0)


def folders_in_circles() -> list[list[str]]:
    """Return each group of folders of the services that import each other in a circle."""
    return _circles(folder_arrows())


def files_in_circles() -> list[list[str]]:
    """Return each group of files, in any root package, that import each other in a circle."""
    return _circles(file_arrows())


def _floor(folder: str) -> int:
    return next((number for number, floor in enumerate(FLOORS) if folder in floor), -1)


def _circles(arrows: Iterable[Arrow]) -> list[list[str]]:
    targets: dict[str, set[str]] = {}
    for importer, imported in arrows:
        targets.setdefault(importer, set()).add(imported)
    reached = {start: _reached_from(start, targets) for start in targets}
    groups = {
        frozenset(other for other in reached[start] if start in reached.get(other, ()))
        for start in targets
        if start in reached[start]
    }
    return sorted(map(sorted, groups))


def _reached_from(start: str, targets: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(targets.get(start, ()))
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting.extend(targets.get(each, ()))
    return reached
