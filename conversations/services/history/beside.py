"""Phrases beside a message: what it quotes or is about, and what the person did with it or after it.

The same phrases are for people on the transcript page and, as notes, for models (memory/notes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext

from channels_out.choices import choices_from_json
from channels_out.kinds import ActivityKind
from conversations.models import Activity, Chunk, Conversation, Message, Role, corrected_text
from conversations.services.core.dedupe import dedupe_key
from conversations.words import shown
from memory.notes import excerpt

CHOICES = "choices"  # in a chunk's metadata: see delivery/outbox.py
REPLY_TO = "reply_to"  # in a chunk's metadata: the provider's id of the message that it quotes
WRITTEN_AT = "written_at"  # in a chunk's metadata: see inbound/placeholders.py
OUR, YOUR = "our", "your"  # for staff, for the assistant
K = ActivityKind
MOST_FACTS = 12


@dataclass(frozen=True, slots=True)
class Quoted:
    """A message that another one quotes. `ours`: we wrote it."""

    ours: bool
    text: str


@dataclass(frozen=True, slots=True)
class Beside:
    """The phrases beside one message: about the message itself, and about what the person did after it."""

    about: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


NOTHING = Beside()


def quoted_by(conversation: Conversation, metadata: Iterable[Mapping[str, Any]]) -> dict[str, Quoted]:
    """Return the messages that chunks with this metadata quote, by the provider's ids, as they read now.

    Only messages of the same contact over the conversation's account are found. No query is made where none quotes.
    """
    account = conversation.channel_account_id
    ids = {each[REPLY_TO] for each in metadata if isinstance(each.get(REPLY_TO), str)}
    if not ids or account is None:
        return {}
    sent = Message.objects.filter(
        client=conversation.client_id,
        channel_account=account,
        provider_message_id__in=ids,
        conversation__contact=conversation.contact_id,
    )
    found = {pk: Quoted(True, text) for pk, text in sent.values_list("provider_message_id", "text")}
    keys: dict[UUID | None, str] = {dedupe_key(str(account), each): each for each in ids - found.keys()}
    theirs = Chunk.objects.filter(client=conversation.client_id, conversation__contact=conversation.contact_id)
    written = theirs.filter(dedupe_key__in=keys)
    for key, role, words in written.annotate(words=corrected_text(conversation.client_id)).values_list(
        "dedupe_key", "role", "words"
    ):
        found[keys[key]] = Quoted(role == "ai", words)
    return found


def beside_chunks(conversation: Conversation, chunks: Sequence[Chunk]) -> dict[int, Beside]:
    """Return what stands beside each of the conversation's chunks, by its id, in two queries and for staff to read."""
    done: dict[int, list[tuple[str, str, Mapping[str, Any]]]] = {}
    known = Activity.objects.filter(client=conversation.client_id, chunk__in=[chunk.pk for chunk in chunks]).order_by(
        "id"
    )
    for chunk_id, *what in known.values_list("chunk_id", "kind", "text", "metadata"):
        done.setdefault(chunk_id, []).append(tuple(what))
    quoted = quoted_by(conversation, [chunk.metadata for chunk in chunks])
    return {
        chunk.pk: beside(
            *(chunk.metadata, done.get(chunk.pk, ()), quoted),
            ours=chunk.role == Role.AI,
            original=chunk.content,
            our=OUR,
        )
        for chunk in chunks
    }


