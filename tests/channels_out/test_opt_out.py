"""Opt-out and opt-in words, in every language, on the channels that have them, and no other texts."""

from __future__ import annotations

import pytest

from channels_out.kinds import Channel
from channels_out.opt_out import (
    CONFIRMED_CHANNELS,
    LONGEST,
    OPT_OUT_CHANNELS,
    HelpRequest,
    consent_change_in,
    help_request_in,
)


@pytest.mark.parametrize(
    "text",
    ["STOP", "stop", " Stop. ", "¡STOP!", "“Stop”", "stop\n", "Stop All", "STOPALL", "unsubscribe", "ARRÊT", "arret",
     "Baja", "darme  de baja", "pare", "stopp", "Стоп", "توقف", "ايقاف", "停止", "退订", "रोकें", "durdur"],
)  # fmt: skip
def test_words_that_stop(text: str) -> None:
    for channel in OPT_OUT_CHANNELS:
        change = consent_change_in(channel, text)
        assert change
        assert change.stop


@pytest.mark.parametrize("text", ["START", "unstop", "Iniciar", "ALTA", "Старт", "démarrer", "ابدأ", "开始"])
def test_words_that_start(text: str) -> None:
    for channel in OPT_OUT_CHANNELS:
        change = consent_change_in(channel, text)
        assert change
        assert not change.stop


@pytest.mark.parametrize(
    "text",
    ["please stop calling me", "Where is the bus stop?", "stop it", "", " ", "...", "👍", "no", "yes", "s t o p"],
)
def test_a_sentence_is_no_opt_out(text: str) -> None:
    found = {channel: consent_change_in(channel, text) for channel in Channel}
    assert found == dict.fromkeys(Channel)


def test_blanks_and_signs_around_a_word_count_as_part_of_a_message_that_is_short() -> None:
    assert consent_change_in("sms", "stop".ljust(LONGEST))
    assert consent_change_in("sms", "stop".ljust(LONGEST + 1)) is None
    assert consent_change_in("sms", "!" * LONGEST + "stop") is None


def test_what_carriers_take_for_stop_counts_on_sms_alone() -> None:
    for text in ("cancel", "END", "Quit"):
        assert [str(channel) for channel in Channel if consent_change_in(channel, text)] == ["sms"]


def test_calls_devices_and_the_web_have_no_such_words() -> None:
    assert {channel for channel in Channel if consent_change_in(channel, "stop")} == OPT_OUT_CHANNELS
    assert not OPT_OUT_CHANNELS & {Channel.VOICE, Channel.ORB, Channel.WEB}


def test_what_the_provider_took_it_for_counts_whatever_the_words() -> None:
    change = consent_change_in("sms", "Leave me alone", "optout")
    assert change
    assert change.stop
    assert change.confirmation("sms", "Shop") == "", "the provider has confirmed it"
    back = consent_change_in("sms", "ok", "optin")
    assert back
    assert not back.stop
    assert back.confirmation("sms", "Shop") == ""
    long = consent_change_in("sms", "x" * 100, "optout")
    assert long
    assert long.word == "x" * LONGEST
    assert consent_change_in("voice", "stop", "optout") is None
    assert consent_change_in("sms", "help", "help") is None


def test_sms_is_confirmed_in_the_language_of_the_word() -> None:
    assert {"sms"} == CONFIRMED_CHANNELS
    change = consent_change_in("sms", "baja")
    assert change
    assert change.confirmation("sms", "Shop {x}") == (
        "No recibirá más mensajes de Shop {x}. Responda START para recibirlos de nuevo."
    )
    other = consent_change_in("sms", "стоп")
    assert other
    assert other.confirmation("sms", "Shop").startswith("You will get no more messages from Shop.")
    assert change.confirmation("whatsapp", "Shop") == ""


# --- sentences
@pytest.mark.parametrize(
    ("text", "word", "language"),
    [
        ("please stop", "stop", "en"),
        ("Stop. Thank you", "stop", "en"),
        ("STOP STOP stop!!", "stop", "en"),
        ("Hi, please unsubscribe, thanks", "unsubscribe", "en"),
        ("remove me", "remove me", "en"),
        ("Remove me from your list", "remove me from your list", "en"),
        ("Don\u2019t text me", "don't text me", "en"),
        ("Por favor, no me env\u00ede m\u00e1s mensajes. Gracias", "no me env\u00ede m\u00e1s mensajes", "es"),
        ("por favor baja", "baja", "es"),
        ("N\u00e3o quero mais mensagens", "n\u00e3o quero mais mensagens", "pt"),
        ("S'il vous pla\u00eet, arr\u00eatez de m'\u00e9crire", "arr\u00eatez de m'\u00e9crire", "fr"),
        ("Bitte keine Nachrichten mehr", "keine nachrichten mehr", "de"),
        ("Basta messaggi, grazie", "basta messaggi", "it"),
        ("Geen berichten meer aub", "geen berichten meer", "nl"),
        ("Prosz\u0119, wypisz mnie", "wypisz mnie", "pl"),
        ("l\u00fctfen durdur", "durdur", "tr"),
        ("Пожалуйста, не пишите мне", "не пишите мне", "ru"),
        ("من فضلك توقف", "توقف", "ar"),
        ("कृपया रोकें", "रोकें", "hi"),
        ("tolong berhenti", "berhenti", "id"),
        ("请停止", "请停止", "zh"),
        ("停止してください。", "停止してください", "ja"),
    ],
)
def test_a_sentence_that_is_plainly_a_stop_counts(text: str, word: str, language: str) -> None:
    for channel in OPT_OUT_CHANNELS:
        change = consent_change_in(channel, text)
        assert change
        assert (change.stop, change.word, change.language, change.confirmed) == (True, word, language, False)
    assert consent_change_in("voice", text) is None


@pytest.mark.parametrize(
    "text",
    ["please", "thanks", "please cancel", "quit please", "please start", "don't stop", "stop at the shop", "no stop",
     "Please stop by tomorrow", "please stop the car", "remove me a slice", "remove the item please",
     "please " * 30 + "stop", "stop no more messages about shoes", "I want to stop at the market"],
)  # fmt: skip
def test_a_sentence_that_says_something_else_is_no_stop(text: str) -> None:
    assert consent_change_in("sms", text) is None


@pytest.mark.parametrize(
    ("channel", "text", "intent", "found"),
    [
        ("sms", "HELP", "", HelpRequest()),
        ("sms", "info?", "", HelpRequest()),
        ("sms", "whatever", "help", HelpRequest(answered=True)),
        ("sms", "help me", "", None),
        ("sms", "help".ljust(LONGEST + 1), "", None),
        ("whatsapp", "HELP", "", None),
        ("voice", "help", "help", None),
    ],
)
def test_help_is_asked_for_on_sms_by_one_word(channel, text, intent, found) -> None:
    assert help_request_in(channel, text, intent) == found
