"""Which of a person's conversations on a channel belongs to a number that they wrote to.

A person who writes to two accounts of a client has one conversation where one assistant answers on both. Each number
has its own, in a thread named by the account, where the client wants it so (`numbers_apart`), where each has an
assistant of its own, or where the first still owes a reply: so each is answered by its own assistant, on itself.
"""

from __future__ import annotations

from uuid import UUID

from django.db.models import Case, Q, Value, When

from channels_out.kinds import Channel
from conversations.models import Assistant, ChannelAccount, Conversation
from conversations.models.conversation import ConversationQuerySet

SANDBOX = "sandbox"  # the provider of accounts that deliver into the database alone
OTHER_THREADS = (Channel.VOICE, Channel.WEB)  # each call and each session of the copilot is a thread of its own


def thread_of(account: ChannelAccount) -> str:
    """Return the thread in which a conversation over the account is looked for first."""
    apart = account.client.numbers_apart and account.channel not in OTHER_THREADS
    return own_thread(account) if apart else ""


def own_thread(account: ChannelAccount) -> str:
    """Return the thread of the account alone."""
    return account.key


def open_over(account: ChannelAccount) -> ConversationQuerySet:
    """Return the open conversations that may be the account's: in its own thread first, else in none, its own first."""
    theirs = Conversation.objects.of(account.client_id).open().filter(channel=account.channel)
    is_over_it = Case(When(channel_account=account.pk, then=Value(0)), default=Value(1))
    return theirs.filter(Q(thread="") | Q(thread=own_thread(account))).order_by("-thread", is_over_it)


def takes(conversation: Conversation, account: ChannelAccount) -> bool:
    """Return whether a message to the account belongs to the locked open conversation, which `open_over` found."""
    if conversation.channel_account_id in (None, account.pk) or conversation.thread:
        return True
    current = ChannelAccount.objects.filter(client=account.client_id, pk=conversation.channel_account_id).first()
    if current is None or not current.is_active or current.provider == SANDBOX:
        return True  # nobody could be answered over it
    if account.client.numbers_apart or (conversation.reply_owed and conversation.taken_over_at is None):
        return False
    return _assistant_of(current) == _assistant_of(account)


def _assistant_of(account: ChannelAccount) -> UUID | None:
    """Return the id of the assistant that answers on the account: its own, else the client's default."""
    if account.assistant_id:
        return account.assistant_id
    defaults = Assistant.objects.filter(client=account.client_id, is_default=True)
    return defaults.values_list("pk", flat=True).first()
