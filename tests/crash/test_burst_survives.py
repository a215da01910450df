"""kill -9 of the dispatcher while people write in bursts: how long to wait is on the row, and the next one waits on."""

from __future__ import annotations

from datetime import timedelta

from conversations.models import Chunk, Client, Conversation, Turn
from tests.crash.stage import eventually


def test_a_burst_across_a_kill_gets_one_reply_that_saw_all_of_it(convo):
    Client.objects.update(quiet_windows={"whatsapp": 4}, longest_wait=timedelta(minutes=1))
    convo.openai.reply = lambda messages: " ".join(messages[-1]["content"].split()[-10:])
    convo.start_web()
    dispatcher = convo.start_dispatcher()
    person = "51999990000"
    for number in range(5):
        convo.says(f"word-{number}", person)
    dispatcher.kill()
    assert not Turn.objects.exists(), "the burst was not over"
    convo.start_dispatcher()
    for number in range(5, 10):
        convo.says(f"word-{number}", person)
    eventually(lambda: Chunk.objects.filter(role="ai").exists(), "the burst is answered")
    convo.becomes_quiet()

    [chunk] = Chunk.objects.filter(role="ai")
    assert chunk.content.split() == [f"word-{number}" for number in range(10)]
    assert convo.sent_to(person) == [chunk.content]
    last = Conversation.objects.get().chunks.filter(role="user").last()
    assert Turn.objects.get().started_at - last.created_at >= timedelta(seconds=4)
