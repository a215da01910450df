"""The catalogues of `locale/`: complete, up to date, and true to the placeholders of what they translate."""

from __future__ import annotations

import ast
import os
import re
from textwrap import dedent

import pytest
from babel.messages.catalog import Catalog
from django.test import Client as HttpClient
from django.utils import translation
from django.utils.translation import trans_real

from convo_project import catalogues, env, languages
from tests import unmarked
from tests.unwrapped import sentences

PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w*\}")
MARKUP = re.compile(r"</?(\w+)")
OURS = [code.replace("-", "_") for code, _ in languages.found()[1:]]
# Templates that are no pages of the back office: documents for people elsewhere.
NOT_TRANSLATED = {"exports/person.html", "exports/session.html", "exports/entries.html", "exports/begin.html"}
# What people read in code and is not marked, by path and words, with the reason: others read it.
ENGLISH = {
    "api/": "the API is in English",
    "http/own_webhook.py": "the API is in English",
    "services/core/idempotency.py": "the API is in English",
    "services/tenants/api_keys.py: This API key does not have": "the API is in English",
    "services/tenants/quotas.py": "programs that pass messages on",
    "services/inbound/messages.py": "programs that pass messages on",
    "services/voice/calls.py": "providers' calls",
    "services/agent_sync/": "agents, by the sync protocol",
    "services/replies/late_replies.py": "a client's own agent",
    "services/copilot/": "the API is in English; the panel says it by the code, in its user's language",
    "services/tenants/servers.py": "whoever runs commands",
    "services/tenants/cluster_role.py": "whoever runs commands",
    "services/staff_actions/seed_helpers.py": "whoever runs commands",
    "engines/tool_schemas.py: it does not match": "models",
    "apps.py: Convo": "a name",
}
# Modules whose every phrase is shown, and what in them is not.
SHOWN = [
    *("jobs/forecast", "jobs/ageing", "jobs/upcoming", "jobs/overdue", "core/durations"),
    *("tenants/model_endings", "tenants/day_quotas", "media/shown"),
    *(
        "history/search",
        "history/beside",
        "replies/failures",
        "copilot/failures",
        "simulator/phone",
        "contacts/details",
    ),
]
NOT_SHOWN = {
    "media/shown: not fetched yet": "documents",
    "history/beside: {} offered the choices {}": "models",
}


@pytest.fixture(scope="module")
def collected():
    return {domain: catalogues.collected(domain) for domain in ("django", "djangojs")}


def catalogue_of(locale, domain):
    [folder] = [each for each in languages.FOLDER.iterdir() if each.name.lower() == locale.lower()]
    return catalogues.read(folder / "LC_MESSAGES" / f"{domain}.po")


def test_spanish_and_portuguese_are_there():
    assert [code for code, _ in languages.found()] == ["en", "es", "pt-br"]


@pytest.mark.parametrize("domain", ["django", "djangojs"])
@pytest.mark.parametrize("locale", OURS)
def test_each_sentence_is_translated_and_none_is_left_over(collected, locale, domain):
    catalogue = catalogue_of(locale, domain)
    known = {(each.context, catalogues.key_of(each.id)): each for each in catalogue if each.id}
    said = {(each.context, catalogues.key_of(each.id)) for each in collected[domain] if each.id}
    assert said - set(known) == set(), "make messages"
    assert set(known) - said == set(), "nobody says this any more: make messages"
    assert [key for key, each in known.items() if not catalogues.is_translated(each)] == []


@pytest.mark.parametrize("domain", ["django", "djangojs"])
@pytest.mark.parametrize("locale", OURS)
def test_a_translation_has_the_placeholders_and_the_markup_of_its_sentence(locale, domain):
    wrong = []
    for each in catalogue_of(locale, domain):
        if not each.id:
            continue
        originals = each.id if isinstance(each.id, tuple) else (each.id, each.id)
        translated = each.string if isinstance(each.string, tuple) else (each.string, each.string)
        for original, text in zip(originals, translated, strict=True):
            same = all(
                sorted(found.findall(original)) == sorted(found.findall(text)) for found in (PLACEHOLDER, MARKUP)
            )
            ends = original[-1:] in ".?…:" and original[-1:] != text[-1:]
            if not same or ends or original.startswith("\n") != text.startswith("\n"):
                wrong.append((original, text))
    assert wrong == []


def test_every_sentence_of_a_template_is_marked():
    folder = env.PROJECT / "templates"
    raw = [
        f"{path.relative_to(folder)}: {each.text}"
        for path in sorted(folder.rglob("*.html"))
        if str(path.relative_to(folder)) not in NOT_TRANSLATED
        for each in sentences(path.read_text())
    ]
    units = [each for each in raw if re.fullmatch(r"\W* ?ms", each.partition(": ")[2].replace("\ue002", ""))]
    assert sorted(set(raw) - set(units)) == []


def test_what_is_unmarked_is_found():
    source = (
        '<p>{% if a %}Go on{% endif %} <b title="Now">{{ n }} left</b></p>{% translate "no" %}<i>{# not this #}</i>'
    )
    assert [each.text.replace("\ue002", "").strip() for each in sentences(source)] == ["Go on", "Now", "left"]


