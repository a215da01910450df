"""Sending templates: found in the account's catalogue, filled, and queued as messages or in place of text.

    say_template    a program's or a colleague's: the chunk is the template, as the person reads it
    fallback        the assistant's, in place of a text that came too late: the chunk stays what the assistant wrote

A template that the provider has not approved, or has paused, is refused with a sentence, and nothing is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.translation import gettext, gettext_noop

from channels_out.contract import Template
from channels_out.templates import (
    APPROVED,
    TAKEN_WITHOUT_CONSENT,
    FilledTemplate,
    InvalidTemplateError,
    TemplateValues,
    fill,
    fill_unknown,
    needs_of,
    read_values,
    room_for_text,
)
from conversations.models import Assistant, ChannelAccount, Chunk, Conversation, Message, MessageTemplate, Role
from conversations.services.core import redaction
from conversations.services.core.appending import write_chunks
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.delivery import outbox
from conversations.words import lazy as _
from conversations.words import sentence_of, shown
from memory.text import one_line

TEMPLATE = outbox.TEMPLATE
LONGEST_NAME = 512
NOT_FILLED = gettext_noop("The assistant's template cannot be filled:")
_STATUSES = {
    "PENDING": _("WhatsApp has not approved this template yet."),
    "IN_APPEAL": _("WhatsApp has not approved this template yet."),
    "REJECTED": _("WhatsApp has rejected this template: change it in WhatsApp Manager and have it approved."),
    "PAUSED": _("WhatsApp has paused this template, because people blocked or reported it: choose another one."),
    "DISABLED": _("WhatsApp has disabled this template: choose another one."),
    "PENDING_DELETION": _("This template is being deleted: choose another one."),
    "DELETED": _("This template was deleted: choose another one."),
}
_FIELDS = {"name", "language", "variables", "header", "buttons"}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_ ]{0,99})(?:\|([^{}]*))?\}")


@dataclass(frozen=True, slots=True)
class WantedTemplate:
    """A template to be sent. `language` may be '' where the account has the name in one language alone."""

    name: str
    language: str = ""
    values: TemplateValues = field(default_factory=TemplateValues)


def read_wanted(given: Any) -> WantedTemplate:
    """Return the template of a program's JSON: name, language?, variables?, header?, buttons?. Raises InvalidError."""
    try:
        values = read_values(given)
    except InvalidTemplateError as error:
        raise _refused(error) from None
    if unknown := sorted(map(str, given.keys() - _FIELDS)):
        raise _refused(InvalidTemplateError("A template has no field %(name)s.", name=repr(unknown[0][:40])))
    name, language = given.get("name"), given.get("language") or ""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not isinstance(language, str):
        raise _refused(InvalidTemplateError("A template has a name, and its language, as texts."))
    return WantedTemplate(name.strip(), language.strip(), values)


def say_template(
    conversation: Conversation, wanted: WantedTemplate, now: datetime, *, author_id: int | None = None
) -> tuple[Chunk, list[Message]]:
    """Append the template to the locked conversation, as the person reads it, and queue it. Returns chunk and messages.

    Call it within `locking.saving`. Raises InvalidError (`template`) for values that do not fit, or ConflictError
    (`no_templates`, `unknown_template`, `template_refused`, `no_marketing`).
    """
    account = outbox.account_of(conversation)
    adapter = outbox.adapter_or_none(account)
    if account is None or adapter is None or not adapter.sends_templates:
        raise ConflictError(gettext("This conversation's channel or account has no templates."), code="no_templates")
    template = _usable(account, wanted.name, wanted.language)
    if is_marketing(template.category) and outbox.marketing_on(conversation.channel) in conversation.contact.opted_out:
        raise ConflictError(
            gettext("This person wants no marketing messages, and this template is one."), code="no_marketing"
        )
    try:
        filled = fill(template.components, _cleaned(conversation, wanted.values))
    except InvalidTemplateError as error:
        raise _refused(error) from None
    about: dict[str, Any] = {"name": template.name, "language": template.language}
    if filled.buttons:
        about["buttons"] = list(filled.buttons)
    text = filled.text or f"[template] {template.name}"
    [chunk] = write_chunks(conversation, [(Role.AI, text)], now, author_id=author_id, metadata={TEMPLATE: about})
    content = content_of(filled, template.category)
    message = outbox.queue_template(conversation, chunk, account, _named(template), content, now)
    return chunk, [message]


