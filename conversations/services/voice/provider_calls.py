"""What a provider of phone calls asks: whose call it is, whether it is signed, and an answer whatever goes wrong.

Anything but an instruction makes the provider drop the call; so our faults, a database that is away, a number that is
nobody's and a request that makes no sense are told to the caller in words. Only who cannot sign is refused.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from channels_out.calls import CallRequest, Instruction, VoiceAdapter
from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from conversations.services.inbound import provider_events, unprocessed
from conversations.services.voice import calls

log = logging.getLogger(__name__)


def receive(request: InboundRequest, adapter: VoiceAdapter) -> Instruction:
    """What the provider is to do next. Raises InboundError (`invalid_signature`), and nothing else."""
    call = _call(request, adapter)
    account = None
    try:
        account = provider_events.signer(adapter, request)
        if call and account:
            return calls.answer(account, call, timezone.now())
        reason = unprocessed.UNKNOWN_ACCOUNT if call else unprocessed.MALFORMED
        unprocessed.keep_request(adapter, account, request, reason)
        return calls.trouble(None)
    except InboundError:
        raise
    except (OperationalError, InterfaceError):
        connection.close()
        log.warning("call not answered, the database is away")
    except Exception:
        log.exception("call not answered")
        with suppress(Exception):
            unprocessed.keep_request(adapter, account, request, unprocessed.PROCESSING_FAILED)
    return calls.trouble(call)


def _call(request: InboundRequest, adapter: VoiceAdapter) -> CallRequest | None:
    try:
        return adapter.call(request)
    except InboundError:
        return None
