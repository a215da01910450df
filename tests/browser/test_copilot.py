"""The copilot's panel, in a real browser: send, see it written, leave, come back, stop, try again, speak."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect

from conversations.models import Chunk, Conversation, Feedback, Rating, Survey
from conversations.services.core.ledger import Actor
from conversations.services.staff_actions import send
from conversations.services.transitions import closing, rating_questions, takeover
from tests.bounds import rounds
from tests.browser.panel import LONG, opened, replies, say, sound, watched
from tests.copilot.reading import user
from tests.fakes.openai import FakeOpenAI

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("writer", "no_thread_is_left"),
]
SHOTS = os.environ.get("SCREENSHOTS")  # a folder to keep pictures in


@pytest.fixture
def people(browser: Browser, live_server: Any, roofers: Any) -> Iterator[Callable[..., Page]]:
    """Somebody's window on the copilot's page, signed in."""
    contexts: dict[str, BrowserContext] = {}

    def window(name: str = "ann", **options: Any) -> Page:
        if name not in contexts:
            user(name, roofers)
            contexts[name] = browser.new_context(base_url=live_server.url, **options)
            page = watched(contexts[name].new_page(), live_server.url)
            page.goto("/copilot/app")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill("a-long-password")
            page.get_by_role("button", name="Sign in").click()
            return page
        page = watched(contexts[name].new_page(), live_server.url)
        page.goto("/copilot/app")
        return page

    yield window
    for context in contexts.values():
        context.close()


def accessible(page: Page) -> None:
    """axe-core finds nothing."""
    found = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in Axe().run(page).response["violations"]
    ]
    assert found == []


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(300)
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_a_reply_is_seen_word_by_word_and_is_there_after_a_reload(people: Any, model: FakeOpenAI) -> None:
    last_word = threading.Event()
    model.then("reply", text=LONG, every=0.03, hold=last_word)
    page = opened(people())
    expect(page.get_by_text("How can I help you today?")).to_be_visible()
    say(page, "Count, please")
    expect(replies(page)).to_contain_text("One two three")
    expect(replies(page)).not_to_contain_text("ten.")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    last_word.set()
    expect(replies(page)).to_have_text(LONG)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.reload()
    expect(page.locator(".message.user .text")).to_have_text("Count, please")
    expect(replies(page)).to_have_text(LONG)
    assert Chunk.objects.filter(role__in=["user", "ai"]).count() == 2
    sound(page)


def test_a_page_that_is_killed_finds_the_whole_reply(people: Any, model: FakeOpenAI) -> None:
    last_word = threading.Event()
    model.then("reply", text=LONG, hold=last_word)
    page = opened(people())
    say(page, "Count")
    expect(replies(page)).to_contain_text("One two")
    page.close()
    again = opened(people())
    expect(replies(again)).to_contain_text("One two")
    last_word.set()
    expect(replies(again)).to_have_text(LONG)
    sound(again)


def test_a_connection_that_breaks_is_mended_by_itself(
    people: Any,
    model: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("conversations.http.streams.LONGEST_SECONDS", 0.3)
    monkeypatch.setattr("conversations.http.streams.HEARTBEAT_SECONDS", 0.1)
    last_word = threading.Event()
    model.then("reply", text=LONG, hold=last_word)
    page = opened(people())
    say(page, "Count")
    expect(replies(page)).to_contain_text("One two")
    with page.expect_request("**/copilot/stream/**"), page.expect_request("**/copilot/stream/**"):
        pass
    last_word.set()
    expect(replies(page)).to_have_text(LONG)
    expect(page.locator(".actions")).to_be_visible()
    assert re.fullmatch(r"1\.[0-9]+", page.came_back[-1]), "it asks for the rest"  # type: ignore[attr-defined]
    sound(page)


def test_a_reply_that_is_long_in_coming_is_spoken_of(people: Any, model: FakeOpenAI) -> None:
    hold = threading.Event()
    model.then("reply", text="Here.", hold=hold)
    page = opened(people())
    page.clock.install()
    say(page, "Is anybody there?")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    slow = page.locator(".message.ai .mark")
    expect(slow).to_be_hidden()
    page.clock.fast_forward(21_000)
    expect(slow).to_have_text("This takes longer than usual. Wait, or come back later. The reply will appear here.")
    hold.set()
    expect(replies(page)).to_have_text("Here.")
    expect(slow).to_be_hidden()
    sound(page)


def test_two_windows_and_two_people(people: Any, model: FakeOpenAI) -> None:
    last_word = threading.Event()
    model.then("reply", text=LONG, hold=last_word)
    ann, bob = opened(people("ann")), opened(people("bob"))
    say(ann, "Count")
    expect(replies(ann)).to_contain_text("One two")
    other = opened(people("ann"))
    expect(replies(other)).to_contain_text("One two")
    last_word.set()
    for page in (ann, other):
        expect(replies(page)).to_have_text(LONG)
    bob.get_by_role("button", name="Recent conversations").click()
    expect(bob.get_by_text("There is no conversation yet.")).to_be_visible()
    bob.reload()
    expect(bob.locator(".message")).to_have_count(0)
    sound(bob)


def test_stop_keeps_what_was_said_and_a_cut_is_tried_again(people: Any, model: FakeOpenAI) -> None:
    model.then("endless", text="la ", every=0.01)
    page = opened(people())
    say(page, "Sing")
    expect(replies(page)).to_contain_text("la la")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("You stopped the reply.")).to_be_visible()
    expect(replies(page)).to_contain_text("la la")
    model.then("cut", text=LONG, after=4)
    say(page, "Count")
    expect(page.locator(".mark", has_text="The answer broke off.")).to_be_visible()
    expect(replies(page).last).to_contain_text("One two three four")
    model.then("reply", text=LONG)
    page.locator(".retry:visible").last.click()
    expect(replies(page).last).to_have_text(LONG)
    model.then("status", status=401)
    say(page, "And again")
    expect(page.get_by_text("Tell whoever looks after it.").first).to_be_visible()
    say(page, "Hello")
    expect(replies(page).last).to_contain_text("You said: Hello")
    sound(page)


EVIL = """**Bold** <script>window.evil = 1</script> <img src=x onerror="window.evil = 2">

