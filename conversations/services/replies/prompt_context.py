"""The prompt of a conversation: made of its own rows, never of global memory, within the assistant's token budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.utils import timezone

from conversations.models import COLLEAGUE, Assistant, Conversation, Message, Role, Step
from conversations.services.contacts.details import language_name
from conversations.services.core import redaction
from conversations.services.core.sql import rows
from conversations.services.history.beside import CHOICES, YOUR, Quoted, beside, ordered_at, quoted_by
from conversations.services.replies import summaries
from conversations.services.tenants.day_quotas import zone_of
from memory import languages, marks
from memory.context import ConversationView, Prompt, PromptEntry, build_prompt
from memory.notes import excerpt
from memory.prompt import PromptPart

HISTORY_LENGTH = 10
# Keys in the metadata of a copilot's chunk: why the reply is not whole (the turn's code), and that it was tried again.
ENDED = "ended"
SUPERSEDED = "superseded"
MOST_UNANSWERED = 100  # messages; the budget holds as well
CONTEXT_BUDGET = 8_000
OPENING_CHUNKS = 2  # system and memory: the prompt has them anyway
LANGUAGE_SAMPLE = 400  # characters of each message
S = Message.Status
TEMPLATE = "template "

# A chunk's text as it should be read: the newest correction, or else the original text.
_WORDS = """COALESCE((
        SELECT x.text FROM chunk_corrections x
        WHERE x.client_id = $4 AND x.chunk_id = k.id AND x.kind = 'correction'
        ORDER BY x.id DESC LIMIT 1), k.content)"""
_OPENING = f"""
    SELECT k.role, {_WORDS}, false, k.position, '', NULL::text[], NULL::json, NULL::json, '', k.created_at
    FROM conversation_chunks k
    WHERE k.client_id = $4 AND k.conversation_id = $1 AND k.position <= {OPENING_CHUNKS}
      AND k.role IN ('system', 'memory')"""
# With the statuses of our messages: of each part in turn, or the name of the template that was sent in its place.
_NEWEST = f"""
    SELECT k.role, {_WORDS}, k.author_id IS NOT NULL OR k.role = 'ai' AND k.metadata ? '{COLLEAGUE}', k.position,
      concat_ws(' ', u.first_name, u.last_name),
      CASE WHEN k.role = 'ai' THEN (
        SELECT array_agg(CASE WHEN m.template <> '' AND m.status IN ('sent', 'delivered', 'read')
                                  AND NOT k.metadata ? 'template'
                              THEN concat_ws(E'\\n', '{TEMPLATE}' || split_part(m.template, ' ', 1),
                                             m.content->'template'->>'text')
                              ELSE m.status END ORDER BY m.part)
        FROM conversation_messages m WHERE m.client_id = $4 AND m.chunk_id = k.id) END,
      CASE WHEN k.metadata <> '{{}}' AND (k.role <> 'ai' OR k.metadata ? '{CHOICES}') THEN k.metadata::json END,
      (SELECT json_agg(json_build_array(a.kind, a.text, a.metadata) ORDER BY a.id)
        FROM conversation_activities a WHERE a.client_id = $4 AND a.chunk_id = k.id), k.content, k.created_at
    FROM conversation_chunks k LEFT JOIN auth_user u ON u.id = k.author_id
    WHERE k.client_id = $4 AND k.conversation_id = $1 AND k.position > $2 AND k.role IN ('user', 'ai', 'voice')
      AND NOT k.metadata ? '{SUPERSEDED}'
    ORDER BY k.position DESC LIMIT $3"""
_SHOWN = f"({_NEWEST}) UNION ALL ({_OPENING})"


_PART = tuple(each.name for each in fields(PromptPart))
_values_of = attrgetter(*_PART)


def prompt_for(conversation: Conversation, view: ConversationView) -> Prompt:
    """Return the prompt of the view, and request a summary of messages that have no room in it."""
    prompt = build_prompt(view)
    if fell_out := _fell_out(conversation, conversation.assistant, view, prompt):
        summaries.request_summary(conversation, fell_out)
    return prompt


def prompt_record(conversation: Conversation, assistant: Assistant | None, prompt: Prompt) -> dict[str, Any]:
    """Return the prompt as its turn keeps it; `prompt_records.py` says in which form."""
    rolling = conversation.rolling
    return {
        "messages": list(prompt.messages),
        "parts": [dict(zip(_PART, _values_of(part), strict=True)) for part in prompt.parts],
        "summary": {"version": rolling.version if rolling else 0, "upto": rolling.upto if rolling else 0},
        "request": {
            "model": assistant.model if assistant else "",
            "temperature": assistant.temperature if assistant else None,
            "max_tokens": assistant.max_tokens if assistant else None,
            "tools": assistant is not None and assistant.uses_tools,
            "budget": assistant.context_budget if assistant else None,
        },
    }


def view_of(
    conversation: Conversation,
    steps: Sequence[Step],
    *,
    now: datetime | None = None,
    ratio: float = 1.0,
    window: int = 0,
    reserve: int = 0,
    notes: Mapping[int, Sequence[str]] | None = None,
) -> ConversationView:
    """Return all that a prompt can say of the conversation, from which `build_prompt` can make smaller ones as well.

    now: the present time, if not the clock's
    ratio, window, reserve: see ConversationView
    notes: further notes before messages, by their positions
    """
    assistant = conversation.assistant
    opening, entries = _window(conversation, assistant)
    if notes:
        entries = [replace(each, about=(*each.about, *notes.get(each.position, ()))) for each in entries]
    first = min((entry.position for entry in entries), default=conversation.last_position + 1)
    clean = redaction.rules_of(conversation.client).clean  # the rules may have changed since the texts were stored
    return ConversationView(
        system_prompt=opening.get(Role.SYSTEM, ""),
        memory=clean(opening.get(Role.MEMORY, "")),
        goal=clean(conversation.goal),
        summary=clean(conversation.summary),
        pending_steps=[clean(_step(step, assistant)) for step in steps if not step.by_assistant],
        own_steps=[clean(_step(step, assistant)) for step in steps if step.by_assistant],
        notes=[(label, clean(value)) for label, value in _topic_and_goal(conversation)],
        entries=[_cleaned(entry, clean) for entry in entries],
        budget=assistant.context_budget if assistant else CONTEXT_BUDGET,
        contact=_contact_facts(conversation, entries),
        variables=[(name, clean(value)) for name, value in conversation.variables.items()],
        begins=not entries,
        older=max(first - 1 - max(_summarised(conversation), OPENING_CHUNKS), 0),
        ratio=ratio,
        window=window,
        reserve=reserve,
        now=(now or timezone.now()).astimezone(zone_of(conversation.client)),
    )


def _cleaned(entry: PromptEntry, clean: Callable[[str], str]) -> PromptEntry:
    about, after = tuple(map(clean, entry.about)), tuple(map(clean, entry.after))
    return replace(entry, content=clean(entry.content), about=about, after=after)


def _step(step: Step, assistant: Assistant | None) -> str:
    """Return the step's text, with its number if the model may complete or cancel it by a tool."""
    return f"{step.description} [step {step.pk}]" if assistant and assistant.uses_tools else step.description


