"""Quotas of a day: what language models may use for a client, and what is noticed where it is used up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.engines.contract import Reply
from conversations.engines.registry import ask
from conversations.models import (
    Assistant,
    Chunk,
    Client,
    ClientDay,
    Contact,
    Conversation,
    ConversationEvent,
    StaffAction,
    Turn,
)
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import remember
from conversations.services.replies import leases, pipeline
from conversations.services.retention import erasure
from conversations.services.tenants import day_quotas
from tests.conftest import Door, reply_to_all
from tests.conversations.staff import signed_in, staff, superuser
from tests.conversations.test_admin_set_up import address, policies, saved
from tests.fakes.openai import FakeOpenAI
from tests.races.threads import together

pytestmark = pytest.mark.django_db

SENTENCE = "We have talked a lot today. I am back tomorrow."
TAKEN = {"prompt_tokens": 80, "completion_tokens": 20, "total_tokens": 100}


@pytest.fixture
def model(settings: Any, shop: Client) -> Iterator[FakeOpenAI]:
    """The model of every client's assistants, which counts 100 tokens for each answer: $0.0001."""
    settings.MODEL_PRICES = {"house": ("1", "1")}
    settings.OPENAI_MODEL = "house"
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.usage = lambda _body, _text: dict(TAKEN)  # type: ignore[method-assign]
        Assistant.objects.update(engine="auto")
        yield fake


def limit(client: Client, **quotas: Any) -> None:
    Client.objects.filter(pk=client.pk).update(**quotas)


def used(client: Client) -> int:
    return sum(ClientDay.objects.filter(client=client).values_list("tokens", flat=True))


def breaks_off_in_the_second_round(model: FakeOpenAI) -> None:
    model.then("reply", tool_calls=[("add_step", {"description": "Look it up"})])
    model.then("status", status=500)


def use(client: Client, tokens: int, cost: str = "0") -> None:
    """The client's models took this much today."""
    day = day_quotas.day_of(Client.objects.get(pk=client.pk), timezone.now())
    ClientDay.objects.update_or_create(client=client, day=day, defaults={"tokens": tokens, "cost": Decimal(cost)})


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("pk").values_list("content", flat=True))


def reply_at(now: datetime) -> int:
    """What the dispatcher does at this time. Returns how many replies the model was asked for."""
    asked = 0
    for claim in leases.claim(now, 100):
        if prepared := pipeline.prepare(claim, now):
            outcome = ask(prepared[1], prepared[0])
            assert isinstance(outcome, Reply)
            pipeline.commit(claim, outcome, now)
            asked += 1
    return asked


# --- what counts -----------------------------------------------------------------------------------------------------
def test_each_reply_adds_its_tokens_and_its_price_to_the_client_s_day(door: Door, model: FakeOpenAI) -> None:
    for words in ("Hello", "Again"):
        door.says(words)
        reply_to_all()
    day = ClientDay.objects.get()
    assert (day.client, day.tokens, day.cost, day.tokens_unpriced) == (door.shop, 200, Decimal("0.0002"), 0)
    assert sum(Turn.objects.values_list("cost", flat=True)) == day.cost


def test_answers_without_a_known_price_count_their_tokens(door: Door, model: FakeOpenAI, settings: Any) -> None:
    settings.MODEL_PRICES = {}
    door.says("Hello")
    reply_to_all()
    day = ClientDay.objects.get()
    assert (day.tokens, day.tokens_unpriced, day.cost) == (100, 100, 0)


def test_both_models_of_a_reply_and_drafts_that_are_dropped_count(door: Door, model: FakeOpenAI) -> None:
    Assistant.objects.update(fallback_model="second")
    breaks_off_in_the_second_round(model)
    door.says("Hello")
    reply_to_all()
    assert Turn.objects.get().model == "second"
    assert used(door.shop) == Turn.objects.get().tokens_in + Turn.objects.get().tokens_out == 200
    door.says("And?")
    [claim] = leases.claim(timezone.now(), 10)
    prepared = pipeline.prepare(claim)
    assert prepared
    door.says("Wait")
    reply = ask(prepared[1], prepared[0])
    assert isinstance(reply, Reply)
    assert pipeline.commit(claim, reply, timezone.now()) == "overtaken"
    assert used(door.shop) == 300