def fallback(
    conversation: Conversation, message: Message, assistant: Assistant
) -> tuple[Template, dict[str, Any]] | str:
    """Return the assistant's template with its values, and what the message keeps of it; or why it cannot be sent."""
    account = message.channel_account
    known = account and account.templates.filter(client=conversation.client_id)
    template = known and _named_so(known, assistant.template_name, assistant.template_language)
    if known and not template and known.exists():
        return gettext_noop("The account has no template of the assistant's name and language.")
    if template and (refusal := refusal_of(template)):
        return f"{refusal} ({template})"
    components = template.components if template else []
    try:
        values = _values_of(conversation, message, assistant, components if template else None)
        filled = fill(components, values) if template else fill_unknown(values)
    except InvalidTemplateError as error:
        return f"{NOT_FILLED} {error}"
    category = template.category if template else ""
    return Template(assistant.template_name, assistant.template_language), content_of(filled, category)


def content_of(filled: FilledTemplate, category: str) -> dict[str, Any]:
    """Return what a message keeps of its template: the values as they are sent, and the text as it is read."""
    return {"components": list(filled.components), "text": filled.text, "category": category}


def refusal_of(template: MessageTemplate) -> str:
    """Return why the template is not sent, '' if it is approved."""
    if template.status == APPROVED:
        return ""
    if known := _STATUSES.get(template.status):
        return str(known)
    return gettext("WhatsApp does not send this template: its status is %(status)s.") % {"status": template.status}


def is_marketing(category: str) -> bool:
    """Return whether a template of this category needs the person's consent to marketing; unknown ones do."""
    return category not in TAKEN_WITHOUT_CONSENT


def _usable(account: ChannelAccount, name: str, language: str) -> MessageTemplate:
    found = account.templates.filter(client=account.client_id)
    template = _named_so(found, name, language)
    if template is None:
        languages = list(found.filter(name=name).values_list("language", flat=True))
        sentence = gettext("The account has no such template.")
        if languages:
            sentence = gettext("The account has this template in %(languages)s: name the language.") % {
                "languages": ", ".join(languages)
            }
        elif account.templates_at is None:
            sentence = gettext("The account's templates have not been read yet: press Fetch templates on its page.")
        elif account.templates_problem:
            sentence = gettext("The account's templates could not be read: %(problem)s") % {
                "problem": shown(account.templates_problem)
            }
        raise ConflictError(sentence, code="unknown_template", details={"template": [sentence]})
    if refusal := refusal_of(template):
        raise ConflictError(refusal, code="template_refused", details={"template": [refusal]})
    return template


def _named_so(found: Any, name: str, language: str) -> MessageTemplate | None:
    theirs = list(found.filter(name=name, **({"language": language} if language else {}))[:2])
    template: MessageTemplate | None = theirs[0] if len(theirs) == 1 else None
    return template


def _named(template: MessageTemplate) -> Template:
    return Template(template.name, template.language)


def _refused(error: InvalidTemplateError) -> InvalidError:
    return InvalidError(sentence_of(error), code="template", details={"template": [str(error)]})


def _cleaned(conversation: Conversation, values: TemplateValues) -> TemplateValues:
    clean = redaction.rules_of(conversation.client).clean
    return TemplateValues(
        {name: clean(value) for name, value in values.variables.items()},
        clean(values.header),
        clean(values.filename),
        tuple(map(clean, values.buttons)),
    )


# --- the assistant's values -------------------------------------------------------------------------------------------
def _values_of(conversation: Conversation, message: Message, assistant: Assistant, components: Any) -> TemplateValues:
    """Return the assistant's values with its placeholders replaced; the text is shortened to the room there is."""
    lines = assistant.template_variables.split("\n") if assistant.template_variables.strip() else []
    facts = {
        **conversation.variables,
        "name": conversation.contact.shown_name,
        "goal": conversation.goal,
        "assistant": assistant.name,
    }
    names = needs_of(components).variables if components is not None else ()
    without = [_replaced(line, {**facts, "text": ""}) for line in lines]
    room = room_for_text(components) - sum(map(len, without)) if components is not None else None
    words = " ".join(outbox.words_of(message).split())
    facts["text"] = words if room is None or len(words) <= room else one_line(words, max(room, 1))
    named = [names[number] if number < len(names) else str(number + 1) for number in range(len(lines))]
    variables = {name: _replaced(line, facts) for name, line in zip(named, lines, strict=True)}
    return TemplateValues(variables, _replaced(assistant.template_header, facts))


def _replaced(line: str, facts: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        return str(facts.get(found[1].strip(), "") or found[2] or "")

    return " ".join(_PLACEHOLDER.sub(value, line).split())
