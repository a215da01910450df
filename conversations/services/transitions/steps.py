"""Steps: the mini-goals of a conversation.

pending ──► complete
   └──────► cancelled
"""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext

from conversations.models import Client, Conversation, Step
from conversations.services.core import redaction
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import lock, lock_open
from conversations.words import lazy as _

NO_STEP = _("There is no such step in this conversation.")
WORDS = {
    Step.Status.PENDING: _("pending"),
    Step.Status.COMPLETE: _("complete"),
    Step.Status.CANCELLED: _("cancelled"),
}
FINAL = (Step.Status.COMPLETE, Step.Status.CANCELLED)


def add_step(conversation_id: UUID | str, description: str, actor: Actor, client: Client | None = None) -> Step:
    """Add a pending step to the open conversation. Raises NotFoundError or ConflictError (`ended`)."""
    with transaction.atomic():
        return append_step(lock_open(conversation_id, client), description, actor)


def append_step(conversation: Conversation, description: str, actor: Actor, *, by_assistant: bool = False) -> Step:
    """Add a pending step to the locked open conversation. `by_assistant`: the model added it."""
    # The new step gets the rank of the last one: of steps with the same rank the newer one comes later.
    last = conversation.steps.aggregate(last=Max("rank"))["last"]
    description = redaction.rules_of(conversation.client).clean(description)
    step = Step.objects.create(
        conversation=conversation, description=description, rank=last or 0, by_assistant=by_assistant
    )
    record(conversation, "step_added", actor, step_id=step.pk)
    return step


def update_step(
    step_id: int,
    status: str,
    actor: Actor,
    client: Client | None = None,
    conversation_id: UUID | str | None = None,
) -> Step:
    """Set the step's status to `complete` or `cancelled`, and return the step.

    The same status again changes nothing, also after the conversation has ended.

    Raises NotFoundError, InvalidError (`unknown_status`), or ConflictError: `step_is_final` if the step has the other
    status already, `ended` if its conversation has ended.
    """
    if status not in FINAL:
        raise InvalidError(
            gettext("A step can become complete or cancelled, not %(status)s.") % {"status": repr(status)},
            code="unknown_status",
        )
    with transaction.atomic():
        step = _lock_step(step_id, client, conversation_id)
        if step.status != status:
            _refuse_if_final(step)
            _set_status(lock_open(step.conversation_id, step.client_id), step, status, actor)
    return step


def set_status(conversation: Conversation, step_id: int, status: str, actor: Actor) -> Step:
    """Set the status of a step of the locked open conversation, and return the step.

    Raises NotFoundError, or ConflictError (`step_is_final`).
    """
    step = conversation.steps.select_for_update().filter(pk=step_id).first()
    if step is None:
        raise NotFoundError(NO_STEP)
    if step.status != status:
        _refuse_if_final(step)
        _set_status(conversation, step, status, actor)
    return step


def _refuse_if_final(step: Step) -> None:
    if step.status in FINAL:
        raise ConflictError(
            gettext("This step is %(status)s. Only a pending step can become complete or cancelled.")
            % {"status": str(WORDS[Step.Status(step.status)])},
            code="step_is_final",
            details={"status": step.status, "possible": [step.status]},
        )


def _set_status(conversation: Conversation, step: Step, status: str, actor: Actor) -> None:
    step.status = status
    step.updated_at = timezone.now()
    step.save(update_fields=["status", "updated_at"])
    record(conversation, f"step_{status}", actor, step_id=step.pk)


def edit_step(
    step_id: int,
    description: str,
    actor: Actor,
    client: Client | None = None,
    conversation_id: UUID | str | None = None,
) -> Step:
    """Change the pending step's description. Raises NotFoundError or ConflictError (`step_is_final`, `ended`)."""
    with transaction.atomic():
        step = _lock_step(step_id, client, conversation_id)
        if step.status in FINAL:
            raise ConflictError(
                gettext("This step is %(status)s. Only a pending step can be edited.")
                % {"status": str(WORDS[Step.Status(step.status)])},
                code="step_is_final",
            )
        conversation = lock_open(step.conversation_id, step.client_id)
        description = redaction.rules_of(conversation.client).clean(description)
        if step.description != description:
            step.description = description
            step.updated_at = timezone.now()
            step.save(update_fields=["description", "updated_at"])
            record(conversation, "step_edited", actor, step_id=step.pk)
    return step


def move_step(
    step_id: int,
    places: int,
    actor: Actor,
    client: Client | None = None,
    conversation_id: UUID | str | None = None,
) -> list[Step]:
    """Move the step down by `places` (up, if negative), at most to the end. Returns all steps in their new order.

    Raises NotFoundError or ConflictError (`ended`).
    """
    with transaction.atomic():
        step = _lock_step(step_id, client, conversation_id)
        conversation = lock_open(step.conversation_id, step.client_id)
        steps = list(conversation.steps.all())
        place = next(index for index, other in enumerate(steps) if other.pk == step.pk)
        wanted = min(max(place + places, 0), len(steps) - 1)
        if wanted != place:
            steps.insert(wanted, steps.pop(place))
            for rank, each in enumerate(steps):
                each.rank = rank
            for each in steps:
                each.save(update_fields=["rank"])
            record(conversation, "step_moved", actor, step_id=step.pk, place=wanted + 1)
    return steps


def _lock_step(step_id: int, client: Client | None, conversation_id: UUID | str | None) -> Step:
    """Lock the step's conversation and then the step, in the order in which a purge takes them. Returns the step."""
    found = Step.objects.filter(pk=step_id)
    if conversation_id:
        found = found.filter(conversation_id=conversation_id)
    if client:
        found = found.filter(client=client)
    step = found.first()
    if step is None:
        raise NotFoundError(NO_STEP)
    lock(step.conversation_id, step.client_id)
    return Step.objects.select_for_update().get(client=step.client_id, pk=step_id)
