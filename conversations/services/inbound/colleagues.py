"""Messages that colleagues write elsewhere: in the WhatsApp Business app, the Page inbox, or another program.

Each becomes an `ai` chunk by a colleague, as if it had been written in Convo. The reply that was owed is owed no more,
and the assistant is silent for the account's `silence`, so that it does not contradict them.
"""

from __future__ import annotations

from datetime import datetime

from channels_out.events import ColleagueMessage
from conversations.models import COLLEAGUE, ChannelAccount, Chunk, Conversation, Role
from conversations.services.core import tool_requests
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import editing_if_there
from conversations.services.delivery import outbox
from conversations.services.inbound.activities import open_conversation_with
from conversations.services.media import arriving
from conversations.services.transitions import takeover


def store(account: ChannelAccount, said: ColleagueMessage, now: datetime) -> bool:
    """Append what a colleague wrote to the open conversation with the person, and return whether there is one.

    What is stored already changes nothing. A colleague who has the conversation in Convo keeps it.
    """
    found = open_conversation_with(account, said.to)
    if found is None:
        return False
    key = dedupe_key(account.key, said.message_id)
    with editing_if_there(found.pk, found.client_id) as conversation:
        if conversation is None or not conversation.is_open:
            return False
        if Chunk.objects.filter(client=account.client_id, dedupe_key=key).exists():
            return True
        metadata = {**said.metadata, COLLEAGUE: said.program}
        about = {"message_id": said.message_id, "dedupe_key": key, "metadata": metadata}
        [chunk] = write_chunks(conversation, [(Role.AI, said.text)], now, **about)
        if said.media:
            arriving.write(account.client, account.pk, [(chunk.pk, said.media)], now)
        note_answered(conversation)
        tool_requests.expire_approved(conversation, now)
        _silence(conversation, account, said.program, now)
        record(conversation, "sent", Actor(Kind.STAFF, said.program), chunk_id=chunk.pk)
    return True


def _silence(conversation: Conversation, account: ChannelAccount, program: str, now: datetime) -> None:
    """Silence the assistant for the account's time, from now on."""
    holder = f"a colleague ({program})"
    if not account.silence:
        outbox.silence(conversation)
        return
    if conversation.taken_over_name not in ("", holder):
        takeover.stay(conversation, now)
        return
    if conversation.taken_over_name != holder:
        takeover.take(conversation, Actor(Kind.STAFF, program), now, holder=holder)
    conversation.taken_over_until = now + account.silence
