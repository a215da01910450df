"""The copilot's API: the signed-in user's own sessions, with replies that stream while they are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import views
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api import copilot_schema as shapes
from conversations.api.copilot_serializers import (
    DEFAULT_MESSAGES,
    DEFAULT_SESSIONS,
    FeedbackSerializer,
    NewSessionSerializer,
    QuestionSerializer,
    ReadSerializer,
    TitleSerializer,
    message_shown,
    role_shown,
    session_shown,
)
from conversations.api.fields import read
from conversations.api.rating_serializers import GivenRatingSerializer, ShownRatingSerializer, rating_shown
from conversations.http.login import IsSignedIn, SessionLogin, user_of
from conversations.http.markdown import StreamedMarkdown
from conversations.http.streams import RETRY_SECONDS, EventStream, event, stream_limit
from conversations.models import Conversation, Turn
from conversations.services.copilot import failures, ratings, turns
from conversations.services.copilot import sessions as copilot
from conversations.services.copilot.feed import Reader, ReadPosition, ReplyEnd, ReplyPart, feed
from conversations.services.copilot.sessions import User
from conversations.services.copilot.turns import RequestedReply, UserMessage
from conversations.services.replies.sinks import HUMAN_WANTED, LOW_CONFIDENCE

LAST_EVENT_ID = re.compile(r"([0-9]{1,4})\.([0-9]{1,7})")

TAKEN_OVER = "taken_over"  # how a reply ends where a colleague has the session, or will have it


class CopilotView(views.APIView):
    """A view for signed-in users. Another user's id is a 404."""

    authentication_classes = [SessionLogin]
    permission_classes = [IsSignedIn]
    schema_group = "copilot"
    throttle_classes = []  # services count on rows, for all processes together


class CopilotAPI(CopilotView):
    """Asking, and reading sessions."""

    @extend_schema(operation_id="copilot_read", parameters=[ReadSerializer], responses=shapes.LIST)
    def get(self, request: Request) -> Response:
        """List the newest sessions. With `session_id`: list that session's messages, oldest first."""
        wanted = read(ReadSerializer, request.query_params.dict())
        user = user_of(request)
        if "session_id" in wanted:
            return Response(_messages(user, wanted))
        sessions = copilot.sessions(user, wanted.get("limit", DEFAULT_SESSIONS))
        return Response({"items": [session_shown(each) for each in sessions], "next": None})

    @extend_schema(operation_id="copilot_ask", request=QuestionSerializer, responses=shapes.STREAM)
    def post(self, request: Request) -> HttpResponseBase:
        """Send a message, in a new session without `session_id`, and stream the reply while it is written."""
        question = UserMessage(**read(QuestionSerializer, request.data))
        user = user_of(request)
        return _answer(user, lambda: turns.ask(user, question, timezone.now()))


