"""What a colleague does with an assistant's proposal: send it, as it is or edited, or discard it.

Everything happens in one transaction with the conversation locked. So of two colleagues, two clicks or two tries after
a crash one decides, and the others are told what was decided.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from conversations.models import Attachment, Chunk, Client, Conversation, EndedBy, Proposal, Role, Turn
from conversations.services.core import proposals, redaction
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import CONTACT, Actor, record
from conversations.services.core.locking import editing
from conversations.services.delivery import disclosure, opt_outs, outbox
from conversations.services.replies.reply_files import ReplyFiles
from conversations.services.transitions import closing, takeover

S = Proposal.State
PROPOSAL = "proposal"  # in a chunk's metadata: who sent what the assistant proposed, and whether it was edited
LONGEST = 100_000  # characters


def send(
    conversation_id: Any, proposal_id: int, text: str | None, *, actor: Actor, now: datetime, client: Client
) -> Chunk:
    """Send the proposal and return its chunk: the assistant's words, or the colleague's where they edited them.

    text: what is sent in its place; None for the text as it was proposed

    The same again by the same colleague returns the same chunk. Nobody has the conversation afterwards who had it not
    before, except where it waited for a person: then it is the colleague's.

    Raises NotFoundError, InvalidError (`blank`, `too_long`), or ConflictError: `ended`, `opted_out`, `outdated` where
    the person wrote again, or `decided` where a colleague was first.
    """
    if text is not None and len(text) > LONGEST:
        raise InvalidError(_("The text is too long."), code="too_long")
    with editing(conversation_id, client, if_open=True) as conversation:
        proposal = _of(conversation, proposal_id)
        wanted = proposal.text if text is None else redaction.rules_of(client).clean(text.strip())
        if sent := _sent_by(conversation, proposal, actor):
            return sent
        _check_open(conversation, proposal)
        if "notice" not in proposal.metadata:
            opt_outs.check(conversation)
        files = _files(conversation, proposal)
        if not wanted and not files:
            raise InvalidError(_("Write something first."), code="blank")
        chunk = _say(conversation, proposal, wanted, files, actor, now)
        _decide(proposal, S.SENT, actor, now, chunk_id=chunk.pk, is_edited=wanted != proposal.text)
        note_answered(conversation)
        proposals.note_decided(conversation)
        takeover.note_written(conversation, actor, now)
        record(conversation, "proposal_sent", actor, proposal=proposal.pk, edited=proposal.is_edited, chunk_id=chunk.pk)
        if proposal.ends:
            closing.end(
                conversation, ended_by=EndedBy.USER, actor=CONTACT, now=now, reason=gettext_noop("said goodbye")
            )
    return chunk


def discard(conversation_id: Any, proposal_id: int, *, actor: Actor, now: datetime, client: Client) -> None:
    """Discard the proposal: the person gets no answer to these messages unless a colleague writes one.

    The same again changes nothing. Raises NotFoundError, or ConflictError: `decided` where it was sent, or `ended`.
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        proposal = _of(conversation, proposal_id)
        if proposal.state == S.DISCARDED:
            return
        if proposal.state != S.OPEN:
            _check_open(conversation, proposal)
        _decide(proposal, S.DISCARDED, actor, now)
        proposals.note_decided(conversation)
        record(conversation, "proposal_discarded", actor, proposal=proposal.pk)


def _of(conversation: Conversation, proposal_id: int) -> Proposal:
    """Return the conversation's proposal, its row locked. Raises NotFoundError."""
    found = Proposal.objects.select_for_update(of=("self",)).filter(conversation=conversation, pk=proposal_id)
    if (proposal := found.first()) is None:
        raise NotFoundError(_("This proposal does not exist any more. Load the page again."))
    return proposal


def _sent_by(conversation: Conversation, proposal: Proposal, actor: Actor) -> Chunk | None:
    """Return what the same colleague has sent before; None if they have not."""
    if proposal.state != S.SENT or proposal.decided_by_id != actor.user_id or proposal.chunk_id is None:
        return None
    return Chunk.objects.filter(conversation=conversation, pk=proposal.chunk_id).first()


def _check_open(conversation: Conversation, proposal: Proposal) -> None:
    """Raise ConflictError if the proposal cannot be sent any more."""
    who = proposal.decided_by_name or _("A colleague")
    if proposal.state == S.SENT:
        raise ConflictError(_("%(who)s has sent this already.") % {"who": who}, code="decided")
    if proposal.state == S.DISCARDED:
        raise ConflictError(_("%(who)s has discarded this, or answers in its place.") % {"who": who}, code="decided")
    if proposal.state == S.OUTDATED or not proposals.is_current(conversation, proposal):
        raise ConflictError(
            _("The customer has written again since. The assistant proposes a new reply."), code="outdated"
        )


def _files(conversation: Conversation, proposal: Proposal) -> ReplyFiles:
    ours = Attachment.objects.filter(conversation=conversation, pk__in=proposal.files, chunk__isnull=True)
    rows = {str(row.pk): row for row in ours.select_for_update(of=("self",))}
    links = tuple((str(url), str(name)) for url, name in proposal.links)
    return ReplyFiles(tuple(rows[pk] for pk in proposal.files if pk in rows), links)


def _say(
    conversation: Conversation, proposal: Proposal, text: str, files: ReplyFiles, actor: Actor, now: datetime
) -> Chunk:
    """Append the text as the proposal's chunk and queue it. It is sent although the conversation is closed or taken
    over before that: a person has sent it."""
    is_edited = text != proposal.text
    sentence = disclosure.due(conversation)
    words = disclosure.before(text, sentence) if text else sentence
    told = {PROPOSAL: {"id": proposal.pk, "by": actor.name, "edited": is_edited}}
    metadata = {**proposal.metadata, **told, **disclosure.metadata(sentence)}
    author_id = actor.user_id if is_edited else None
    [chunk] = write_chunks(
        conversation, [(Role.AI, files.shown_with(words))], now, metadata=metadata, author_id=author_id
    )
    disclosure.note(conversation, chunk, sentence)
    rows = files.place(conversation, chunk, now)
    sent = redaction.rules_of(conversation.client).clean(words) if rows else None
    outbox.queue(conversation, chunk, now, by_assistant=True, text=sent, files=rows, unconditional=True)
    if proposal.turn_id:
        Turn.objects.filter(conversation=conversation, pk=proposal.turn_id).update(chunk=chunk)
    return chunk


def _decide(proposal: Proposal, state: S, actor: Actor, now: datetime, **more: Any) -> None:
    decided = {"state": state, "decided_at": now, "decided_by_id": actor.user_id, "decided_by_name": actor.name[:150]}
    for name, value in {**decided, **more}.items():
        setattr(proposal, name, value)
    Proposal.objects.filter(client=proposal.client_id, pk=proposal.pk).update(**decided, **more)