def _topic_and_goal(conversation: Conversation) -> list[tuple[str, str]]:
    goal = conversation.current_goal
    wanted = goal.get("description", "") if isinstance(goal, dict) else goal
    return [("Topic", conversation.topic), ("What the person wants now", wanted if isinstance(wanted, str) else "")]


def _window(conversation: Conversation, assistant: Assistant | None) -> tuple[dict[str, str], list[PromptEntry]]:
    """Return the texts of the opening by role, and the newest messages, oldest first.

    The messages are the assistant's history length, all messages that are not answered yet, and the older messages that
    are not in the summary yet, so that none is missing from both. What is not answered yet stands in the order in which
    it was written: a message that arrived late comes before those that were written after it.
    """
    length = _history_length(assistant)
    reach = max(length + summaries.MOST_UNSUMMARISED, MOST_UNANSWERED)
    found = rows(_SHOWN, conversation.pk, conversation.history_from or 0, reach, conversation.client_id)
    opening = {role: words for role, words, *_ in found if role in (Role.SYSTEM, Role.MEMORY)}
    said = [each for each in found if each[0] not in opening]
    quoted = quoted_by(conversation, [metadata for *_, metadata, _, _, _ in said if metadata])
    newest = [
        _entry(
            PromptEntry(role, words, by_staff, position, author, _delivery(statuses or (), words)),
            (*beside, _read_instead(statuses or (), words)),
            quoted,
        )
        for role, words, by_staff, position, author, statuses, *beside, _ in said
    ]
    written = {position: ordered_at(metadata or {}) or at for _, _, _, position, *_, metadata, _, _, at in said}
    newest.sort(key=lambda entry: entry.position, reverse=True)  # a union promises no order
    absorbed = _summarised(conversation)
    unanswered = next((number for number, entry in enumerate(newest) if entry.role == Role.AI), len(newest))
    most = (
        summaries.MOST_UNSUMMARISED if len(newest) > length and summaries.can_summarise(conversation, assistant) else 0
    )
    unsummarised = [entry for entry in newest[length : length + most] if entry.position > absorbed]
    answered = max(newest[:unanswered], newest[:length] + unsummarised, key=len)[unanswered:]
    burst = sorted(newest[:unanswered], key=lambda entry: (written[entry.position], entry.position))
    return opening, answered[::-1] + burst


