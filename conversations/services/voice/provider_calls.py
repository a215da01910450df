"""Requests of a provider of phone calls: find the account, check the signature, and answer whatever goes wrong.

Anything but an instruction makes the provider drop the call. So the caller is told in words of an error of ours, a
database that is away, an unknown number and a request that makes no sense. Only a wrong signature is refused.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from channels_out.calls import CallRequest, Instruction, VoiceAdapter
from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from conversations.services.inbound import signatures, unprocessed
from conversations.services.voice import calls

log = logging.getLogger(__name__)


def receive(request: InboundRequest, adapter: VoiceAdapter) -> Instruction:
    """Return the instruction for the provider. Raises only InboundError (`invalid_signature`)."""
    call = _call(request, adapter)
    account = None
    try:
        account = signatures.signer(adapter, request)
        if call and account:
            return calls.answer(account, call, timezone.now())
        reason = unprocessed.UNKNOWN_ACCOUNT if call else unprocessed.MALFORMED
        unprocessed.store_request(adapter, account, request, reason)
        return calls.error_instruction(None)
    except InboundError:
        raise
    except (OperationalError, InterfaceError):
        connection.close()
        log.warning("call not answered, the database is away")
    except Exception:
        log.exception("call not answered")
        with suppress(Exception):
            unprocessed.store_request(adapter, account, request, unprocessed.PROCESSING_FAILED)
    return calls.error_instruction(call)


def _call(request: InboundRequest, adapter: VoiceAdapter) -> CallRequest | None:
    try:
        return adapter.call(request)
    except InboundError:
        return None
