"""The floors of the services hold, and nothing imports in a circle."""

from __future__ import annotations

from tests.structure import imports


def test_every_folder_of_the_services_has_a_floor() -> None:
    assert imports.folders_without_floor() == []


def test_no_import_runs_upward_inside_the_services() -> None:
    assert imports.upward_files() == []


def test_no_folders_of_the_services_import_in_a_circle() -> None:
    assert imports.folders_in_circles() == []


def test_no_files_import_in_a_circle() -> None:
    assert imports.files_in_circles() == []
