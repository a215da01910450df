"""Opt-out words: STOP and others by which a person wants no more messages, or wants them again (START).

A word counts only if it is the whole message: alone, repeated, or with words of politeness ("please stop", "Stop. Thank
you"); so does a sentence that plainly says it ("remove me from your list"). The channels' rules differ: carriers
prescribe the words on SMS and one message of confirmation (CTIA, Messaging Principles and Best Practices); WhatsApp and
Messenger require that an opt-out is respected, and no confirmation. There are no such words in calls, where people hang
up, and for devices, to which "stop" means "be quiet".
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import regex

from channels_out.kinds import Channel
from channels_out.opt_out_sentences import POLITE, STOP_SENTENCES

LONGEST = 40  # characters; no word is longer
LONGEST_SENTENCE = 120

_STOP: dict[str, tuple[str, ...]] = {
    "en": ("stop", "stop all", "stopall", "unsubscribe", "opt out", "optout", "opt-out", "revoke"),
    "es": ("parar", "alto", "baja", "darme de baja", "cancelar suscripción", "no enviar más"),
    "pt": ("pare", "sair", "descadastrar", "cancelar inscrição"),
    "fr": ("arrêt", "arrêter", "désabonner", "me désabonner", "désinscrire", "stopper"),
    "de": ("stopp", "abmelden", "abbestellen"),
    "it": ("ferma", "disiscrivi", "disiscrivimi", "cancellami"),
    "nl": ("afmelden", "uitschrijven"),
    "pl": ("wypisz", "rezygnuję"),
    "tr": ("durdur", "abonelikten çık", "iptal et"),  # noqa: RUF001 - Turkish has an i without a dot
    "ru": ("стоп", "отписаться"),
    "ar": ("توقف", "إيقاف", "إلغاء الاشتراك"),
    "hi": ("रोकें", "बंद करें"),
    "id": ("berhenti",),
    "zh": ("停止", "退订", "取消订阅", "退訂"),
    "ja": ("停止", "配信停止"),
}
# Carriers treat these as STOP; on other channels they may concern an order, or end a chat.
_STOP_ON_SMS: dict[str, tuple[str, ...]] = {
    "en": ("cancel", "end", "quit"),
    "es": ("cancelar", "fin"),
    "pt": ("cancelar",),
    "fr": ("fin",),
}
_START: dict[str, tuple[str, ...]] = {
    "en": ("start", "unstop", "subscribe", "resume", "opt in", "optin", "opt-in"),
    "es": ("iniciar", "empezar", "alta", "suscribirme"),
    "pt": ("iniciar", "voltar", "inscrever"),
    "fr": ("démarrer", "reprendre", "m'abonner"),
    "de": ("starten", "anmelden"),
    "it": ("inizia", "iscrivimi"),
    "nl": ("aanmelden", "inschrijven"),
    "pl": ("zapisz",),
    "tr": ("başlat",),
    "ru": ("старт", "подписаться"),
    "ar": ("ابدأ", "اشتراك"),
    "hi": ("शुरू", "शुरू करें"),
    "id": ("mulai",),
    "zh": ("开始", "订阅", "開始"),
    "ja": ("開始", "再開"),
}
# By these words people ask, by the carriers' rules, who writes to them and how to stop that.
_HELP = frozenset({"help", "info", "ayuda", "aide", "ajuda"})
HELP_TEXT = "{business}: write your question here and we answer. Reply STOP to get no more messages."
# {business} is the client's name. START counts in every language.
_STOPPED = {
    "en": "You will get no more messages from {business}. Reply START to get them again.",
    "es": "No recibirá más mensajes de {business}. Responda START para recibirlos de nuevo.",
    "pt": "Você não receberá mais mensagens de {business}. Responda START para voltar a recebê-las.",
    "fr": "Vous ne recevrez plus de messages de {business}. Répondez START pour en recevoir à nouveau.",
    "de": "Sie erhalten keine Nachrichten von {business} mehr. Antworten Sie START, um sie wieder zu erhalten.",
    "it": "Non riceverà più messaggi da {business}. Risponda START per riceverli di nuovo.",
}
_STARTED = {
    "en": "You will get messages from {business} again. Reply STOP to end them.",
    "es": "Volverá a recibir mensajes de {business}. Responda STOP para no recibirlos.",
    "pt": "Você voltará a receber mensagens de {business}. Responda STOP para não recebê-las.",
    "fr": "Vous recevrez à nouveau des messages de {business}. Répondez STOP pour ne plus en recevoir.",
    "de": "Sie erhalten wieder Nachrichten von {business}. Antworten Sie STOP, um sie zu beenden.",
    "it": "Riceverà di nuovo messaggi da {business}. Risponda STOP per non riceverne più.",
}

_SIGNS = regex.compile(r"[\p{P}\p{S}\s]+")
_AROUND = regex.compile(r"^[\p{P}\p{S}\s]+|[\p{P}\p{S}\s]+$")


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """A person's opt-out (`stop`) or opt-in. `language` is that of the word; `confirmed` is True if the provider has
    confirmed the change to the person."""

    stop: bool
    word: str
    language: str = "en"
    confirmed: bool = False

    def confirmation(self, channel: str, business: str) -> str:
        """Return the text that confirms the change, '' if the channel's rules require none."""
        if channel not in CONFIRMED_CHANNELS or self.confirmed:
            return ""
        texts = _STOPPED if self.stop else _STARTED
        return texts.get(self.language, texts["en"]).format(business=business)


