"""Prints the figures: `python -m tests.structure [--files] [--json]`. The exit status is 0, whatever they are."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.structure import imports
from tests.structure.entered import PROJECT, Entered

SHOWN = 3  # of more functions of a file, only the number is printed
# Files entered: as this script counted them on commit 2342ae4, and as few as they are to become.
BEFORE_AND_AIM = {
    "own JSON, delivered again": (16, 10),
    "own JSON, with a new phone": (21, 15),
    "a first WhatsApp message": (27, 18),
    "a reply": (28, 18),
    "a send over WhatsApp": (18, 14),
    "a copilot question with its stream": (44, 25),
}


def figures_of_imports() -> dict[str, Any]:
    """Return what the source says: lists of arrows (from, to), and of groups that stand in a circle."""
    return {
        "folder_arrows": len(imports.folder_arrows()),
        "folders_without_floor": imports.folders_without_floor(),
        "upward_folders": imports.upward_folders(),
        "upward_files": imports.upward_files(),
        "level_folders": imports.level_folders(),
        "folders_in_circles": imports.folders_in_circles(),
        "files_in_circles": imports.files_in_circles(),
    }


def figures_of_journeys() -> dict[str, Entered]:
    """Return what each journey enters; a journey that failed is missing. What pytest says goes to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "convo_project.launch", "test", "--", "-n", "0"]
        environment = {**os.environ, "STRUCTURE_FIGURES": str(path)}
        subprocess.run(
            [*command, "tests/structure/test_journeys.py"], cwd=PROJECT, env=environment, stdout=sys.stderr, check=False
        )
        found: dict[str, Entered] = json.loads(path.read_text()) if path.exists() else {}
        return found


def table(of_imports: dict[str, Any], of_journeys: dict[str, Entered], *, with_files: bool) -> str:
    """Return the figures for people to read."""
    lines = [f"Imports inside {imports.SERVICES}: {of_imports['folder_arrows']} arrows between folders"]
    for name, title in (
        ("folders_without_floor", "folders without a floor"),
        ("upward_folders", "upward arrows between folders"),
        ("upward_files", "upward arrows between their files"),
    ):
        lines.append(f"  {len(of_imports[name]):4}  {title}")
        lines += [f"          {_shown(each)}" for each in of_imports[name]]
    lines.append(f"  {len(of_imports['level_folders']):4}  arrows between folders of one floor")
    for name, title in (
        ("folders_in_circles", "folders of the services in a circle"),
        ("files_in_circles", "files in a circle, in all root packages"),
    ):
        lines.append(f"  {sum(map(len, of_imports[name])):4}  {title}")
        lines += [f"          {', '.join(group)}" for group in of_imports[name]]
    lines += ["", "Files entered                         before   now   aim"]
    for journey, (before, aim) in BEFORE_AND_AIM.items():
        files = of_journeys.get(journey)
        lines.append(f"  {journey:36}{before:6}{'-' if files is None else len(files):>6}{aim:6}")
        if with_files and files:
            lines += [f"      {file}: {_names(functions)}" for file, functions in files.items()]
    return "\n".join(lines)


def _shown(each: str | tuple[str, str]) -> str:
    return each if isinstance(each, str) else " -> ".join(each)


def _names(functions: list[str]) -> str:
    named = [name for name in functions if not name.endswith(">")]  # neither lambdas nor comprehensions
    return ", ".join(named or functions) if len(named) <= SHOWN else f"{len(named)} functions"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description="Figures of the structure.")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--files", action="store_true", help="list the files that each journey enters, with their functions"
    )
    options = parser.parse_args()
    of_imports, of_journeys = figures_of_imports(), figures_of_journeys()
    if options.json:
        print(json.dumps({"imports": of_imports, "journeys": of_journeys}, indent=2))  # noqa: T201
    else:
        print(table(of_imports, of_journeys, with_files=options.files))  # noqa: T201


if __name__ == "__main__":
    main()
