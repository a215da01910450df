"""The models of a reply: which are asked, how often yet, and what they taught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conversations.engines.contract import ModelOutcome
from conversations.engines.tools import TOOLS, tokens_of
from conversations.models import Assistant, Conversation, Step, Turn
from conversations.services.core.sql import row
from conversations.services.replies import prompt_context
from conversations.services.tenants import model_providers
from memory.context import ConversationView
from memory.language_models import capabilities
from memory.language_models.contract import ModelAccess

ROOM_FOR_ANSWERS = 1_500  # tokens that the answers of a client's own tools may have beside the prompt
TOKENS_OF_TOOLS = tokens_of(TOOLS)

_CALLS = """
    SELECT COALESCE(sum(calls), 0) FROM conversation_turns
    WHERE client_id = $3 AND conversation_id = $1 AND inbound_sequence = $2 AND status IN ('failed', 'abandoned')"""


def models_of(assistant: Assistant | None) -> tuple[ModelAccess, ...]:
    """Return the models that may write the assistant's replies; none if its engine is no language model."""
    if assistant and assistant.engine not in (Assistant.EngineName.AUTO, Assistant.EngineName.OPENAI):
        return ()
    return model_providers.accesses_of(assistant)


def view_for(
    models: Sequence[ModelAccess],
    conversation: Conversation,
    steps: Sequence[Step],
    beside: int = 0,
    notes: Mapping[int, Sequence[str]] | None = None,
) -> ConversationView:
    """Return what the prompt can say, within what is known of the first model.

    beside: tokens of what the model is given beside it: the client's own tools, and what became of their calls
    notes: further notes before messages, by their positions
    """
    assistant, known = conversation.assistant, models[0].known if models else {}
    most = capabilities.cap(assistant.max_tokens, known) if assistant else None
    tools = TOKENS_OF_TOOLS if assistant and assistant.uses_tools else 0
    tools += ROOM_FOR_ANSWERS if beside else 0
    return prompt_context.view_of(
        conversation,
        steps,
        ratio=float(known.get(capabilities.TOKEN_RATIO, 1.0)),
        window=capabilities.window(models[0]) if models else 0,
        reserve=(most or 0) + tools + beside,
        notes=notes,
    )


def calls_before(turn: Turn) -> int:
    """Return how often models were called already for the messages that this turn answers, in attempts that failed.

    Attempts at a streamed reply are one turn; each at an owed reply is a turn of its own.
    """
    if turn.streamed or turn.attempt == 1:
        return turn.calls
    found = row(_CALLS, turn.conversation_id, turn.inbound_sequence, turn.client_id)
    return int(found[0]) if found else 0


def note_outcomes(outcomes: Iterable[ModelOutcome]) -> None:
    """Keep what was learned of the models, outside of the transaction that locks the conversation."""
    for outcome in outcomes:
        model_providers.learn(outcome.access, outcome.learned)
        model_providers.note_outcome(outcome.access, outcome.code)
