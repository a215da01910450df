"""Webhooks: our own JSON with an API key, or a provider's payload with its signature, on every channel."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from channels_out import registry, retell
from channels_out.calls import VoiceAdapter
from channels_out.contract import InboundRequest, WebhookResponse
from channels_out.errors import InboundError
from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.http import envelope, own_webhook
from conversations.http.auth import NO_KEY, service_key
from conversations.services.core.errors import DomainError, NotSignedError
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.inbound import provider_events
from conversations.services.replies import chat_endings
from conversations.services.voice import provider_calls

NO_HANDSHAKE = "No account on this channel has this verify token. `manage.py create_channel_account` sets it."
REFUSAL = "convo.refusal"  # in the WSGI environment: the DomainError or InboundError that the fast path met


@csrf_exempt
def inbound_webhook(request: HttpRequest, channel: str) -> HttpResponse:
    """Answer `POST /webhooks/{channel}/inbound`, and GET for handshakes and for payloads of providers that use GET."""
    return _guarded(request, channel, _inbound)


@csrf_exempt
def status_webhook(request: HttpRequest, channel: str) -> HttpResponse:
    """Answer `/webhooks/{channel}/status`, where some providers post signed receipts."""
    return _guarded(request, channel, lambda request, channel: _provider_payload(_as_arrived(request), channel))


def _guarded(request: HttpRequest, channel: str, take: Callable[[HttpRequest, str], HttpResponse]) -> HttpResponse:
    if channel not in WEBHOOK_CHANNELS:
        names = sorted(WEBHOOK_CHANNELS)
        error = f"There is no such channel here; there are {', '.join(names)}."
        return envelope.failure(404, "unknown_channel", error, {"channels": names})
    if request.method not in ("GET", "POST"):
        return envelope.wrong_method(request.method, "GET", "POST")
    try:
        if refusal := request.META.get(REFUSAL):
            raise refusal
        return take(request, channel)
    except DomainError as error:
        return envelope.refusal(error)
    except InboundError as error:
        return _refused_by_adapter(error)
    except (OperationalError, InterfaceError):
        return envelope.database_away()


def _refused_by_adapter(error: InboundError) -> HttpResponse:
    return envelope.failure(403 if error.code == "invalid_signature" else 400, error.code, str(error))


def _inbound(request: HttpRequest, channel: str) -> HttpResponse:
    key = service_key(request)
    if key and request.method == "POST":
        return _own_json(request, channel, key)
    arrived = _as_arrived(request)
    if request.method == "GET" and registry.recognise(channel, arrived) is None:
        return _handshake(arrived, channel)
    return _provider_payload(arrived, channel)


def _own_json(request: HttpRequest, channel: str, key: str) -> HttpResponse:
    if not envelope.is_json(request.content_type):
        own_webhook.client_of(key)
        return envelope.not_json()
    return envelope.success(finish(own_webhook.receive(THIS_THREAD, request.body, channel, key)))


def _handshake(arrived: InboundRequest, channel: str) -> HttpResponse:
    answer = provider_events.handshake(arrived, channel)
    if answer.status != 200:
        return envelope.failure(answer.status, "handshake_refused", NO_HANDSHAKE)
    return _read_by_provider(answer)


def _provider_payload(arrived: InboundRequest, channel: str) -> HttpResponse:
    adapter = registry.recognise(channel, arrived)
    if adapter is None:
        raise NotSignedError(_not_signed(channel), code="not_authenticated")
    if isinstance(adapter, VoiceAdapter):
        return _read_by_provider(adapter.instruct(provider_calls.receive(arrived, adapter), settings.PUBLIC_BASE_URL))
    outcome = finish(provider_events.receive(THIS_THREAD, arrived, adapter))
    return _read_by_provider(adapter.acknowledgement) if adapter.acknowledgement else envelope.success(outcome)


def _not_signed(channel: str) -> str:
    """Return the error sentence for an unsigned provider payload. It names the missing header."""
    names = [
        adapter.signature_headers[0].title() for adapter in registry.adapters_of(channel) if adapter.signature_headers
    ]
    return f"{NO_KEY} Or the payload's provider signs it, in the header {' or '.join(names)}."


def _read_by_provider(answer: WebhookResponse) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)


def _as_arrived(request: HttpRequest) -> InboundRequest:
    return InboundRequest(
        method=request.method or "",
        url=settings.PUBLIC_BASE_URL + request.get_full_path(),
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.GET.dict(),
        body=request.body,
    )


@csrf_exempt
def retell_webhook(request: HttpRequest) -> HttpResponse:
    """Answer `POST /webhooks/retell`: Retell's events about its chats, signed with our API key."""
    if request.method != "POST":
        return envelope.wrong_method(request.method, "POST")
    if not envelope.is_json(request.content_type):
        return envelope.not_json()
    try:
        now = timezone.now()
        signature = request.headers.get(retell.SIGNATURE, "")
        retell.verify(request.body, signature, settings.RETELL_API_KEYS, now.timestamp())
        return envelope.success({"known": chat_endings.apply_chat_event(retell.parse(request.body), now)})
    except InboundError as error:
        return _refused_by_adapter(error)
    except DomainError as error:
        return envelope.refusal(error)
    except (OperationalError, InterfaceError):
        return envelope.database_away()