def test_failures_that_were_paid_for_count_once(door: Door, model: FakeOpenAI) -> None:
    breaks_off_in_the_second_round(model)
    door.says("Hello")
    [claim] = leases.claim(timezone.now(), 10)
    prepared = pipeline.prepare(claim)
    assert prepared
    error = ask(prepared[1], prepared[0])
    assert not isinstance(error, Reply)
    assert pipeline.fail(claim, error, timezone.now()) == "failed"
    assert pipeline.fail(claim, error, timezone.now()) == "abandoned", "a step that is done again"
    assert used(door.shop) == 100


@pytest.mark.django_db(transaction=True)
def test_the_summary_of_a_conversation_counts(door: Door, model: FakeOpenAI) -> None:
    pk = door.says("I want a red roof", phone="+51999999999")["conversation_id"]
    reply_to_all()
    assert door.call("POST", f"/conversations/{pk}/close", {"reason": "done"})[0] == 200
    assert used(door.shop) == 100
    assert remember.remember_ended() == 1
    assert used(door.shop) == 200


def test_engines_without_a_model_of_ours_count_nothing_and_are_never_held_back(door: Door) -> None:
    limit(door.shop, tokens_per_day=1)
    use(door.shop, 5)
    door.says("Hello")
    reply_to_all()
    assert len(said()) == 1
    assert used(door.shop) == 5


# --- the quota -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("tokens", "is_written"), [(999, True), (1000, False), (1001, False)])
def test_replies_begin_while_a_token_is_left(door: Door, model: FakeOpenAI, tokens: int, is_written: bool) -> None:
    limit(door.shop, tokens_per_day=1000)
    use(door.shop, tokens)
    door.says("Hello")
    reply_to_all()
    assert bool(said()) is is_written
    assert len(model.requests) == is_written
    assert Chunk.objects.filter(role="user").count() == 1, "what people write is stored"


@pytest.mark.parametrize(("cost", "is_written"), [("4.99999999", True), ("5", False), ("5.00000001", False)])
def test_replies_begin_while_money_is_left(door: Door, model: FakeOpenAI, cost: str, is_written: bool) -> None:
    limit(door.shop, cost_per_day="5.00", tokens_per_day=1_000_000)
    use(door.shop, 10, cost)
    door.says("Hello")
    reply_to_all()
    assert bool(said()) is is_written


def test_where_a_quota_is_used_up_a_person_is_called(door: Door, model: FakeOpenAI) -> None:
    limit(door.shop, tokens_per_day=100)
    use(door.shop, 100)
    pk = door.says("Hello")["conversation_id"]
    for words in ("Hello?", "Is anybody there?"):
        reply_to_all()
        door.says(words)
    reply_to_all()
    conversation = Conversation.objects.get()
    assert said() == []
    assert conversation.needs_staff_since is not None
    assert "quota of today is used up" in conversation.needs_staff_reason
    assert conversation.taken_over_at is None
    assert set(Turn.objects.values_list("status", "code")) == {("dropped", "quota_used_up")}
    assert ConversationEvent.objects.filter(kind="needs_staff", cause="quota_used_up").count() == 1
    status, _ = door.call("POST", f"/conversations/{pk}/send", {"role": "ai", "content": "I am a person."})
    assert status == 201
    conversation.refresh_from_db()
    assert not conversation.reply_owed, "it is answered"


def test_the_client_s_sentence_is_sent_once_a_day_in_a_conversation_and_then_a_person_is_called(
    door: Door, model: FakeOpenAI
) -> None:
    limit(door.shop, tokens_per_day=100, quota_sentence=SENTENCE)
    use(door.shop, 100)
    door.says("Hello")
    reply_to_all()
    assert said() == [SENTENCE]
    assert Conversation.objects.get().needs_staff_since is None
    door.says("Hello?")
    reply_to_all()
    assert said() == [SENTENCE]
    assert Conversation.objects.get().needs_staff_since is not None
    door.says("Hello", user_id="bea")
    reply_to_all()
    assert said() == [SENTENCE, SENTENCE], "each conversation has its own"
    assert model.requests == []


def test_a_caller_hears_the_sentence_each_time_or_else_the_fallback(door: Door, model: FakeOpenAI) -> None:
    limit(door.shop, tokens_per_day=100, quota_sentence=SENTENCE)
    use(door.shop, 100)
    for words in ("Hello", "Hello?"):
        door.says(words, channel="voice")
        reply_to_all()
    limit(door.shop, quota_sentence="")
    door.says("Anybody?", channel="voice")
    reply_to_all()
    assert said() == [SENTENCE, SENTENCE, Assistant.objects.get(client=door.shop).fallback]
    assert not Conversation.objects.filter(reply_owed=True).exists(), "nobody waits on the line until tomorrow"


