"""Sentences that plainly say STOP, and words of politeness around a word or sentence, which change nothing.

They are compared without case, accents and signs.
"""

from __future__ import annotations

POLITE: dict[str, tuple[str, ...]] = {
    "en": ("please", "pls", "plz", "thanks", "thank you", "thx", "hi", "hello", "now"),
    "es": ("por favor", "porfa", "gracias", "hola", "ya"),
    "pt": ("por favor", "obrigado", "obrigada", "olá"),
    "fr": ("s'il vous plaît", "s'il te plaît", "svp", "merci", "bonjour"),
    "de": ("bitte", "danke", "vielen dank", "hallo"),
    "it": ("per favore", "per piacere", "grazie", "ciao"),
    "nl": ("alstublieft", "alsjeblieft", "aub", "bedankt", "dank u"),
    "pl": ("proszę", "dziękuję"),
    "tr": ("lütfen", "teşekkürler"),
    "ru": ("пожалуйста", "спасибо"),
    "ar": ("من فضلك", "رجاء", "شكرا"),
    "hi": ("कृपया", "धन्यवाद"),
    "id": ("tolong", "mohon", "terima kasih"),
    "zh": ("请", "谢谢", "請", "謝謝"),
    "ja": ("お願いします", "ありがとう"),
}
STOP_SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        *("remove me", "remove me from your list", "remove me from this list", "remove me from the list"),
        *("take me off your list", "take me off this list", "take me off the list", "remove my number"),
        *("unsubscribe me", "opt me out", "i want to unsubscribe", "i want to opt out", "i would like to unsubscribe"),
        *("stop texting me", "stop messaging me", "stop texting", "stop messaging", "stop contacting me"),
        *("stop sending me messages", "stop sending me texts", "stop sending messages", "stop these messages"),
        *("do not text me", "don't text me", "do not message me", "don't message me", "do not contact me"),
        *("don't contact me", "do not text me again", "don't text me anymore", "no more messages", "no more texts"),
    ),
    "es": (
        *("no me envíe más mensajes", "no me envíen más mensajes", "no me envíes más mensajes", "no más mensajes"),
        *("no quiero recibir más mensajes", "no quiero más mensajes", "no me escriban más", "no me escriba más"),
        *("deje de escribirme", "dejen de escribirme", "deja de escribirme", "elimíneme de su lista"),
        *("elimínenme de su lista", "bórreme de su lista", "bórrenme de la lista", "quíteme de la lista"),
        *("quiero darme de baja", "dame de baja", "deme de baja", "denme de baja"),
    ),
    "pt": (
        *("não me envie mais mensagens", "não me enviem mais mensagens", "não quero mais mensagens"),
        *("não quero receber mais mensagens", "pare de me enviar mensagens", "parem de me enviar mensagens"),
        *("me remova da lista", "remova-me da lista", "me tire da lista", "quero descadastrar"),
    ),
    "fr": (
        *("ne m'envoyez plus de messages", "je ne veux plus recevoir de messages", "je ne veux plus de messages"),
        *("arrêtez de m'écrire", "arrêtez de m'envoyer des messages", "ne m'écrivez plus", "désabonnez-moi"),
        *("retirez-moi de votre liste", "supprimez-moi de votre liste", "je veux me désabonner"),
    ),
    "de": (
        *("keine nachrichten mehr", "ich möchte keine nachrichten mehr", "ich will keine nachrichten mehr"),
        *("schreiben sie mir nicht mehr", "schreib mir nicht mehr", "ich möchte mich abmelden"),
        *("nehmen sie mich von der liste", "streichen sie mich von der liste", "melden sie mich ab"),
    ),
    "it": (
        *("non inviatemi più messaggi", "non mi mandate più messaggi", "non voglio più messaggi"),
        *("non voglio più ricevere messaggi", "basta messaggi", "smettete di scrivermi", "non scrivetemi più"),
        *("rimuovetemi dalla lista", "toglietemi dalla lista", "cancellatemi dalla lista"),
    ),
    "nl": (
        *("geen berichten meer", "stuur mij geen berichten meer", "stuur me geen berichten meer"),
        *("haal mij van de lijst", "verwijder mij van de lijst", "ik wil mij afmelden", "ik wil me afmelden"),
    ),
    "pl": (
        *("nie chcę więcej wiadomości", "nie pisz do mnie więcej", "nie piszcie do mnie więcej"),
        *("usuń mnie z listy", "usuńcie mnie z listy", "wypisz mnie", "wypiszcie mnie"),
    ),
    "tr": (
        *("mesaj göndermeyin", "artık mesaj göndermeyin", "bana mesaj atmayın", "bana mesaj göndermeyin"),  # noqa: RUF001
        *("beni listeden çıkarın", "abonelikten çıkmak istiyorum"),  # noqa: RUF001
    ),
    "ru": (
        *("не пишите мне", "не пишите мне больше", "больше не пишите", "больше не пишите мне"),
        *("удалите меня из списка", "отпишите меня", "хочу отписаться", "я хочу отписаться"),
    ),
    "ar": ("لا ترسلوا لي رسائل", "توقف عن إرسال الرسائل", "احذفني من القائمة", "أريد إلغاء الاشتراك"),
    "hi": ("मुझे संदेश मत भेजो", "मुझे मैसेज मत भेजो", "संदेश भेजना बंद करें", "मैसेज भेजना बंद करें"),
    "id": (
        *("jangan kirim pesan lagi", "berhenti kirim pesan", "berhenti mengirim pesan", "berhenti berlangganan"),
        *("hapus saya dari daftar", "saya mau berhenti berlangganan"),
    ),
    "zh": ("不要再发了", "别再发了", "不要再发消息", "不要再发短信", "请停止", "请退订", "不要再發了", "請停止"),
    "ja": (
        "停止してください",
        "配信を停止してください",
        "もう送らないで",
        "もう送らないでください",
        "送らないでください",
    ),
}
