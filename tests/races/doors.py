"""The ways a message comes in, each safe to use from many threads."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.utils import timezone

from channels_out.kinds import AddressKind
from conversations.models import ChannelAccount, Client
from conversations.services.core.person import Person
from conversations.services.inbound import messages
from tests.web_door import behind_the_loop

Says = Callable[..., dict[str, Any]]


def _posting(application: Any, shop: Client, key: str) -> Says:
    def says(message: str, *, channel: str = "sms", user_id: str = "ann", **more: Any) -> dict[str, Any]:
        said = {"client_id": str(shop.pk), "user_id": user_id, "message": message, **more}
        body = json.dumps(said).encode()
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": f"/webhooks/{channel}/inbound",
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_X_SERVICE_API_KEY": key,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        status: list[str] = []
        answer = application(environ, lambda line, headers, info=None: status.append(line))
        content = b"".join(answer)
        if hasattr(answer, "close"):
            answer.close()
        assert status == ["200 OK"], content
        data: dict[str, Any] = json.loads(content)["data"]
        return data

    return says


def front_door(shop: Client, key: str) -> Says:
    """Our own JSON, as the web server calls it: in front of Django where that is possible."""
    return _posting(behind_the_loop(WSGIHandler()), shop, key)


def django_view(shop: Client, key: str) -> Says:
    """Our own JSON, always through Django and its view."""
    return _posting(WSGIHandler(), shop, key)


def provider(account: ChannelAccount) -> Says:
    """A provider's message, as it is settled once its signature was verified."""

    def says(message: str, *, user_id: str = "51999999999", message_id: str = "", **who: Any) -> dict[str, Any]:
        settled = messages.settle(
            account.client,
            messages.InboundText(
                channel=account.channel,
                person=Person(address=user_id, kind=AddressKind.PHONE, **who),
                text=message,
                message_id=message_id,
                at=timezone.now(),
                scope=str(account.pk),
                account=account,
            ),
        )
        return {name: getattr(settled, name) for name in settled.__slots__}

    return says
