"""Choices below a message: what is accepted, the form that fits, and numbers for channels without one."""

from __future__ import annotations

import pytest

from channels_out import choices
from channels_out.adapters.messenger import MessengerAdapter
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.choices import Choice, InvalidChoicesError, read_choices

SIZES = ["Small", "Large"]


def form(adapter, *options, **more):
    found = choices.form_of(read_choices(list(options), **more), adapter.choice_forms)
    return found.name if found else ""


def test_titles_and_objects_are_read():
    read = read_choices(["Small", {"title": " Very\nlarge ", "id": "xl", "description": "for  two"}], "Sizes")
    assert read.options == (Choice("Small", "Small"), Choice("xl", "Very large", "for two"))
    assert read.as_json() == {
        "options": [
            {"id": "Small", "title": "Small"},
            {"id": "xl", "title": "Very large", "description": "for two"},
        ],
        "label": "Sizes",
    }
    assert choices.choices_from_json(read.as_json()) == read


@pytest.mark.parametrize(
    ("options", "label", "sentence"),
    [
        ([], "", "choices must be a list of 1 to 10."),
        ("Small", "", "choices must be a list of 1 to 10."),
        (SIZES * 6, "", "choices must be a list of 1 to 10."),
        ([1], "", "A choice must be a string, or an object with a title."),
        ([{"id": "x"}], "", "title must be a string that is not blank."),
        ([{"title": "  "}], "", "title must be a string that is not blank."),
        ([{"title": "x" * 73}], "", "title must have at most 72 characters."),
        ([{"title": "x", "id": 7}], "", "id must be a string that is not blank."),
        ([{"title": "x", "url": "y"}], "", "A choice has no field 'url'; it has id, title, description."),
        (["Small", "small"], "", "Each choice needs a title of its own."),
        ([{"title": "a", "id": "1"}, {"title": "b", "id": "1"}], "", "Each choice needs a id of its own."),
        (SIZES, "x" * 21, "label must have at most 20 characters."),
    ],
)
def test_what_cannot_be_offered_is_refused_with_a_sentence(options, label, sentence):
    with pytest.raises(InvalidChoicesError) as refused:
        read_choices(options, label)
    assert str(refused.value) == sentence


def test_a_program_s_own_metadata_is_no_choice():
    for stored in (None, "x", [], {}, {"options": "x"}, {"options": [{"title": 1}]}):
        assert choices.choices_from_json(stored) is None


def test_the_form_is_the_first_that_all_choices_fit():
    assert form(WhatsAppAdapter(), "a", "b", "c") == "button"
    assert form(WhatsAppAdapter(), "a", "b", "c", "d") == "list"
    assert form(WhatsAppAdapter(), "x" * 21) == "list"
    assert form(WhatsAppAdapter(), {"title": "a", "description": "b"}) == "list"
    assert form(WhatsAppAdapter(), "x" * 25) == ""
    assert form(MessengerAdapter(), *"abcdefghij") == "quick_reply"
    assert form(MessengerAdapter(), {"title": "a", "description": "b"}) == ""


def test_numbers_list_the_choices_and_are_read_again():
    read = read_choices(["Small", {"title": "Large", "description": "for two"}])
    assert choices.with_numbers("Which size?\n", read) == "Which size?\n\n1. Small\n2. Large: for two"
    assert choices.with_numbers("Hello", None) == "Hello"
    for text in ("2", " 2 ", "2.", "(2)", "#2", "[keys] 2"):
        assert choices.number_in(text) == 2
    for text in ("two", "2 please", "222", "2-1", "", "٢"):
        assert choices.number_in(text) is None
    assert [choices.chosen(read, number) for number in (0, 2, 3)] == [None, read.options[1], None]
