"""The back office in the reader's language and time zone; everything else in English and UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone, translation

from conversations.models import Conversation, Preferences
from conversations.services.core.errors import InvalidError
from conversations.services.staff_actions import seed_helpers
from conversations.services.tenants import preferences
from tests import factories
from tests.conversations.back_office import page_of, sign_in

pytestmark = pytest.mark.django_db


def lang_of(answer):
    return re.search(r'<html lang="([^"]+)"', answer.content.decode())[1]


def get_in(http, accepted, path="/admin/me/"):
    return http.get(path, headers={"accept-language": accepted})


@pytest.fixture
def staff():
    return sign_in("ana", factories.ClientFactory(), "agent")


def choose(http, language="", time_zone=""):
    return http.post("/admin/me/", {"language-language": language, "language-time_zone": time_zone})


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("es-PE,es;q=0.9,en;q=0.8", "es"),
        ("pt-PT", "pt-br"),
        ("pt-BR,pt", "pt-br"),
        ("pt", "pt-br"),
        ("de-DE", "en"),
        ("de, es;q=0.5", "es"),
        ("", "en"),
        ("../../etc, \x00;q=x", "en"),
        ("es" * 5_000, "en"),
    ],
)
def test_at_first_the_browser_says_the_language(staff, accepted, language):
    answer = get_in(staff, accepted)
    assert (lang_of(answer), answer["Content-Language"]) == (language, language)
    assert "Accept-Language" in answer["Vary"]
    assert lang_of(get_in(HttpClient(), accepted, "/admin/login/")) == language  # also before one signs in


def test_what_a_person_chooses_holds_in_every_browser_and_for_nobody_else(staff):
    assert choose(staff, "es", "America/Lima").status_code == 302
    again = HttpClient()
    again.force_login(Preferences.objects.get().user)
    assert [lang_of(get_in(http, "pt-BR")) for http in (staff, again)] == ["es", "es"]
    assert lang_of(get_in(sign_in("bob", factories.ClientFactory(), "viewer"), "pt-BR")) == "pt-br"
    assert choose(staff).status_code == 302
    assert lang_of(get_in(staff, "pt-BR")) == "pt-br"  # as the browser says, again


def test_a_language_or_zone_that_does_not_exist_is_refused_and_changes_nothing(staff):
    choose(staff, "es", "America/Lima")
    for language, zone in [
        ("xx", ""),
        ("", "Mars/Olympus"),
        ("es", "../../etc/passwd"),
        ("en\x00", ""),
        ("e" * 9999, ""),
    ]:
        assert choose(staff, language, zone).status_code == 200
    with pytest.raises(InvalidError):
        preferences.choose(Preferences.objects.get().user_id, language="", time_zone="localtime")
    assert Preferences.objects.values_list("language", "time_zone").get() == ("es", "America/Lima")


def test_a_language_that_is_gone_is_that_of_the_browser(staff):
    choose(staff, "es")
    Preferences.objects.update(language="qu")
    assert lang_of(get_in(staff, "pt-BR")) == "pt-br"


def test_settings_are_for_staff_alone():
    answer = HttpClient().get("/admin/me/")
    assert (answer.status_code, answer["Location"].startswith("/admin/login/")) == (302, True)


# --- times ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def conversation():
    client = factories.ClientFactory()
    conversation = seed_helpers.create_conversation(client.pk, "ann", "sms", goal="Find it")
    at = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)
    Conversation.objects.filter(pk=conversation.pk).update(started_at=at)
    return conversation


@pytest.mark.parametrize(
    ("cookie", "shown"),
    [
        ("America/Lima", "29 Nov 2026 21:30"),
        ("Asia/Calcutta", "30 Nov 2026 08:00"),
        ("", "30 Nov 2026 02:30"),
        ("Mars/Olympus", "30 Nov 2026 02:30"),
        ("/etc/passwd", "30 Nov 2026 02:30"),
        ("x" * 4_000, "30 Nov 2026 02:30"),
    ],
)
def test_times_are_in_the_zone_of_the_browser(conversation, cookie, shown):
    http = sign_in("ana", conversation.client, "agent")
    http.cookies["convo_zone"] = cookie
    assert shown in http.get(reverse("inbox:open", args=[conversation.pk])).content.decode()


def test_times_are_in_the_zone_that_the_person_chose(conversation):
    http = sign_in("ana", conversation.client, "agent")
    http.cookies["convo_zone"] = "Asia/Tokyo"
    choose(http, "es", "America/Lima")
    assert "29 nov 2026 21:30" in http.get(reverse("inbox:open", args=[conversation.pk])).content.decode()
    assert "zone=America%2FLima" in http.get(page_of(conversation)).content.decode()  # what scripts are told


def test_a_thread_goes_back_to_english_and_utc(staff):
    choose(staff, "es", "America/Lima")
    get_in(staff, "es")
    assert (translation.get_language(), timezone.get_current_timezone_name()) == ("en", "UTC")


# --- what stays in English --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/conversations", "/nowhere", "/healthz", "/copilot", "/schema/"])
def test_programs_are_answered_in_english(path):
    plain, asked = HttpClient().get(path), HttpClient().get(path, headers={"accept-language": "es"})
    assert plain.content == asked.content
    assert "Content-Language" not in asked


def test_the_words_of_scripts_are_one_file_for_each_language():
    for language in ("en", "es", "pt-br"):
        script = HttpClient().get(f"/words/{language}.js?v=1&zone=UTC")
        assert (script.status_code, script["Cache-Control"]) == (200, "public, max-age=3600")
        assert "django.when" in script.content.decode()
    assert HttpClient().get("/words/xx.js").status_code == 404
    assert HttpClient().get("/words/..%2f..%2fetc.js").status_code == 404


@pytest.mark.parametrize(
    ("path", "spanish", "portuguese"),
    [
        ("/admin/reports/", "Primera respuesta (mediana)", "Primeira resposta (mediana)"),
        ("/admin/e-mails/", "Avisarme una vez al día", "Avisar-me uma vez por dia"),
        ("/admin/inbox/", "Atrasadas primero", "Atrasadas primeiro"),
        ("/admin/conversations/proposal/", "Ningún asistente ha propuesto", "Nenhum assistente propôs"),
        ("/admin/conversations/team/", "Aún no hay grupos", "Ainda não há grupos"),
        ("/admin/conversations/survey/", "Aún no se hace ninguna pregunta", "Nenhuma pergunta é feita ainda"),
    ],
)
def test_the_pages_of_the_desk_are_in_each_language(path, spanish, portuguese):
    http = sign_in("ana", factories.ClientFactory(), "manager")
    for language, said in (("es", spanish), ("pt-br", portuguese)):
        choose(http, language)
        assert said in http.get(path).content.decode()