@dataclass(frozen=True, slots=True)
class HelpRequest:
    """A person's HELP, which carriers want answered with a fixed text. `answered`: the provider has done so."""

    answered: bool = False


CONFIRMED_CHANNELS = frozenset({Channel.SMS})
HELP_CHANNELS = frozenset({Channel.SMS})
OPT_OUT_CHANNELS = frozenset({Channel.SMS, Channel.WHATSAPP, Channel.MESSENGER})


def consent_change_in(channel: str, text: str, intent: str = "") -> ConsentChange | None:
    """Return the opt-out or opt-in that the whole text is on this channel; None for every other text.

    intent: the provider's own reading; `optout` and `optin` count, whatever the words.
    """
    if channel not in OPT_OUT_CHANNELS:
        return None
    if intent in ("optout", "optin"):
        return ConsentChange(intent == "optout", text[:LONGEST], confirmed=True)
    if len(text) > LONGEST_SENTENCE:
        return None
    found = _BY_WORD[channel].get(_folded(text)) if len(text) <= LONGEST else None
    return found or _stop_in_sentence(text)


def help_request_in(channel: str, text: str, intent: str = "") -> HelpRequest | None:
    """Return the HELP that the whole text is on this channel; None for every other text.

    intent: the provider's own reading; `help` means that it has answered.
    """
    if channel not in HELP_CHANNELS:
        return None
    if intent == "help":
        return HelpRequest(answered=True)
    return HelpRequest() if len(text) <= LONGEST and _folded(text) in _HELP else None


def _stop_in_sentence(text: str) -> ConsentChange | None:
    """Return the opt-out that the text plainly is: a sentence, or a word that is repeated or politely put."""
    words: list[str] = []
    for each in text.split():
        for word in _words(each):
            if word not in _VOCABULARY:  # as in nearly every message, at its first words
                return None
            words.append(word)
    rest = _without_politeness(words)
    if found := _BY_SENTENCE.get(" ".join(rest)):
        return found
    is_repeated = len(rest) > 1 and len(set(rest)) == 1
    if not is_repeated and len(rest) == len(words):
        return None
    return _STOP_WORDS.get(rest[0] if is_repeated else " ".join(rest))


def _without_politeness(words: list[str]) -> list[str]:
    """Return the words without those of politeness at the beginning and at the end."""
    while size := _polite_at(words, from_end=False):
        words = words[size:]
    while size := _polite_at(words, from_end=True):
        words = words[:-size]
    return words


def _polite_at(words: list[str], *, from_end: bool) -> int:
    """Return how many of the first or last words are one expression of politeness, 0 if none."""
    for size in range(1, _LONGEST_POLITE + 1):
        if " ".join(words[-size:] if from_end else words[:size]) in _POLITENESS:
            return min(size, len(words))
    return 0


def _words(text: str) -> list[str]:
    """Return the words without case, accents and signs."""
    plain = text.strip(",.!?")
    if plain.isascii() and plain.isalpha():  # nearly always, and the rest is slow
        return [plain.lower()]
    words: list[str] = _SIGNS.sub(" ", _folded(text)).split()
    return words


def _folded(text: str) -> str:
    """Return the words without case, accents, and the signs and blanks around them."""
    bare = _AROUND.sub("", text.casefold())
    decomposed = unicodedata.normalize("NFKD", bare)
    return " ".join("".join(each for each in decomposed if not unicodedata.combining(each)).split())


def _changes_by_word(channel: Channel) -> dict[str, ConsentChange]:
    """Return every word of the channel. A word that two languages share belongs to the first."""
    found: dict[str, ConsentChange] = {}
    tables = [(True, _STOP), (True, _STOP_ON_SMS if channel == Channel.SMS else {}), (False, _START)]
    for stop, table in tables:
        for language, words in table.items():
            for word in words:
                found.setdefault(_folded(word), ConsentChange(stop, word, language))
    return found


_BY_WORD: dict[str, dict[str, ConsentChange]] = {channel: _changes_by_word(channel) for channel in OPT_OUT_CHANNELS}


def _stops_by_words(table: dict[str, tuple[str, ...]]) -> dict[str, ConsentChange]:
    """Return the opt-outs of the table by their words without signs."""
    found: dict[str, ConsentChange] = {}
    for language, texts in table.items():
        for each in texts:
            found.setdefault(" ".join(_words(each)), ConsentChange(True, each[:LONGEST], language))
    return found


_STOP_WORDS, _BY_SENTENCE = _stops_by_words(_STOP), _stops_by_words(STOP_SENTENCES)
_POLITENESS = {" ".join(_words(each)) for those in POLITE.values() for each in those}
_VOCABULARY = {word for each in (*_STOP_WORDS, *_BY_SENTENCE, *_POLITENESS) for word in each.split()}
_LONGEST_POLITE = max(len(each.split()) for each in _POLITENESS)
