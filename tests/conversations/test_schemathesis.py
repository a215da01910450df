"""What the OpenAPI promises, tried on the WSGI application with what fits it and with what does not."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import hypothesis
import pytest
import schemathesis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth

from conversations.api import paging
from conversations.models import Assistant, Client, Conversation, Membership
from convo_project.wsgi import application
from tests.copilot.reading import cookies_of
from tests.routes import SCHEMA, in_a_transaction
from tests.sizes import LONG, times

pytestmark = [pytest.mark.django_db, pytest.mark.long, pytest.mark.timeout(3_600)]

CURSOR = paging._cursor(Conversation(pk=UUID(int=1), started_at=datetime(2026, 1, 1, tzinfo=UTC)))
CURSORS = {"chunks": "1", "tool-calls": "1", "templates": str(UUID(int=1))}  # other lists have CURSOR's form


def web(environ: Any, start_response: Any) -> Any:
    """The application, within a test's transaction."""
    with in_a_transaction():
        return application(environ, start_response)


# NUL is refused everywhere, and what can be read in our source is not to decide what is tried. The boundary values of
# each field are for `make test-long`: test_bad_input.py sends every route what is malformed.
CONFIG: dict[str, Any] = {
    "phases": {"coverage": {"enabled": LONG}},
    "generation": {"allow-x00": False},
    "analysis": {"constants": {"enabled": False}},
}
# Tried out in the test: what is collected is collected by every worker.
promises = schemathesis.pytest.from_fixture("schema")


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> schemathesis.BaseSchema:
    """What the OpenAPI says."""
    request.node._nodeid = request.node.nodeid  # Schemathesis notes there which operation it is at; pytest had it so
    schema = schemathesis.openapi.from_dict(deepcopy(SCHEMA), config=SchemathesisConfig.from_dict(CONFIG))
    schema.app = web
    return schema


@promises.exclude(path_regex="^/copilot").parametrize()
@hypothesis.settings(
    max_examples=times(4, 40),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_promises_are_kept(case: Any, key: str, known: dict[str, Any]) -> None:
    keep(case, {"X-Service-API-Key": key}, known)


@promises.include(path_regex="^/copilot").parametrize()
@hypothesis.settings(
    max_examples=times(4, 25),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_the_copilot_s_promises_are_kept(case: Any, signed_in: dict[str, str], known: dict[str, Any]) -> None:
    keep(case, signed_in, known)


def keep(case: Any, headers: dict[str, str], known: dict[str, Any]) -> None:
    with transaction.atomic():
        if case.meta.generation.mode.is_positive:
            put_what_exists(case, known)
        case.call_and_validate(headers=headers, excluded_checks=[ignored_auth])  # every route is tried without a key
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def _no_room(settings: Any) -> None:
    """No process writes replies here: a stream ends after its first event, as where there is no room for it."""
    settings.WEB_STREAMS = 0
    settings.COPILOT_MESSAGES_PER_MINUTE = 0


@pytest.fixture
def signed_in(shop: Client) -> dict[str, str]:
    """A user of the copilot, with what a browser sends."""
    Assistant.objects.filter(client=shop).update(in_copilot=True)
    member = get_user_model().objects.create_user("ann")
    Membership.objects.create(user=member, client=shop, role="viewer")
    cookies = cookies_of(member)
    return {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X-CSRFToken": cookies[settings.CSRF_COOKIE_NAME],
    }


@pytest.fixture
def known(shop: Client, ids: dict[str, Any]) -> dict[str, Any]:
    """What exists."""
    known = {"id": str(ids["pk"]), "step_id": ids["step_id"], "client_id": str(shop.pk), "phone": "+51999999999"}
    return known | {"userId": "+51999999999", "subDomain": "shop"}


def put_what_exists(case: Any, known: dict[str, Any]) -> None:
    """In the place of ids, cursors and phone numbers that have the right form and were never given to anybody."""
    known = {**known, "cursor": CURSORS.get(case.path.rpartition("/")[2], CURSOR)}
    if (case.method, case.path) == ("POST", "/conversations") and isinstance(case.body, dict):
        case.body.update(user_id="bea", variables={"due_date": "Friday", "amount": 120.5})  # who can be written to
        known["assistant"] = "ada"
    for holder in (case.path_parameters, case.query, case.body):
        if isinstance(holder, dict):
            holder.update({name: known[name] for name in known if holder.get(name)})
