"""The providers' own lists of models: read over the network, then stored, so that staff see what is new and what ends.

sources()          which providers are to be asked: plain values, no connection is held while they are
  → read_list()    GET /v1/models of one of them, within bounds
  → store_list()   the rows of its models, and what has changed
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from http.client import HTTPException
from typing import Any

import requests
from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext, gettext_noop
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, ReadTimeoutError

from conversations.models import ModelProvider, ProviderModel
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.sql import release_connection
from conversations.services.tenants import model_providers
from conversations.words import shown
from memory.language_models import choosing
from memory.language_models.contract import Kind, ModelAccess
from memory.language_models.transport import address_and_query
from memory.text import storable

log = logging.getLogger(__name__)

ANTHROPIC_VERSION = "2023-06-01"
CONNECT_SECONDS, SECONDS = 5.0, 20.0  # to connect; for the whole list
MOST_BYTES = 4 * 1024 * 1024
MOST_MODELS = 2_000
MOST_PAGES = 20
AT_A_TIME = 8
KEPT_UNLISTED = timedelta(days=30)
TOO_SLOW = f"it gave no list of models within {SECONDS:g} s"


class ModelListError(Exception):
    """A provider's list of models could not be read. The message contains nothing of the key or the answer."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A provider's list of models, compared with the time before. error: why it could not be read.

    gone: listed the time before and not now. ending: the models that have a shutdown date, and the date.
    """

    provider: str
    count: int = 0
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    ending: tuple[tuple[str, date], ...] = ()
    error: str = ""


def refresh_all(now: datetime, name: str = "", *, dry_run: bool = False) -> list[Listing]:
    """Read the list of each active provider and store it. A provider that fails does not stop the others.

    Do not call it within a transaction: it waits for the providers.

    name: only the providers of this name. dry_run: store nothing.

    Raises NotFoundError if there is no such provider.
    """
    asked = sources(name)
    if name and not asked:
        raise NotFoundError(gettext("There is no active model provider %(name)s.") % {"name": repr(name)})
    release_connection()
    with ThreadPoolExecutor(max_workers=AT_A_TIME, thread_name_prefix="model-list") as pool:
        answers = list(pool.map(_try_to_read, asked))
    return [
        Listing(access.name, error=answer) if isinstance(answer, str) else _stored(access, answer, now, dry_run)
        for access, answer in zip(asked, answers, strict=True)
    ]


def refresh(provider: ModelProvider, now: datetime) -> Listing:
    """Read the provider's list and store it. Raises ConflictError `no_list` with the reason if it cannot be read.

    Do not call it within a transaction: it waits for the provider.
    """
    access = model_providers.access_of(provider, "")
    if access is None:
        raise ConflictError(
            gettext("%(provider)s is switched off or not configured.") % {"provider": provider.name}, code="no_list"
        )
    release_connection()
    answer = _try_to_read(access)
    if isinstance(answer, str):
        raise ConflictError(
            gettext("The list of %(provider)s could not be read: %(answer)s.")
            % {"provider": provider.name, "answer": shown(answer)},
            code="no_list",
        )
    return _stored(access, answer, now, dry_run=False)


def sources(name: str = "") -> list[ModelAccess]:
    """Return the access to each provider that can be asked, under a name that also says whose it is.

    name: only the providers of this name
    """
    if choosing.is_configured():
        model_providers.environment_provider()  # makes its row, if nothing has needed it yet
    providers = ModelProvider.objects.filter(is_active=True).select_related("client").order_by("name", "pk")
    found = []
    for provider in providers.filter(name=name) if name else providers:
        if access := model_providers.access_of(provider, ""):
            whose = f"{provider.name} ({provider.client.sub_domain})" if provider.client else provider.name
            found.append(replace(access, name=whose))
    return found


# --- reading ----------------------------------------------------------------------------------------------------------
def _try_to_read(access: ModelAccess) -> dict[str, date | None] | str:
    """Return the list, or why it could not be read."""
    try:
        return read_list(access)
    except ModelListError as error:
        log.warning("list of models not read: provider=%s reason=%s", access.provider_id, error)
        return str(error)


def read_list(access: ModelAccess) -> dict[str, date | None]:
    """Return the models that the provider lists, each with its shutdown date if there is one. Raises ModelListError.

    It touches no database: it runs in threads.
    """
    until = time.monotonic() + SECONDS
    found: dict[str, date | None] = {}
    with requests.Session() as session:
        session.auth = _NoOtherKey()
        for page in _pages(session, access, until):
            for entry in page:
                name = entry.get("id") if isinstance(entry, dict) else None
                if isinstance(name, str) and 0 < len(name) <= 100 and storable(name) == name and name.isprintable():
                    found[name] = _date(entry.get("shutdown_date"))
                if len(found) >= MOST_MODELS:
                    return found
    return found


def _pages(session: requests.Session, access: ModelAccess, until: float) -> Iterator[list[Any]]:
    """Yield the pages of the list: one, or several from Anthropic."""
    address, query = address_and_query(access)
    if access.kind is not Kind.ANTHROPIC:
        bearer = {"Authorization": f"Bearer {access.key}"} if access.key else {}
        yield _entries(_get(session, f"{address}/models", query, {**bearer, **access.headers}, until))
        return
    headers = {"x-api-key": access.key, "anthropic-version": ANTHROPIC_VERSION, **access.headers}
    page = {"limit": "1000"}
    for _ in range(MOST_PAGES):
        answer = _get(session, f"{address}/v1/models", {**query, **page}, headers, until)
        yield _entries(answer)
        last = answer.get("last_id")
        if answer.get("has_more") is not True or not isinstance(last, str) or last == page.get("after_id"):
            return
        page = {"limit": "1000", "after_id": last}


def _entries(answer: Mapping[str, Any]) -> list[Any]:
    data = answer.get("data") or []  # a server without models may say null
    if not isinstance(data, list):
        raise ModelListError(gettext_noop("its answer is no list of models"))
    return data


def _get(
    session: requests.Session, address: str, query: Mapping[str, str], headers: Mapping[str, str], until: float
) -> dict[str, Any]:
    """Return the JSON object at the address. Redirects are not followed: the key is for this server alone."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise ModelListError(TOO_SLOW)
    try:
        with session.get(
            address,
            params=dict(query),
            headers={"Accept": "application/json", **headers},
            timeout=(min(CONNECT_SECONDS, seconds), seconds),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != 200:
                raise ModelListError(_refusal(response.status_code))
            answer = json.loads(_body(response, until))
    except (requests.Timeout, ReadTimeoutError):
        raise ModelListError(TOO_SLOW) from None
    except (requests.RequestException, HTTPError, HTTPException, OSError):
        raise ModelListError(gettext_noop("no connection, or it broke off")) from None
    except (ValueError, RecursionError):
        raise ModelListError(gettext_noop("its answer is no list of models")) from None
    if not isinstance(answer, dict):
        raise ModelListError(gettext_noop("its answer is no list of models"))
    return answer


def _refusal(status: int) -> str:
    reasons = {
        401: gettext_noop("it refuses the key"),
        403: gettext_noop("the key may not read the list"),
        404: gettext_noop("it has no list of models"),
    }
    reason = reasons.get(
        status, gettext_noop("it wants another address") if 300 <= status < 400 else gettext_noop("it failed")
    )
    return f"{reason} (status {status})"


def _body(response: requests.Response, until: float) -> bytes:
    """Return the body of the answer, within bounds of size and time, however slowly it comes."""
    body = bytearray()
    while piece := response.raw.read1(64 * 1024, decode_content=True):
        body += piece
        if len(body) > MOST_BYTES:
            raise ModelListError(gettext_noop("its list of models is too long"))
        if time.monotonic() > until:
            raise ModelListError(TOO_SLOW)
    return bytes(body)


def _date(given: Any) -> date | None:
    try:
        return date.fromisoformat(given[:10]) if isinstance(given, str) else None
    except ValueError:
        return None


class _NoOtherKey(AuthBase):
    """Leaves the request as it is, so that no `.netrc` of this machine puts another key into it."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return the request."""
        return request


# --- storing ----------------------------------------------------------------------------------------------------------
def _stored(access: ModelAccess, listed: Mapping[str, date | None], now: datetime, dry_run: bool) -> Listing:
    try:
        return store_list(access, listed, now, dry_run=dry_run)
    except NotFoundError as error:
        return Listing(access.name, error=str(error))


def store_list(
    access: ModelAccess, listed: Mapping[str, date | None], now: datetime, *, dry_run: bool = False
) -> Listing:
    """Store the list that the provider gave now, and return what has changed. dry_run: only return it.

    What was learned of a model stays, whether it is listed or not. Raises NotFoundError if the provider is deleted.
    """
    with transaction.atomic():
        # Two refreshes of one provider store one after the other.
        rows = ModelProvider.objects.select_for_update(no_key=True)
        provider = rows.filter(pk=access.provider_id).first() if access.provider_id else None
        if provider is None:
            raise NotFoundError(gettext("it was deleted meanwhile"))
        report = _compare(provider, access.name, listed)
        if not dry_run:
            _write(provider, listed, now)
    return report


def _compare(provider: ModelProvider, name: str, listed: Mapping[str, date | None]) -> Listing:
    known = provider.models.filter(last_listed_at__isnull=False)
    last = known.aggregate(last=Max("last_listed_at"))["last"]
    before = set(known.values_list("model", flat=True))
    lately = set(known.filter(last_listed_at=last).values_list("model", flat=True))
    return Listing(
        provider=name,
        count=len(listed),
        new=tuple(sorted(listed.keys() - before)),
        gone=tuple(sorted(lately - listed.keys())),
        ending=tuple(sorted((name, day) for name, day in listed.items() if day)),
    )


def _write(provider: ModelProvider, listed: Mapping[str, date | None], now: datetime) -> None:
    names: Sequence[str] = sorted(listed)
    ProviderModel.objects.bulk_create(
        [
            ProviderModel(
                client_id=provider.client_id,
                provider=provider,
                model=name,
                shutdown_date=listed[name],
                first_listed_at=now,
                last_listed_at=now,
            )
            for name in names
        ],
        update_conflicts=True,
        unique_fields=["provider", "model"],
        update_fields=["shutdown_date", "last_listed_at"],
    )
    of_provider = provider.models.all()
    of_provider.filter(model__in=names, first_listed_at=None).update(first_listed_at=now)
    of_provider.filter(last_listed_at__lt=now - KEPT_UNLISTED, learned={}).delete()
