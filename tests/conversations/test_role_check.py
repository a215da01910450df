"""`manage.py check --database default` names the copilot's role where it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.checks import the_copilot_has_its_role


@pytest.mark.django_db
def test_a_missing_role_of_the_copilot_is_named(settings: Any) -> None:
    assert the_copilot_has_its_role(databases=["default"]) == []
    assert the_copilot_has_its_role(databases=None) == []
    settings.COPILOT_ROLE = "no_such_role"
    [found] = the_copilot_has_its_role(databases=["default"])
    assert "no_such_role" in found.msg
    assert "CREATE ROLE no_such_role" in str(found.hint)
