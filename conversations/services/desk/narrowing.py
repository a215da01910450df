"""The filters of the inbox beside its tabs: label, team, channel, priority, status, and who is responsible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ME = -1  # as the person responsible: whoever looks
NOBODY = 0


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The conversations of a tab that are shown; None lets all through.

    assignee_id     has the conversation or is responsible for it; ME, or NOBODY
    """

    label_id: int | None = None
    team_id: int | None = None
    channel: str | None = None
    priority: int | None = None
    status: str | None = None
    assignee_id: int | None = None

    def values(self, user_id: int) -> tuple[Any, ...]:
        """Return the values of `narrowed_sql`, in its order."""
        assignee = user_id if self.assignee_id == ME else self.assignee_id
        return self.label_id, self.team_id, self.channel, self.priority, self.status, assignee


EVERYTHING = Narrowing()


def narrowed_sql(label: str, team: str, channel: str, priority: str, status: str, assignee: str) -> str:
    """Return the condition on conversation s and its state d; each argument is SQL, whose NULL lets all through."""
    return f"""({label} IS NULL OR EXISTS (
        SELECT 1 FROM desk_conversation_labels l
        WHERE l.client_id = s.client_id AND l.label_id = {label} AND l.conversation_id = s.id))
    AND ({team} IS NULL OR d.team_id = {team}) AND ({channel} IS NULL OR s.channel = {channel})
    AND ({priority} IS NULL OR COALESCE(d.priority, 0) = {priority}) AND ({status} IS NULL OR s.status = {status})
    AND ({assignee} IS NULL OR CASE {assignee} WHEN {NOBODY} THEN s.taken_over_name = '' AND d.assignee_id IS NULL
        ELSE COALESCE(s.taken_over_by_id, CASE WHEN s.taken_over_name = '' THEN d.assignee_id END) = {assignee} END)"""