def _entry(entry: PromptEntry, found: Sequence[Any], quoted: Mapping[str, Quoted]) -> PromptEntry:
    """Return the entry with what stands beside it: `found` is the chunk's metadata, activities and original text, and
    what the person read in its place."""
    metadata, activities, original, read = found
    if read:
        entry = replace(entry, after=(f"instead of your message the person read “{excerpt(read)}”",))
    if not metadata and not activities:
        return entry
    ours = entry.role == Role.AI
    notes = beside(metadata or {}, activities or (), quoted, ours=ours, original=original, our=YOUR)
    return replace(entry, about=notes.about, after=(*entry.after, *notes.after))


def _read_instead(statuses: Sequence[str], words: str) -> str:
    """Return what the person read in a template in place of the words; '' if it had the words, or is not known."""
    read = statuses[0].partition("\n")[2] if statuses and statuses[0].startswith(TEMPLATE) else ""
    return "" if " ".join(words.split()) in " ".join(read.split()) else read


def _delivery(statuses: Sequence[str], words: str) -> str:
    """Return what became of a message by the statuses of its parts; '' if it was delivered, or may still be."""
    if statuses and statuses[0].startswith(TEMPLATE):
        name, _, read = statuses[0].removeprefix(TEMPLATE).partition("\n")
        return "" if read and not _read_instead(statuses, words) else marks.template_instead(name)
    parts = Counter(statuses)
    waiting = parts[S.QUEUED] + parts[S.CLAIMED] + parts[S.SENDING]
    if arrived := parts[S.SENT] + parts[S.DELIVERED] + parts[S.READ]:
        return marks.partly_delivered(arrived, len(statuses)) if arrived + waiting < len(statuses) else ""
    if parts[S.UNKNOWN]:
        return marks.DELIVERY_UNKNOWN
    if parts[S.FAILED]:
        return marks.SENDING_FAILED
    return marks.CANCELLED if parts[S.CANCELLED] else ""


def _fell_out(conversation: Conversation, assistant: Assistant | None, view: ConversationView, prompt: Prompt) -> int:
    """Return the position up to which messages should be summarised by now; 0 if there is nothing to summarise.

    These are the messages that have no room in the budget, and those before the history once there are ABSORB_FROM.
    """
    shown = min((part.position for part in prompt.parts if part.position), default=0)
    before = [entry.position for entry in view.entries[: -_history_length(assistant)]]
    waiting = view.older + len([position for position in before if position > _summarised(conversation)])
    if shown and view.entries[0].position < shown:
        before += [entry.position for entry in view.entries if entry.position < shown]
    elif waiting < summaries.ABSORB_FROM:
        return 0
    wanted = max(before, default=0)
    return wanted if wanted > _summarised(conversation) and summaries.can_summarise(conversation, assistant) else 0


def _summarised(conversation: Conversation) -> int:
    """Return the position up to which messages are in the summary, or are hidden from the assistant."""
    rolling = conversation.rolling
    return max(rolling.upto if rolling else 0, conversation.history_from or 0)


def _contact_facts(conversation: Conversation, entries: Sequence[PromptEntry]) -> list[tuple[str, str]]:
    """Return what is known of the person, as (label, text); never the phone number itself."""
    contact = conversation.contact
    words = " ".join(entry.content[:LANGUAGE_SAMPLE] for entry in entries if entry.role != Role.AI)
    language = languages.guess(words)
    return [
        ("Name", contact.shown_name),
        (
            "Language",
            language_name(contact.language) or ("" if language == languages.DEFAULT else language.capitalize()),
        ),
        ("Phone number", "known" if contact.phone else "not known yet"),
    ]


def _history_length(assistant: Assistant | None) -> int:
    return max(assistant.history_length, 1) if assistant else HISTORY_LENGTH