class RolesAPI(CopilotView):
    """The assistants that the user may talk to."""

    @extend_schema(operation_id="copilot_roles", responses=shapes.RoleShownSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the assistants that the signed-in user may talk to."""
        return Response({"items": [role_shown(each) for each in copilot.roles(user_of(request))], "next": None})


class SessionsAPI(CopilotView):
    """Creating sessions."""

    @extend_schema(
        operation_id="copilot_new_session",
        request=NewSessionSerializer,
        responses={201: shapes.SessionShownSerializer},
    )
    def post(self, request: Request) -> Response:
        """Create a session without messages."""
        wanted = read(NewSessionSerializer, request.data)
        session = copilot.new_session(user_of(request), wanted["role"], wanted["client"], timezone.now())
        return Response(session_shown(session), status=201)


class SessionAPI(CopilotView):
    """One session."""

    @extend_schema(operation_id="copilot_rename", request=TitleSerializer, responses=shapes.SessionShownSerializer)
    def patch(self, request: Request, pk: UUID) -> Response:
        """Change the title of a session."""
        wanted = read(TitleSerializer, request.data)
        return Response(session_shown(copilot.rename(user_of(request), pk, wanted["title"])))

    @extend_schema(operation_id="copilot_delete", responses={200: shapes.DeletedSerializer})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Delete a session with all of its messages."""
        copilot.delete(user_of(request), pk)
        return Response({"id": str(pk), "deleted": True})


class StopAPI(CopilotView):
    """Stopping a reply."""

    @extend_schema(operation_id="copilot_stop", request=None, responses=shapes.StoppingSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        """Stop the reply that is being written. The text so far is kept."""
        return Response({"stopping": turns.stop(user_of(request), pk, timezone.now())})


class RetryAPI(CopilotView):
    """Retrying a reply."""

    @extend_schema(operation_id="copilot_retry", request=None, responses=shapes.STREAM)
    def post(self, request: Request, pk: UUID) -> HttpResponseBase:
        """Write another reply to the last message, if it has none or only a part of one, and stream it."""
        user = user_of(request)
        return _answer(user, lambda: turns.retry(user, pk, timezone.now()))


class FeedbackAPI(CopilotView):
    """Feedback on a reply."""

    @extend_schema(operation_id="copilot_feedback", request=FeedbackSerializer, responses=shapes.RatedSerializer)
    def put(self, request: Request, pk: int) -> Response:
        """Rate a reply with thumbs and a note. A null rating removes both."""
        wanted = read(FeedbackSerializer, request.data)
        user = user_of(request)
        if wanted["rating"] is None:
            copilot.withdraw_feedback(user, pk)
        else:
            copilot.give_feedback(user, pk, wanted["rating"], wanted["note"], timezone.now())
        return Response({"id": pk, "rating": wanted["rating"], "note": wanted["note"] if wanted["rating"] else ""})


class RatingAPI(CopilotView):
    """The answer to the question about satisfaction."""

    @extend_schema(operation_id="copilot_rate", request=GivenRatingSerializer, responses=ShownRatingSerializer)
    def put(self, request: Request, pk: UUID) -> Response:
        """Answer the question about satisfaction of an ended session. The first answer counts: the same again changes
        nothing, and another one is a 409 `rated`."""
        wanted = read(GivenRatingSerializer, request.data)
        return Response(rating_shown(ratings.rate(user_of(request), pk, **wanted, now=timezone.now())))


class StreamAPI(CopilotView):
    """Streaming a reply."""

    @extend_schema(operation_id="copilot_stream", parameters=[shapes.LAST_EVENT], responses=shapes.STREAM)
    def get(self, request: Request, turn_id: UUID) -> HttpResponseBase:
        """Stream the rest of a reply after `Last-Event-ID`, or all of it without that header."""
        user = user_of(request)
        turn = turns.get_turn(user, turn_id)
        place = _place(request.headers.get("Last-Event-ID", ""), turn)
        return _answer(user, lambda: RequestedReply(turn.conversation, None, turn), place)


def _messages(user: User, wanted: dict[str, Any]) -> dict[str, Any]:
    session_id = wanted["session_id"]
    known = copilot.session(user, session_id)
    session = session_shown(known, ratings.shown(known, timezone.now()))
    if "last" in wanted:
        found = copilot.newest_messages(user, session_id, before=wanted.get("before"), limit=wanted["last"])
        earlier = found[0].position if len(found) == wanted["last"] else None
        return {"session": session, "items": [message_shown(each) for each in found], "next": None, "before": earlier}
    limit = wanted.get("limit", DEFAULT_MESSAGES)
    found = copilot.messages(user, session_id, after=wanted.get("cursor", 0), limit=limit + 1)
    page = found[:limit]
    following = str(page[-1].position) if len(found) > limit else None
    return {"session": session, "items": [message_shown(each) for each in page], "next": following, "before": None}


def _place(last_event_id: str, turn: Turn) -> ReadPosition:
    """Return the reader's position from `Last-Event-ID`, or the beginning for an id that Convo never gave."""
    match = LAST_EVENT_ID.fullmatch(last_event_id)
    place = ReadPosition(int(match[1]), int(match[2])) if match else ReadPosition()
    return place if place.attempt <= turn.attempt else ReadPosition()


# --- the stream -------------------------------------------------------------------------------------------------------
def _answer(user: User, ask: Callable[[], RequestedReply], place: ReadPosition | None = None) -> HttpResponseBase:
    """Return the stream of a turn. Without room for another one it ends after the first event, and the reader returns.

    Raises what `ask` raises, and TooManyError.
    """
    entered = stream_limit.enter(user.id)
    try:
        asked = ask()
        reader = feed.read(asked.turn.pk, user.id, place or ReadPosition()) if entered and asked.turn else None
    except BaseException:
        if entered:
            stream_limit.leave(user.id)
        raise

    def closed() -> None:
        if reader:
            feed.leave(reader)
        if entered:
            stream_limit.leave(user.id)

    return EventStream(_ReplyEvents(asked, reader), closed)


class _ReplyEvents:
    """The events of a reply that is being written. Without a reader the stream is over after its first event."""

    def __init__(self, asked: RequestedReply, reader: Reader | None) -> None:
        self._asked, self._reader = asked, reader
        self._growing: StreamedMarkdown | None = None  # for a reader from the start; others have seen the blocks
        self.is_over = reader is None

    def first(self) -> bytes:
        """Return the session, and the end where no reply is being written."""
        begun = f"retry: {RETRY_SECONDS * 1000}\n".encode() + event("session", _session_event(self._asked))
        if self._asked.turn is None:
            begun += event("done", _done(self._asked.session, None, None, TAKEN_OVER))
        return begun

    def next(self) -> bytes | None:
        """Return the next delta or the end, or None if there is none yet."""
        news = self._reader.take() if self._reader else None
        if isinstance(news, ReplyPart):
            if news.start == 0:
                self._growing = StreamedMarkdown()
            return event("delta", _delta(news, self._growing), f"{news.end.attempt}.{news.end.characters}")
        if isinstance(news, ReplyEnd):
            self.is_over = True
            return _end(self._asked.session, news)
        return None

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from any thread, whenever there may be a next event."""
        if self._reader:
            self._reader.call_when_ready(wake)


def _delta(piece: ReplyPart, growing: StreamedMarkdown | None) -> dict[str, Any]:
    """Return the delta. For a reader from the start, `html` is the finished Markdown and `tail` the text behind it."""
    delta: dict[str, Any] = {"text": piece.text, "start": piece.start}
    if growing:
        delta["html"] = growing.add(piece.text)
        delta["tail"] = growing.tail
    return delta


def _session_event(asked: RequestedReply) -> dict[str, Any]:
    return {
        "session_id": str(asked.session.pk),
        "turn_id": str(asked.turn.pk) if asked.turn else None,
        "message_id": asked.chunk.pk if asked.chunk else None,
        "title": asked.session.topic,
    }


def _end(session: Conversation, ended: ReplyEnd) -> bytes:
    turn = ended.turn
    if turn is None or turn.status != Turn.Status.FAILED:
        how = turn.finish_reason if turn and ended.chunk else turn.code if turn else "deleted"
        if turn and turn.code in (HUMAN_WANTED, LOW_CONFIDENCE):
            how = TAKEN_OVER
        return event("done", _done(session, turn, ended.chunk, how))
    return event(
        "error",
        {
            "error": failures.sentence_of(turn.code),
            "code": turn.code,
            "retryable": failures.may_be_retried(turn.code),
            "session_id": str(session.pk),
            "turn_id": str(turn.pk),
            "message": message_shown(ended.chunk) if ended.chunk else None,
        },
    )


def _done(session: Conversation, turn: Turn | None, chunk: Any, finish_reason: str) -> dict[str, Any]:
    return {
        "session_id": str(session.pk),
        "turn_id": str(turn.pk) if turn else None,
        "chunk_id": chunk.pk if chunk else None,
        "finish_reason": finish_reason,
        "message": message_shown(chunk) if chunk else None,
        "usage": {"tokens_in": turn.tokens_in if turn else 0, "tokens_out": turn.tokens_out if turn else 0},
    }


routes: dict[str, Any] = {
    "copilot": CopilotAPI,
    "copilot/roles": RolesAPI,
    "copilot/sessions": SessionsAPI,
    "copilot/sessions/<uuid:pk>": SessionAPI,
    "copilot/sessions/<uuid:pk>/stop": StopAPI,
    "copilot/sessions/<uuid:pk>/retry": RetryAPI,
    "copilot/sessions/<uuid:pk>/rating": RatingAPI,
    "copilot/messages/<int:pk>/feedback": FeedbackAPI,
    "copilot/stream/<uuid:turn_id>": StreamAPI,
}
