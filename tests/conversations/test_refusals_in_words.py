"""Refusals and durations: staff read them in their language, and programs in English."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import translation

from channels_out.templates import InvalidTemplateError
from conversations import words
from conversations.admin.durations import from_words, in_words
from conversations.models import Turn
from conversations.services.replies import failures
from conversations.services.staff_actions import seed_helpers
from tests.conversations.back_office import do, page_of

pytestmark = pytest.mark.django_db

DONE = "Only a pending step can"


def speaks(http, language):
    http.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    return http


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("es", "Este paso está completo. Solo se puede editar un paso pendiente."),
        ("pt-BR", "Esta etapa está concluída. Só uma etapa pendente pode ser editada."),
        ("en", f"This step is complete. {DONE} be edited."),
    ],
)
def test_staff_read_a_refusal_in_their_language(agent, session, language, said):
    step = seed_helpers.add_step(session.pk, "Ask")
    do(agent, session, "complete-step", step=step.pk)
    answer = do(speaks(agent, language), session, "edit-step", step=step.pk, text="Something else")
    assert answer == (409, {"said": said})


def test_programs_read_the_same_refusal_in_english(agent, session, door):
    step = seed_helpers.add_step(session.pk, "Ask")
    do(speaks(agent, "es"), session, "complete-step", step=step.pk)
    path = f"/conversations/{session.pk}/steps/{step.pk}"
    status, answer = door.call("PATCH", path, {"status": "cancelled"}, **{"Accept-Language": "es"})
    assert (status, answer["code"]) == (409, "step_is_final")
    assert answer["error"] == f"This step is complete. {DONE} become complete or cancelled."


@pytest.mark.parametrize(("language", "said"), [("en", "10,000"), ("pt-br", "10.000")])
def test_numbers_have_the_separators_of_the_reader(language, said):
    with translation.override(language):
        assert words.whole(10_000) == said


def test_a_conversation_that_has_ended_refuses_in_the_words_of_its_status(agent, session):
    do(speaks(agent, "es"), session, "close")
    status, answer = do(agent, session, "add-step", text="Ask")
    assert (status, answer["said"].partition(" y ")[0]) == (409, "Esta conversación está cerrada")


def test_a_stored_reason_is_put_into_words_where_it_is_read(agent, session):
    reason = failures.explain_with_detail("unauthorized", "invalid_api_key")
    Turn.objects.filter(conversation=session).update(reason=reason)
    page = speaks(agent, "es").get(page_of(session)).content.decode()
    assert "El proveedor rechaza la clave. Introduzca una clave válida en el proveedor de modelos." in page
    assert "(invalid_api_key)" in page
    assert reason in speaks(agent, "en").get(page_of(session)).content.decode().replace("&#x27;", "'")


@pytest.mark.parametrize(
    ("stored", "spanish"),
    [
        ("", ""),
        ("Ann says so.", "Ann says so."),
        ("said goodbye", "se despidió"),
        ("A reply failed. The reply was tried too often. Reply yourself.", None),
        ("it refuses the key (status 401)", "rechaza la clave (status 401)"),
        (
            "3 replies in a row failed. The provider answered with status 418. Reply yourself; add a second model.",
            "Fallaron 3 respuestas seguidas. El proveedor respondió con el estado 418. Responda usted; añada un"
            " segundo modelo.",
        ),
        (
            "The reply failed with the code odd_code. (status 500)",
            "La respuesta falló con el código odd_code. (status 500)",
        ),
        ("Settled. Messages: 2. Receipts: 1.", "Resuelto. Mensajes: 2. Acuses de recibo: 1."),
        ("2 of 3 still fail.", "2 de 3 siguen fallando."),
        (
            "The reply failed with the code odd.code. 2 of 3 still fail.",
            "La respuesta falló con el código odd.code. 2 de 3 siguen fallando.",
        ),
    ],
)
def test_what_is_stored_is_translated_sentence_by_sentence(stored, spanish):
    with translation.override("es"):
        expected = "Falló una respuesta. La respuesta se intentó demasiadas veces. Responda usted."
        assert words.shown(stored) == (expected if spanish is None else spanish)
    with translation.override("en"):
        assert words.shown(stored) == stored


def test_an_error_of_the_outside_world_is_said_in_the_readers_language():
    error = InvalidTemplateError("The template has no variable %(name)s.", field="variables", name="city")
    assert str(error) == "The template has no variable city."
    with translation.override("pt-br"):
        assert words.sentence_of(error) == "O modelo de mensagem não tem a variável city."
        assert str(error) == "The template has no variable city."


@pytest.mark.parametrize(
    ("language", "span", "said"),
    [
        ("en", timedelta(days=1, hours=2), "1 day 2 hours"),
        ("es", timedelta(days=2, minutes=1), "2 días 1 minuto"),
        ("pt-br", timedelta(hours=3, minutes=20), "3 horas 20 minutos"),
    ],
)
def test_a_duration_is_read_and_written_in_words(language, span, said):
    with translation.override(language):
        assert in_words(span) == said
        assert from_words(said) == span
        assert from_words("2 days 5 minutes") == timedelta(days=2, minutes=5), "English is understood, too"
        assert from_words("3 foos") is None


def test_the_forecast_is_in_the_readers_language(agent, session):
    page = speaks(agent, "es").get(reverse("admin:conversations_conversation_clock", args=[session.pk]))
    said = page.content.decode()
    assert "La conversación pasa a inactiva" in said
    assert "Una conversación pasa a inactiva después de: 10 minutos" in said
    assert "sweep, cada 5 minutos" in said
    assert not [each for each in ("becomes stale", "minutes", "is archived") if each in said]


def test_the_panel_of_the_copilot_has_the_words_of_failures(agent):
    panel = speaks(agent, "es").get("/copilot/panel").content.decode()
    assert json.dumps("El asistente se quedó en silencio. Inténtelo de nuevo.")[1:-1] in panel
    assert "fell silent" not in speaks(agent, "en").get("/copilot/panel").content.decode()