def beside(
    metadata: Mapping[str, Any],
    activities: Sequence[tuple[str, str, Mapping[str, Any]]],
    quoted: Mapping[str, Quoted],
    *,
    ours: bool,
    original: str,
    our: str,
) -> Beside:
    """Return what stands beside a message.

    activities: kind, text and metadata of what the person did, oldest first
    ours: we wrote the message
    original: the message's text as it arrived
    our: a word for whoever reads: YOUR to the assistant, OUR to staff
    """
    about = [_lateness(metadata), _quote(quoted.get(str(metadata.get(REPLY_TO))), our), *_subjects(metadata)]
    about += _chosen(metadata)
    edits = [text for kind, text, _ in activities if kind == K.EDIT]
    is_deleted = any(kind == K.DELETION for kind, *_ in activities)
    if edits and not is_deleted:
        about.append(
            gettext("the person edited this message, which read before: “%(text)s”") % {"text": excerpt(original)}
        )
    which = _whose(our, ours=ours)
    which += "" if is_deleted else f" “{excerpt([original, *edits][-1])}”"
    after = _offered(metadata, which) if ours and our == YOUR else []  # staff see them at the message
    after += [
        gettext("the person reacted with %(emoji)s to %(which)s") % {"emoji": text, "which": which}
        for kind, text, _ in activities
        if kind == K.REACTION and text
    ]
    after += [
        gettext("the person %(did)s") % {"did": shown(text)}
        for kind, text, _ in activities
        if kind in (K.MISSED_CALL, K.CALL_PERMISSION)
    ]
    after += [
        gettext("the person %(did)s: %(facts)s") % {"did": shown(text), "facts": _facts(each)}
        for kind, text, each in activities
        if kind == K.REFERRAL
    ]
    return Beside(tuple(filter(None, about)), tuple(after))


def written_at(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when a message that arrived late was written, by the provider's clock; None for others."""
    return _time(metadata.get("sent_at"))


def ordered_at(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when a message that did not arrive at once was written; None for others."""
    return _time(metadata.get(WRITTEN_AT)) or written_at(metadata)


def _time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _lateness(metadata: Mapping[str, Any]) -> str:
    at = written_at(metadata)
    if at is None:
        return ""
    when = at.astimezone(UTC)
    return gettext("this was written on %(day)s at %(time)s UTC, and arrived late") % {
        "day": f"{when:%Y-%m-%d}",
        "time": f"{when:%H:%M}",
    }


def _whose(our: str, *, ours: bool) -> str:
    if not ours:
        return gettext("their own message")
    return gettext("our message") if our == OUR else f"{our} message"


def _quote(quoted: Quoted | None, our: str) -> str:
    if quoted is None:
        return ""
    which = _whose(our, ours=quoted.ours)
    return gettext("this quotes %(which)s “%(text)s”") % {"which": which, "text": excerpt(quoted.text)}


def _chosen(metadata: Mapping[str, Any]) -> list[str]:
    number, title = metadata.get("choice"), metadata.get("title")
    if not (isinstance(number, int) and isinstance(title, str)):
        return []
    return [gettext("this chooses “%(title)s”") % {"title": excerpt(title)}]


def _offered(metadata: Mapping[str, Any], which: str) -> list[str]:
    choices = choices_from_json(metadata.get(CHOICES))
    titles = ", ".join(f"“{excerpt(each.title)}”" for each in choices.options) if choices else ""
    return [f"{which} offered the choices {titles}"] if titles else []


def _subjects(metadata: Mapping[str, Any]) -> list[str]:
    """Return what the message is about besides its words: an advertisement, a link, products."""
    found = []
    if facts := _facts(metadata.get("referral")):
        found.append(gettext("the person came by an advertisement or a link: %(facts)s") % {"facts": facts})
    if facts := _facts(metadata.get("referred_product")):
        found.append(gettext("this is about a product of the catalogue: %(facts)s") % {"facts": facts})
    for attachment in _dicts(metadata.get("attachments")):
        found += [
            gettext("this is about a product: %(facts)s") % {"facts": facts}
            for each in _dicts(attachment.get("products"))
            if (facts := _facts(each))
        ]
    return found


def _facts(value: Any) -> str:
    """Return an object's texts and numbers as "name: value; …"."""
    if not isinstance(value, dict):
        return ""
    flat = ((name, each) for name, each in _flat(value) if each not in ("", None))
    return "; ".join(f"{name.replace('_', ' ')}: {excerpt(str(each))}" for name, each in list(flat)[:MOST_FACTS])


def _flat(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict):
            yield from ((f"{name} {inner}", deep) for inner, deep in each.items() if not isinstance(deep, dict | list))
        elif not isinstance(each, list):
            yield name, each


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