[here](javascript:window.evil=3) and [there](https://example.org/x) ![pixel](https://evil.example/pixel.png)

```python
print("hello")
```
"""


def test_markdown_is_shown_and_nothing_in_it_runs(people: Any, model: FakeOpenAI) -> None:
    model.then("reply", text=EVIL, every=0.005)
    page = opened(people())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(page, "<script>window.evil = 4</script> & <b>hello</b>")
    expect(page.locator(".message.user .text")).to_have_text("<script>window.evil = 4</script> & <b>hello</b>")
    expect(replies(page).locator("strong")).to_have_text("Bold")
    expect(replies(page).locator("pre code")).to_contain_text('print("hello")')
    expect(page.locator(".actions").last).to_be_visible()
    assert page.evaluate("window.evil") is None
    assert page.locator(".message img, .message script").count() == 0
    links = [link.get_attribute("href") for link in page.locator(".message a").all()]
    assert [href for href in links if not (href and href.startswith("https://"))] == []
    assert "noopener" in (page.locator(".message a").first.get_attribute("rel") or "")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").strip() == 'print("hello")'
    shot(page, "markdown")
    sound(page)


def test_sessions_are_found_renamed_and_deleted_and_a_role_begins_a_new_one(people: Any, model: FakeOpenAI) -> None:
    page = opened(people())
    say(page, "My first question")
    expect(replies(page)).to_contain_text("You said: My first question")
    page.get_by_label("Talk to").select_option(label="Executive")
    expect(page.locator(".message")).to_have_count(0)
    say(page, "My second question")
    expect(replies(page)).to_contain_text("You said: My second question")
    page.get_by_role("button", name="Good reply").click()
    page.get_by_label("What was good or bad about this reply?").fill("To the point")
    page.get_by_role("button", name="Send note").click()
    expect(page.locator(".note:visible")).to_have_count(0)
    page.get_by_role("button", name="Recent conversations").click()
    expect(page.locator(".sessions .title")).to_have_text(["My second question", "My first question"])
    shot(page, "recent")
    page.get_by_role("button", name="Rename: My first question").click()
    page.locator(".retitle:visible input").fill("Roofs")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".sessions .title")).to_have_text(["My second question", "Roofs"])
    page.get_by_role("button", name="Delete: My second question").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".sessions .title")).to_have_text(["Roofs"])
    expect(page.locator(".message")).to_have_count(0)
    page.locator(".sessions .go").click()
    expect(replies(page)).to_contain_text("You said: My first question")
    expect(page.get_by_label("Talk to")).to_have_value("field")
    assert Conversation.objects.get().topic == "Roofs"
    assert not Feedback.objects.exists(), "it went with its session"
    sound(page)


def test_a_list_that_arrives_late_does_not_bring_back_what_was_deleted(people: Any, model: FakeOpenAI) -> None:
    page = opened(people())
    say(page, "How steep is it")
    expect(replies(page)).to_contain_text("You said: How steep is it")
    page.get_by_role("button", name="Recent conversations").click()
    expect(page.locator(".sessions .title")).to_have_text(["How steep is it"])
    late: list[tuple[Any, Any]] = []
    page.route(re.compile(r"/copilot\?limit=20$"), lambda route: late.append((route, route.fetch())), times=1)
    page.get_by_role("button", name="Rename: How steep is it").click()
    page.locator(".retitle:visible input").fill("Roofs")
    page.get_by_role("button", name="Save").click()
    for _ in rounds("Waiting for the list", most=3_000):
        if late:
            break
        page.wait_for_timeout(10)
    page.get_by_role("button", name="Delete: How steep is it").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".sessions .title")).to_have_count(0)
    route, answer = late[0]
    assert "Roofs" in answer.text(), "it was read before the conversation was deleted"
    with page.expect_event("requestfinished"):
        route.fulfill(response=answer)
    page.wait_for_timeout(100)
    expect(page.locator(".sessions .title")).to_have_count(0)


FAKE_SPEECH = """
window.SpeechRecognition = class {
    start() { window.spoken = this; setTimeout(() => this.onstart(), 0); }
    stop() { this.onend(); }
    hear(words) { this.onresult({ results: [[{ transcript: words }]] }); this.onend(); }
};
"""


def test_one_can_speak_where_the_browser_listens(people: Any, model: FakeOpenAI) -> None:
    page = people()
    expect(page.get_by_role("button", name="Open the assistant")).to_be_visible()
    page.add_init_script(FAKE_SPEECH)
    page.reload()
    opened(page)
    page.get_by_role("button", name="Speak").click()
    expect(page.get_by_role("button", name="Stop listening")).to_have_attribute("aria-pressed", "true")
    page.evaluate("window.spoken.hear('How steep is it')")
    expect(page.get_by_role("textbox", name="Message")).to_have_value("How steep is it")
    expect(page.get_by_role("button", name="Speak")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Speak").click()
    page.evaluate("window.spoken.onerror({ error: 'not-allowed' })")
    expect(page.get_by_text("The microphone is not allowed here.")).to_be_visible()
    page.add_init_script("delete window.SpeechRecognition; delete window.webkitSpeechRecognition;")
    page.reload()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("How steep is it"), "the draft is kept"
    page.get_by_role("button", name="Speak").click()
    expect(page.get_by_text("This browser has no voice input.")).to_be_visible()
    sound(page)


def test_the_keyboard_is_enough(people: Any, model: FakeOpenAI) -> None:
    page = people()
    expect(page.get_by_role("button", name="Open the assistant")).to_be_visible()
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    expect(page.locator(".message.user .text")).to_have_text("Hello\nthere")
    expect(page.locator(".actions").last).to_be_visible()
    expect(page.get_by_role("status")).to_have_text(re.compile("The assistant says: You said: Hello"))
    for _ in range(30):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.localName") == "convo-copilot", "focus stays in the panel"
    for _ in range(15):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement.localName") == "convo-copilot"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Open the assistant")).to_be_focused()
    sound(page)


def test_limits_are_told_in_friendly_words(people: Any, model: FakeOpenAI, settings: Any) -> None:
    settings.COPILOT_MESSAGES_PER_MINUTE = 1
    page = opened(people())
    say(page, "Hello")
    expect(page.locator(".actions").last).to_be_visible()
    say(page, "Hello again")
    expect(page.get_by_role("alert").get_by_text("You have sent 1 messages within a minute.")).to_be_visible()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("Hello again")
    page.context.clear_cookies()
    say(page, "Hello?")
    expect(page.get_by_role("link", name="Sign in again")).to_be_visible()


STEPS = """# Steps

1. Measure
2. Cut, with `--care`

| a | b |
|---|---|
| 1 | 2 |

> Mind the edge.
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_nothing_is_in_the_way_of_anybody(people: Any, model: FakeOpenAI, scheme: str, size: Any) -> None:
    width, height = size
    model.then(
        "reply", text="# Steps\n\n1. Measure\n2. Cut\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> Mind the edge.\n\n`code`"
    )
    page = opened(people(viewport={"width": width, "height": height}, color_scheme=scheme))
    say(page, "How do I do it?")
    expect(page.locator(".actions").last).to_be_visible()
    model.then("cut", text=LONG, after=4)
    say(page, "And then?")
    expect(page.locator(".retry:visible")).to_be_visible()
    sound(page)
    page.wait_for_timeout(400)  # what slides in is not judged on its way
    accessible(page)
    shot(page, f"panel-{scheme}-{width}")
    page.get_by_role("button", name="Recent conversations").click()
    expect(page.locator(".sessions .go")).to_have_count(1)
    accessible(page)
    box = page.get_by_role("dialog").bounding_box()
    assert box
    assert (box["width"] == width) == (width < 640)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    accessible(page)


def test_the_login_page_is_for_everybody(browser: Browser, live_server: Any, roofers: Any) -> None:
    context = browser.new_context(base_url=live_server.url)
    page = watched(context.new_page(), live_server.url)
    page.goto("/copilot/app")
    sound(page)
    accessible(page)
    page.get_by_label("User name").fill("nobody")
    page.get_by_label("Password").fill("nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("the password is wrong")
    assert page.url.startswith(live_server.url + "/copilot/login?next=/copilot/app")
    context.close()


def test_a_colleague_comes_writes_and_goes_and_the_user_sees_it(people: Any, model: FakeOpenAI) -> None:
    page = people()
    page.clock.install()
    page.reload()
    say(opened(page), "Hello")
    expect(replies(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    session, grace = Conversation.objects.get(), Actor("staff", "grace", user("grace").pk)
    takeover.take_over(session.pk, actor=grace, now=timezone.now())
    send.send(session.pk, "Grace here.", actor=grace, now=timezone.now())
    page.clock.fast_forward(16_000)
    expect(page.get_by_role("alert")).to_contain_text("A colleague has this conversation")
    expect(replies(page).last).to_have_text("Grace here.")
    expect(page.get_by_text("Written by a colleague.")).to_be_visible()
    say(page, "Thanks, Grace")
    expect(page.locator(".message.user .text").last).to_have_text("Thanks, Grace")
    expect(page.get_by_role("alert")).to_contain_text("A colleague has this conversation")
    expect(replies(page)).to_have_count(2)
    assert len(model.requests) == 1, "the model is silent"
    sound(page)
    shot(page, "copilot-colleague")

    takeover.hand_back(session.pk, actor=grace, now=timezone.now())
    page.clock.fast_forward(6_000)
    expect(page.get_by_role("alert")).not_to_contain_text("colleague")
    page.get_by_role("button", name="Try again").click()
    expect(replies(page).last).to_contain_text("You said: Thanks, Grace")
    sound(page)


def test_an_ended_session_is_rated_and_a_low_rating_is_explained(people: Any, model: FakeOpenAI, roofers: Any) -> None:
    Survey.objects.create(
        client=roofers, channel="web", text="How satisfied are you?", why="What went wrong?", thanks="Thank you."
    )
    page = opened(people())
    say(page, "Where is the ladder?")
    expect(replies(page)).to_contain_text("You said")
    expect(page.get_by_role("button", name="4 of 5")).to_have_count(0)
    closing.close(Conversation.objects.get().pk, ended_by="staff", actor=Actor("system"), now=timezone.now())
    assert rating_questions.ask_due(timezone.now()) == 1
    page.reload()
    expect(page.get_by_text("How satisfied are you?")).to_be_visible()
    choices = page.get_by_role("group", name="Your rating").get_by_role("button")
    expect(choices).to_have_count(5)
    sound(page)
    accessible(page)
    page.faults.clear()  # type: ignore[attr-defined] - axe sets styles, which the page forbids
    shot(page, "copilot-rating")
    choices.nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("What went wrong?")).to_be_visible()
    expect(page.locator(".message.user .text").last).to_have_text("2 ★★")
    expect(choices).to_have_count(0)
    page.get_by_label("Your answer").fill("It was the wrong ladder")
    page.get_by_label("Your answer").press("Enter")
    expect(page.get_by_text("Thank you.", exact=True)).to_be_visible()
    expect(page.get_by_label("Your answer")).to_have_count(0)
    rating = Rating.objects.get()
    assert (rating.score, rating.comment) == (2, "It was the wrong ladder")
    assert Conversation.objects.count() == 1
    sound(page)
    accessible(page)