def test_who_has_not_written_yet_is_told_nothing(door: Door, model: FakeOpenAI) -> None:
    limit(door.shop, tokens_per_day=100, quota_sentence=SENTENCE)
    use(door.shop, 100)
    status, _ = door.call("POST", "/conversations", {"channel": "sms", "phone": "+51999999997"})
    assert status == 201
    reply_to_all()
    assert said() == []
    assert Conversation.objects.get().needs_staff_since is not None


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Santiago", "UTC"])
def test_the_next_day_of_the_client_replies_go_on_by_themselves(door: Door, model: FakeOpenAI, zone: str) -> None:
    limit(door.shop, tokens_per_day=100, quota_sentence=SENTENCE, time_zone=zone)
    shop = Client.objects.get(pk=door.shop.pk)
    midnight = day_quotas.beginning_of(shop, timezone.now(), days=3)
    ClientDay.objects.create(client=shop, day=day_quotas.day_of(shop, midnight - timedelta(seconds=1)), tokens=100)
    door.says("Hello")
    assert reply_at(midnight - timedelta(seconds=2)) == 0
    assert said() == [SENTENCE]
    assert reply_at(midnight - timedelta(seconds=1)) == 0, "it waits"
    assert reply_at(midnight) == 1, "what nobody answered is answered"
    assert said() == [SENTENCE, "You said: Hello"]
    assert ClientDay.objects.get(day=day_quotas.day_of(shop, midnight)).tokens == 100
    assert midnight.astimezone(day_quotas.zone_of(shop)).hour in (0, 1), "1 where the clock is put forward"


def test_the_sentence_is_sent_again_on_another_day(door: Door, model: FakeOpenAI) -> None:
    limit(door.shop, tokens_per_day=100, quota_sentence=SENTENCE)
    midnight = day_quotas.beginning_of(door.shop, timezone.now(), days=2)
    for at in (midnight - timedelta(hours=1), midnight):
        ClientDay.objects.create(client=door.shop, day=day_quotas.day_of(door.shop, at), tokens=100)
    door.says("Hello")
    for at in (midnight - timedelta(hours=1), midnight):
        assert reply_at(at) == 0
    assert said() == [SENTENCE, SENTENCE]


def test_another_client_is_not_touched(door: Door, model: FakeOpenAI, neighbour: Client, neighbours_key: str) -> None:
    Assistant.objects.update(engine="auto")
    limit(door.shop, tokens_per_day=100)
    limit(neighbour, tokens_per_day=200)
    use(door.shop, 100)
    other = Door(neighbour, neighbours_key)
    for words in ("Hello", "And?"):
        door.says(words)
        other.says(words)
        reply_to_all()
    assert said() == ["You said: Hello", "You said: And?"]
    assert set(Chunk.objects.filter(role="ai").values_list("conversation__client", flat=True)) == {neighbour.pk}
    assert (used(door.shop), used(neighbour)) == (100, 200)


def test_a_client_without_quotas_is_asked_nothing_for_them(door: Door, model: FakeOpenAI) -> None:
    door.says("Hello")
    [claim] = leases.claim(timezone.now(), 10)
    with CaptureQueriesContext(connection) as seen:
        prepared = pipeline.prepare(claim)
        assert prepared
        reply = ask(prepared[1], prepared[0])
        assert isinstance(reply, Reply)
        pipeline.commit(claim, reply, timezone.now())
    assert [each["sql"].split()[0] for each in seen.captured_queries if "client_days" in each["sql"]] == ["INSERT"]


