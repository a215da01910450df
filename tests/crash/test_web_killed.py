"""kill -9 of the web process during webhooks: what is delivered again until it is taken is stored once."""

from __future__ import annotations

import threading

import pytest
import requests

from conversations.models import Chunk, Conversation
from tests.crash import stage
from tests.crash.stage import Crowd, eventually


@pytest.mark.parametrize("first", [True, False], ids=["the first message", "a message to an open session"])
@pytest.mark.parametrize("door", ["WhatsApp", "our own JSON"])
def test_a_message_whose_worker_is_killed_as_it_is_stored_is_there_once(convo, web, first, door):
    person = f"5199999{'01'[first]}{'01'[door == 'WhatsApp']}00"
    webhook = convo.meta.text_webhook("Hello", sender=person)

    def deliver():
        return (
            convo.post(webhook)
            if door == "WhatsApp"
            else convo.post_own(user_id=person, message="Hello", message_id=f"m {person}")
        )

    if not first:
        convo.says("before", person) if door == "WhatsApp" else convo.post_own(user_id=person, message="before")
    failed = []

    def in_vain():
        try:
            deliver()
        except requests.RequestException as error:
            failed.append(error)

    with convo.held("conversation_chunks", "NEW.content = 'Hello'") as reached:
        thread = threading.Thread(target=in_vain, daemon=True)
        thread.start()
        reached()
        convo.kill_workers(web)
        thread.join(stage.SECONDS)
    assert failed, "it was answered, though nobody was there"

    answers = [eventually(lambda: taken(deliver), "the message is taken") for _ in range(2)]
    assert Chunk.objects.filter(conversation__contact__user_id=person, content="Hello").count() == 1
    assert Conversation.objects.get(contact__user_id=person).inbound_sequence == (1 if first else 2)
    if door != "WhatsApp":
        assert answers[-1].json()["data"]["duplicate"]
    stage.assert_sound()


def taken(deliver):
    try:
        answer = deliver()
    except requests.RequestException:
        return None
    return answer if answer.status_code == 200 else None


def test_under_load_every_message_is_stored_once(convo, web):
    with Crowd(convo) as crowd:
        for _ in range(2):
            crowd.goes_on()
            web = convo.kill_workers(web)
            crowd.goes_on()
            web.kill()
            web = convo.start_web()
        crowd.goes_on()

    assert crowd.interrupted, "nobody noticed: this tried nothing"
    assert [answer.text for answer in crowd.refusals if not stage.is_envelope(answer)] == []
    crowd.assert_heard_once_each()
