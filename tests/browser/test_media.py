"""Files that people sent, in a real browser: seen, played, saved, and said in words where there is nothing to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from channels_out.simulators import whatsapp
from conversations.models import Attachment, ChannelAccount, Conversation
from tests.browser.test_transcript import sign_in
from tests.conftest import fetch_all, send_all
from tests.conversations.meta_doors import account_at, post_whatsapp
from tests.fakes.meta import FakeMeta
from tests.media_files import document, picture, recording

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def meta(shop):
    """Meta's fake, with the shop's account at it."""
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel="whatsapp").delete()
    with FakeMeta() as fake:
        account_at(fake, shop)
        yield fake


def sent(meta, kind, media_id, content, content_type, **about):
    """Somebody sends a file."""
    if content is not None:
        meta.files[media_id] = (content, content_type)
    item = whatsapp.media(kind, media_id=media_id, **about)
    post_whatsapp(meta.webhook(messages=[item], contacts=[whatsapp.contact("51999999999", "Ana")]))


def many_files(meta):
    """A picture, a voice note, a document, one that lies, one that is too large, one that is gone."""
    sent(meta, "image", "1", picture(), "image/jpeg", caption="This is how it arrived")
    sent(meta, "audio", "2", recording(180), "audio/ogg; codecs=opus", voice=True)
    sent(meta, "document", "3", document(10_000_000), "application/pdf", filename="Invoice of May.pdf")
    sent(meta, "image", "4", b"<html><script>document.title='taken'</script></html>", "image/jpeg")
    meta.announced["5"] = 200_000_000
    sent(meta, "video", "5", b"\0\0\0\x18ftypmp42", "video/mp4")
    meta.dead.add("6")
    sent(meta, "image", "6", picture(), "image/jpeg")
    Attachment.objects.filter(source="6").update(tries=5)
    fetch_all()
    sent(meta, "sticker", "7", None, "image/webp")


def test_staff_see_hear_and_save_what_people_sent(page, shop, meta):
    many_files(meta)
    sign_in(page, shop=shop, role="viewer")
    page.goto(f"/admin/conversations/conversation/{Conversation.objects.get().pk}/change/")

    photo = page.locator(".cv-picture img").first
    expect(photo).to_be_visible()
    page.wait_for_function("() => document.querySelector('.cv-picture img').naturalWidth > 0")
    assert photo.evaluate("one => one.naturalWidth") == 480
    note = page.locator("audio")
    page.wait_for_function("() => document.querySelector('audio').duration > 0")
    assert round(note.evaluate("one => one.duration")) == 180
    note.evaluate("one => { one.currentTime = 170; }")
    page.wait_for_function(
        "() => (({seeking, readyState}) => !seeking && readyState >= 2)(document.querySelector('audio'))"
    )
    assert round(note.evaluate("one => one.currentTime")) == 170

    expect(page.get_by_text("Invoice of May.pdf", exact=True)).to_be_visible()
    expect(page.get_by_text("10.0 MB")).to_be_visible()
    with page.expect_download() as saving:
        page.get_by_text("Invoice of May.pdf", exact=True).click()
    assert saving.value.suggested_filename == "Invoice of May.pdf"
    assert Path(saving.value.path()).stat().st_size == 10_000_000

    expect(page.get_by_text("The video could not be fetched: it is larger than allowed.")).to_be_visible()
    expect(page.get_by_text("could not be fetched: the provider does not have it any more.")).to_be_visible()
    expect(page.get_by_text("The sticker is being fetched.")).to_be_visible()
    assert page.outside == []
    assert page.faults == []


def test_a_page_in_disguise_is_saved_and_never_run(page, shop, meta):
    many_files(meta)
    sign_in(page, shop=shop, role="viewer")
    page.goto(f"/admin/conversations/conversation/{Conversation.objects.get().pk}/change/")
    title = page.title()
    liar = page.locator(".cv-file").nth(3).locator("a")
    with page.expect_download() as saving:
        liar.press("Enter")  # on a busy machine the press of a mouse was lost here
    assert Path(saving.value.path()).read_bytes().startswith(b"<html>")
    assert page.title() == title
    address = liar.get_attribute("href")
    answer = page.request.get(address)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_picture_appears_by_itself_once_it_is_there(page, shop, meta):
    sent(meta, "image", "1", picture(), "image/jpeg")
    sign_in(page, shop=shop, role="viewer")
    page.goto(f"/admin/conversations/conversation/{Conversation.objects.get().pk}/change/")
    expect(page.get_by_text("The picture is being fetched.")).to_be_visible()
    fetch_all()
    expect(page.locator(".cv-picture img")).to_be_visible(timeout=8_000)


def test_staff_send_a_picture_from_the_page(page, shop, meta, tmp_path):
    sent(meta, "image", "1", picture(), "image/jpeg")
    sign_in(page, shop=shop, role="agent")
    page.goto(f"/admin/conversations/conversation/{Conversation.objects.get().pk}/change/")
    chosen = tmp_path / "The right part.png"
    chosen.write_bytes(picture(form="PNG"))
    page.get_by_label("Attach").set_input_files(chosen)
    expect(page.locator(".cv-attach output")).to_have_text("The right part.png")
    page.get_by_label("Reply", exact=True).fill("This one?")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/attach.png")
    page.get_by_role("button", name="Send", exact=True).click()

    expect(page.locator(".cv-ours .cv-picture img")).to_be_visible(timeout=8_000)
    expect(page.locator(".cv-attach output")).to_have_text("")
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "image"]
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_files_fit_the_page_wide_and_narrow_light_and_dark(page, shop, meta, width, scheme):
    many_files(meta)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 1000})
    sign_in(page, shop=shop, role="viewer")
    page.evaluate("scheme => localStorage.setItem('adminTheme', JSON.stringify(scheme))", scheme)
    page.goto(f"/admin/conversations/conversation/{Conversation.objects.get().pk}/change/")
    expect(page.locator(".cv-picture img")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.cv-picture img').naturalWidth > 0")

    bubbles = page.locator(".cv-file").evaluate_all("all => all.map((one) => one.scrollWidth - one.clientWidth)")
    assert max(bubbles) <= 0, "a file is wider than its message"
    assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    if folder := os.environ.get("SCREENSHOTS"):
        page.locator(".cv-scroll").evaluate("box => { box.scrollTop = 0; }")
        page.screenshot(path=f"{folder}/files-{width}-{scheme}.png")
        page.locator(".cv-scroll").evaluate("box => { box.scrollTop = box.scrollHeight; }")
        page.screenshot(path=f"{folder}/files-{width}-{scheme}-end.png")
