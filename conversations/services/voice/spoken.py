"""Phrases that callers hear and that no assistant wrote, in five languages."""

from __future__ import annotations

MOMENT = "moment"
NOT_HEARD = "not_heard"
NOT_UNDERSTOOD = "not_understood"
NO_ANSWER = "no_answer"
TROUBLE = "trouble"
GOODBYE = "goodbye"
SORRY = "sorry"
NOT_REACHED = "not_reached"

PHRASES = {
    "en": {
        MOMENT: "One moment, please.",
        NOT_HEARD: "Sorry, I did not hear anything. Are you still there?",
        NOT_UNDERSTOOD: "Sorry, I did not understand that. Could you say it again?",
        NO_ANSWER: "Sorry, this takes longer than I thought. What else can I do for you?",
        TROUBLE: "Sorry, something went wrong on our side. Could you say that again?",
        GOODBYE: "I cannot hear you, so I will hang up now. Please call again. Goodbye.",
        SORRY: "Sorry, this does not work at the moment. Please call again later.",
        NOT_REACHED: "Sorry, nobody is free to talk to you right now. What else can I do for you?",
    },
    "es": {
        MOMENT: "Un momento, por favor.",
        NOT_HEARD: "Perdone, no le he oído. ¿Sigue ahí?",
        NOT_UNDERSTOOD: "Perdone, no le he entendido. ¿Puede repetirlo?",
        NO_ANSWER: "Perdone, esto tarda más de lo que pensaba. ¿En qué más le puedo ayudar?",
        TROUBLE: "Perdone, ha habido un problema por nuestra parte. ¿Puede repetirlo?",
        GOODBYE: "No le oigo, así que voy a colgar. Vuelva a llamar, por favor. Adiós.",
        SORRY: "Perdone, ahora mismo no es posible. Vuelva a llamar más tarde, por favor.",
        NOT_REACHED: "Perdone, ahora no hay nadie disponible. ¿En qué más le puedo ayudar?",
    },
    "pt": {
        MOMENT: "Um momento, por favor.",
        NOT_HEARD: "Desculpe, não ouvi nada. Ainda está aí?",
        NOT_UNDERSTOOD: "Desculpe, não entendi. Pode repetir?",
        NO_ANSWER: "Desculpe, isto demora mais do que eu pensava. Em que mais posso ajudar?",
        TROUBLE: "Desculpe, houve um problema do nosso lado. Pode repetir?",
        GOODBYE: "Não consigo ouvir, por isso vou desligar. Por favor, ligue de novo. Até logo.",
        SORRY: "Desculpe, neste momento não é possível. Por favor, ligue mais tarde.",
        NOT_REACHED: "Desculpe, agora não há ninguém disponível. Em que mais posso ajudar?",
    },
    "fr": {
        MOMENT: "Un instant, s'il vous plaît.",
        NOT_HEARD: "Pardon, je n'ai rien entendu. Êtes-vous toujours là ?",
        NOT_UNDERSTOOD: "Pardon, je n'ai pas compris. Pouvez-vous répéter ?",
        NO_ANSWER: "Pardon, cela prend plus de temps que prévu. Que puis-je faire d'autre pour vous ?",
        TROUBLE: "Pardon, il y a eu un problème de notre côté. Pouvez-vous répéter ?",
        GOODBYE: "Je ne vous entends pas, je vais donc raccrocher. Merci de rappeler. Au revoir.",
        SORRY: "Pardon, ce n'est pas possible pour le moment. Merci de rappeler plus tard.",
        NOT_REACHED: "Pardon, personne n'est disponible pour le moment. Que puis-je faire d'autre pour vous ?",
    },
    "de": {
        MOMENT: "Einen Moment, bitte.",
        NOT_HEARD: "Entschuldigung, ich habe nichts gehört. Sind Sie noch da?",
        NOT_UNDERSTOOD: "Entschuldigung, das habe ich nicht verstanden. Können Sie es bitte wiederholen?",
        NO_ANSWER: "Entschuldigung, das dauert länger als gedacht. Was kann ich sonst für Sie tun?",
        TROUBLE: "Entschuldigung, bei uns ist etwas schiefgegangen. Können Sie das bitte wiederholen?",
        GOODBYE: "Ich höre Sie nicht und lege deshalb auf. Bitte rufen Sie noch einmal an. Auf Wiederhören.",
        SORRY: "Entschuldigung, das geht im Augenblick nicht. Bitte rufen Sie später noch einmal an.",
        NOT_REACHED: "Entschuldigung, im Augenblick ist niemand frei. Was kann ich sonst für Sie tun?",
    },
}


def phrase(name: str, language: str) -> str:
    """Return the phrase in the language of a tag such as "es-MX", else in English; '' for the name ''."""
    return PHRASES.get(language.partition("-")[0].lower(), PHRASES["en"])[name] if name else ""