def test_every_sentence_of_a_module_is_marked():
    folder = env.PROJECT / "conversations"
    raw = [
        f"{name}: {words}"
        for path in sorted(folder.rglob("*.py"))
        if not (name := str(path.relative_to(folder))).startswith(("migrations/", "management/", "client/"))
        for _, _, words in unmarked.sentences(path.read_text(), is_model=name.startswith("models/"))
    ]
    assert [each for each in raw if not each.startswith(tuple(ENGLISH))] == []
    assert [each for each in ENGLISH if not any(found.startswith(each) for found in raw)] == [], "not needed"


def test_every_phrase_of_the_modules_that_are_shown_is_marked():
    folder = env.PROJECT / "conversations" / "services"
    raw = [f"{name}: {words}" for name in SHOWN for _, words in unmarked.phrases((folder / f"{name}.py").read_text())]
    assert [each for each in raw if not each.startswith(tuple(NOT_SHOWN))] == []
    assert [each for each in NOT_SHOWN if not any(found.startswith(each) for found in raw)] == [], "not needed"


def test_what_is_unmarked_in_a_module_is_found():
    source = '''
        """A docstring."""
        TAKEN = "The name is taken."
        REFUSALS = {"a": "You may not.", "b": gettext("marked")}
        title = "Contacts"
        class Form:
            name = Field(label="Full name", help_text=f"At most {n} letters.", widget="plain")
            column.short_description = "Last seen"
            @display(description=_("marked"))
            def save(self, request):
                messages.success(request, "It is " + "saved.")
                self.message_user(request, gettext("%(n)s are saved.") % {"n": n}, messages.SUCCESS)
                form.add_error("name", "Too long." if n else gettext("marked"))
                log.info("in the log", "no words for people")
                raise ValidationError("Write %s." % n)
        def refuse(code):
            if code:
                raise ConflictError(TAKEN, code="taken")
            raise errors.NotFoundError(REFUSALS[code]) from None
    '''
    found = [words for _, _, words in unmarked.sentences(dedent(source))]
    assert sorted(found) == [
        *("At most {} letters.", "Contacts", "Full name", "It is ", "Last seen"),
        *("The name is taken.", "Too long.", "Write %s.", "You may not.", "saved."),
    ]
    source = """
        def f():
            "A docstring."
            log.info("It broke off")
            return _("marked") or f"{n} days ago {x or 'not yet'}"
    """
    assert [words for _, words in unmarked.phrases(dedent(source))] == ["not yet", "{} days ago {}"]


def test_unfolds_own_words_are_translated_too():
    with translation.override("es"):
        assert str(translation.gettext("Select action to run")) == "Elegir la acción que se ejecutará"
        assert str(translation.gettext("Type to search")) == "Escriba para buscar"
    with translation.override("pt-br"):
        assert str(translation.gettext("Log out")) == "Encerrar sessão"  # Django's own, in the Portuguese of Brazil


@pytest.fixture
def made_up(tmp_path, settings):
    """A folder with a language that nobody has translated Convo into: one file is all it takes."""
    folder = tmp_path / "locale" / "qu" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    catalogue = Catalog(locale="es", charset="utf-8")
    catalogue.add("Sign in", "Yaykuy")
    catalogue.add("Back office", "Llamkana wasi")
    catalogues.write(folder / "django.po", catalogue)
    settings.LANGUAGES = languages.found(tmp_path / "locale")
    settings.LOCALE_PATHS = [tmp_path / "locale"]
    assert languages.compile_stale(tmp_path / "locale") == []
    _forget()
    yield tmp_path / "locale"
    settings.LOCALE_PATHS = [languages.FOLDER]
    _forget()


def _forget():
    trans_real._translations.clear()
    for each in vars(trans_real).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


@pytest.mark.django_db
def test_a_language_is_added_by_a_file(made_up, settings):
    assert settings.LANGUAGES == [("en", "English"), ("qu", "qu")]
    page = HttpClient().get("/", headers={"accept": "text/html", "accept-language": "qu-PE"}).content.decode()
    assert '<html lang="qu">' in page
    assert "Llamkana wasi" in page
    assert "API documentation" in page  # what is not translated yet is English


def test_catalogues_are_compiled_again_when_they_change(made_up):
    po = made_up / "qu" / "LC_MESSAGES" / "django.po"
    assert languages._stale(made_up) == []
    later = po.with_suffix(".mo").stat().st_mtime + 5
    os.utime(po, (later, later))
    assert languages._stale(made_up) == [po]


def test_a_directory_that_is_read_only_is_reported(made_up, monkeypatch):
    def refuse(**_):
        raise OSError("read-only")

    monkeypatch.setattr(languages.tempfile, "mkstemp", refuse)
    po = made_up / "qu" / "LC_MESSAGES" / "django.po"
    po.with_suffix(".mo").unlink()
    assert languages.compile_stale(made_up) == [po]


def test_a_sentence_of_a_module_is_given_all_its_values():
    """`gettext("… %(name)s …") % {"name": …}`: a name too few would be a fault that only its own page shows."""
    wrong = []
    for path in sorted((env.PROJECT / "conversations").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.right, ast.Dict)):
                continue
            call = node.left
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") in {"gettext", "_", "ngettext"}):
                continue
            names = set(re.findall(r"%\((\w+)\)s", "".join(str(ast.literal_eval(each)) for each in call.args[:1])))
            if names != {ast.literal_eval(key) for key in node.right.keys if key}:
                wrong.append(f"{path.name}:{node.lineno}: {sorted(names)}")
    assert wrong == []