@pytest.mark.django_db(transaction=True)
def test_dispatchers_that_end_replies_at_once_count_each_once_and_warn_once(
    door: Door, model: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    limit(door.shop, tokens_per_day=1000)
    for number in range(8):
        door.says("Hello", user_id=f"ann{number}")
    claims = leases.claim(timezone.now(), 100)
    replies = []
    for claim in claims:
        prepared = pipeline.prepare(claim)
        assert prepared
        replies.append(ask(prepared[1], prepared[0]))
    now = timezone.now()
    with caplog.at_level(logging.WARNING):
        together(*(partial(pipeline.commit, *each, now) for each in zip(claims, replies, strict=True)))
    assert used(door.shop) == 800
    assert sum("nearly used up" in each.message for each in caplog.records) == 1
    assert ClientDay.objects.get().warned_at == now


# --- what staff see --------------------------------------------------------------------------------------------------
def dashboard(user: Any) -> str:
    answer = signed_in(user).get(reverse("admin:index"))
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_the_dashboard_warns_the_client_s_staff_from_80_percent_on(door: Door, neighbour: Client) -> None:
    limit(door.shop, tokens_per_day=1000, name="<b>Shop</b>")
    theirs, others = staff("ann", shop=Role.VIEWER), staff("bob", neighbour=Role.MANAGER)
    use(door.shop, 799)
    assert "has used today" not in dashboard(theirs)
    use(door.shop, 800)
    page = dashboard(theirs)
    assert page.count("has used today") == 1
    assert "800 of 1,000 tokens (80 %)" in page
    assert "<b>Shop" not in page
    assert "replies wait for tomorrow" not in page
    assert "has used today" in dashboard(superuser())
    assert "has used today" not in dashboard(others)
    use(door.shop, 1000)
    assert "replies wait for tomorrow" in dashboard(theirs)


def test_the_client_s_page_shows_the_figures_of_today(shop: Client, model: FakeOpenAI, door: Door) -> None:
    limit(shop, tokens_per_day=125, cost_per_day="2.50")
    door.says("Hello")
    reply_to_all()
    page = signed_in(staff("ann", shop=Role.VIEWER)).get(address("client", "change", shop.pk)).content.decode()
    assert "100 of 125 tokens (80 %), $0.00 of $2.50 (0 %)" in page
    assert "Staff were warned at" in page
    assert signed_in(superuser()).get(address("client", "add")).status_code == 200


def test_only_superusers_set_quotas_and_managers_the_sentence(shop: Client) -> None:
    page = address("client", "change", shop.pk)
    form = policies(tokens_per_day="5", cost_per_day="1", quota_sentence=SENTENCE)
    saved(signed_in(staff("mona", shop=Role.MANAGER)).post(page, form))
    shop.refresh_from_db()
    assert (shop.tokens_per_day, shop.cost_per_day, shop.quota_sentence) == (None, None, SENTENCE)
    for role in (Role.AGENT, Role.VIEWER):
        assert signed_in(staff(f"a-{role}", shop=role)).post(page, form).status_code == 403
    boss = signed_in(superuser())
    form |= {"name": "Shop", "sub_domain": "shop", "is_active": "on"}
    for wrong in (
        {"tokens_per_day": "0"},
        {"cost_per_day": "0"},
        {"cost_per_day": "NaN"},
        {"tokens_per_day": "9" * 40},
    ):
        assert boss.post(page, {**form, **wrong}).status_code == 200, wrong
    assert boss.post(page, {**form, "quota_sentence": "x" * 1001}).status_code == 200
    saved(boss.post(page, form))
    shop.refresh_from_db()
    assert (shop.tokens_per_day, shop.cost_per_day) == (5, 1)
    assert StaffAction.objects.filter(user_name="boss").get().changes["tokens_per_day"] == ["", "5"]
    saved(boss.post(page, {**form, "tokens_per_day": "", "cost_per_day": ""}))
    shop.refresh_from_db()
    assert (shop.tokens_per_day, shop.cost_per_day) == (None, None)


def test_a_larger_quota_lets_what_waits_be_answered_today(door: Door, model: FakeOpenAI, neighbour: Client) -> None:
    limit(door.shop, tokens_per_day=100)
    use(door.shop, 100)
    door.says("Hello")
    reply_to_all()
    assert reply_to_all() == 0
    form = policies(name="Shop", sub_domain="shop", is_active="on", tokens_per_day="1000")
    saved(signed_in(superuser()).post(address("client", "change", door.shop.pk), form))
    reply_to_all()
    assert said() == ["You said: Hello"]


def test_a_person_s_erasure_leaves_the_sums(door: Door, model: FakeOpenAI) -> None:
    limit(door.shop, tokens_per_day=100)
    door.says("Hello", phone="+51999999999")
    reply_to_all()
    before = ClientDay.objects.values().get()
    done = erasure.begin(Contact.objects.get().pk, actor=SYSTEM, now=timezone.now())
    erasure.continue_erasures(timezone.now())
    done.refresh_from_db()
    assert done.certificate
    assert not Conversation.objects.exists()
    assert ClientDay.objects.values().get() == before
    door.says("Hello again")
    reply_to_all()
    assert said() == [], "the quota is still used up"
