"""Chooses PostgreSQL's text search configuration for a text. Pure functions."""

from __future__ import annotations

import regex

DEFAULT = "simple"  # words as they are, without their endings cut off

# By language tag (ISO 639-1). PostgreSQL 15 and newer bring all of these.
CONFIGURATIONS = {
    "ar": "arabic",
    "hy": "armenian",
    "eu": "basque",
    "ca": "catalan",
    "da": "danish",
    "nl": "dutch",
    "en": "english",
    "fi": "finnish",
    "fr": "french",
    "de": "german",
    "el": "greek",
    "hi": "hindi",
    "hu": "hungarian",
    "id": "indonesian",
    "ga": "irish",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "no": "norwegian",
    "nb": "norwegian",
    "nn": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "es": "spanish",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
KNOWN = (DEFAULT, *sorted(set(CONFIGURATIONS.values())))

# Scripts that stand for one language: (nearly) none of the other configurations uses them.
_SCRIPTS = [
    (regex.compile(r"\p{Cyrillic}"), "russian"),
    (regex.compile(r"\p{Arabic}"), "arabic"),
    (regex.compile(r"\p{Greek}"), "greek"),
    (regex.compile(r"\p{Devanagari}"), "hindi"),
    (regex.compile(r"\p{Tamil}"), "tamil"),
    (regex.compile(r"\p{Armenian}"), "armenian"),
]
# Frequent small words, of the most common languages that are written in Latin letters.
_SMALL_WORDS = {
    "english": "the you and is are my it to of have what can please this that for with not would when your hello",
    "german": "ich und die der das ist nicht sie mein wie wann bitte ein eine habe mit für auf kann hallo noch wir",
    "french": "je le la les est et vous mon ma une des pas pour avec que qui bonjour merci dans suis sur votre",
    "spanish": "el la los que es en mi por para con una no me hola gracias está cuando como puede quiero del usted",
    "italian": "il che di è non per mi con una sono ciao grazie della quando come posso mio gli anche vorrei questo",
    "portuguese": "o que não é meu minha para com uma olá obrigado quando como está você eu do da em por isso",
    "dutch": "ik de het een en is niet mijn van wat kan met voor hallo wanneer heb je dat bestelling graag bent",
}
_VOCABULARY = {name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()}
_WORD = regex.compile(r"\p{L}+")

SAMPLE = 20_000  # characters of a text; more do not change the answer
ENOUGH = 2  # small words that must occur, and by which one language must lead
SCRIPT_SHARE = 0.3  # of the letters, for a script to decide


def configuration(tag: str, text: str) -> str:
    """Return the configuration for a language tag ("de", "de-AT", "pt_BR"), or else the one guessed from `text`.

    Returns "simple" if neither the tag nor the text names a known language.
    """
    primary = tag.replace("_", "-").partition("-")[0].lower()
    return CONFIGURATIONS.get(primary) or guess(text)


def guess(text: str) -> str:
    """Return the configuration guessed from the script of `text`, or else from its small words."""
    sample = text[:SAMPLE]
    words = _WORD.findall(sample.lower())
    letters = sum(map(len, words))
    for script, name in _SCRIPTS:
        if len(script.findall(sample)) > SCRIPT_SHARE * max(letters, 1):
            return name
    counts = sorted(((sum(word in known for word in words), name) for name, known in _VOCABULARY.items()), reverse=True)
    (most, name), (second, _) = counts[:2]
    return name if most >= ENOUGH and most - second >= ENOUGH else DEFAULT
