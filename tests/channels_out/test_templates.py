"""Templates: what they must be given, what is sent, and what the person reads."""

from __future__ import annotations

import pytest

from channels_out import templates
from channels_out.simulators import whatsapp
from channels_out.templates import InvalidTemplateError, TemplateValues, fill, needs_of, read_listed, read_values

BODY = {"type": "BODY", "text": "Hello {{1}}, your order {{2}} is on its way."}
LINK = "https://shop.example/invoice.pdf"


def components(**parts):
    return read_listed(whatsapp.template("order_update", **{"body": BODY["text"], **parts})).components


def body(*values):
    return {"type": "body", "parameters": [{"type": "text", "text": each} for each in values]}


def button(kind, index, parameter):
    return {"type": "button", "sub_type": kind, "index": str(index), "parameters": [parameter]}


def test_the_body_s_variables_are_filled_in_order():
    filled = fill([BODY], read_values({"variables": ["Ana", 4711]}))
    assert filled.components == (body("Ana", "4711"),)
    assert filled.text == "Hello Ana, your order 4711 is on its way."


def test_named_variables_are_sent_by_their_names():
    named = [{"type": "BODY", "text": "Hello {{first_name}}!"}]
    filled = fill(named, read_values({"variables": {"first_name": "Ana\n  Maria"}}))
    assert filled.components[0]["parameters"] == [
        {"type": "text", "parameter_name": "first_name", "text": "Ana Maria"}
    ], "Meta takes no line breaks in a value"
    assert filled.text == "Hello Ana Maria!"


def test_header_footer_and_buttons_are_read_too():
    parts = components(
        header={"format": "DOCUMENT"},
        footer="The shop",
        buttons=[
            {"type": "URL", "text": "Track", "url": "https://shop.example/{{1}}"},
            {"type": "QUICK_REPLY", "text": "Where is it?"},
            {"type": "PHONE_NUMBER", "text": "Call us", "phone_number": "+51999999999"},
        ],
    )
    assert needs_of(parts) == templates.TemplateNeeds(("1", "2"), "document", (True, False, False))
    given = {
        "variables": ["Ana", "4711"],
        "header": {"link": LINK, "filename": "Invoice.pdf"},
        "buttons": ["4711", "where"],
    }
    filled = fill(parts, read_values(given))
    assert filled.components == (
        {"type": "header", "parameters": [{"type": "document", "document": {"link": LINK, "filename": "Invoice.pdf"}}]},
        body("Ana", "4711"),
        {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "4711"}]},
        {
            "type": "button",
            "sub_type": "quick_reply",
            "index": "1",
            "parameters": [{"type": "payload", "payload": "where"}],
        },
    )
    assert filled.text == "[document] Invoice.pdf\n\nHello Ana, your order 4711 is on its way.\n\nThe shop"
    assert filled.buttons == ("Track", "Where is it?", "Call us")


def test_a_header_s_variable_is_filled():
    parts = components(header={"format": "TEXT", "text": "Order {{1}}"}, body="It is here.")
    filled = fill(parts, TemplateValues(header="4711"))
    assert filled.components == ({"type": "header", "parameters": [{"type": "text", "text": "4711"}]},)
    assert filled.text == "Order 4711\n\nIt is here."


CODE = [
    {"type": "BODY", "text": "{{1}} is your code."},
    {"type": "BUTTONS", "buttons": [{"type": "OTP", "text": "Copy"}]},
]
TOO_LONG = "The template's text would be longer than 1,024 characters."
PICTURE = [{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Look!"}]
PLACE = [{"type": "HEADER", "format": "LOCATION"}, {"type": "BODY", "text": "Here"}]


@pytest.mark.parametrize(
    ("parts", "given", "field", "sentence"),
    [
        ([BODY], {}, "variables", "The template's variable 1 has no value."),
        ([BODY], {"variables": ["Ana"]}, "variables", "The template's variable 2 has no value."),
        ([BODY], {"variables": ["Ana", " "]}, "variables", "The template's variable 2 has no value."),
        ([BODY], {"variables": ["Ana", "1", "2"]}, "variables", "The template has no variable 3."),
        ([BODY], {"variables": ["Ana", "1"], "header": "x"}, "header", "The template's header has no variable."),
        ([BODY], {"variables": ["Ana", "1"], "buttons": ["x"]}, "buttons", "The template has 0 buttons."),
        ([BODY], {"variables": ["Ana", {}]}, "variables", "variables: every value must be a text or a number."),
        ([BODY], {"variables": "Ana"}, "variables", "variables must be a list or an object of texts."),
        ([BODY], {"variables": ["x" * 4001, "1"]}, "variables", "variables: a value has at most 4,000 characters."),
        (CODE, {"variables": ["1234"]}, "buttons", "The template's button 1 needs a value."),
        (
            CODE,
            {"variables": ["x" * 1020], "buttons": ["1"]},
            "variables",
            "The template's text would be longer than 1,024 characters.",
        ),
        (PICTURE, {}, "header", "The template needs the https link of its image as header."),
        (PICTURE, {"header": "http://x"}, "header", "The template needs the https link of its image as header."),
        (PLACE, {}, "header", "A header of the kind location cannot be sent from here."),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(parts, given, field, sentence):
    with pytest.raises(InvalidTemplateError) as refused:
        fill(parts, read_values(given))
    assert (refused.value.field, str(refused.value)) == (field, sentence)


def test_a_listed_template_is_read_without_its_examples():
    listed = whatsapp.template("news", "Hello {{1}}", status="REJECTED", reason="TAG_CONTENT_MISMATCH", quality="RED")
    listed["components"][0]["example"] = {"body_text": [["Ana"]]}
    read = read_listed(listed)
    assert (read.name, read.language, read.status, read.category) == ("news", "en_US", "REJECTED", "UTILITY")
    assert (read.quality, read.reason) == ("RED", "TAG_CONTENT_MISMATCH")
    assert read.components == ({"type": "BODY", "text": "Hello {{1}}"},)


@pytest.mark.parametrize("item", [None, [], {}, {"name": "x"}, {"name": 1, "language": "en"}, {"language": "en"}])
def test_what_is_no_template_is_left_out(item):
    assert read_listed(item) is None


def test_components_of_any_shape_are_read():
    odd = {
        "name": "x",
        "language": "en",
        "status": 7,
        "components": [None, 1, {"type": "BODY"}, {"type": "BUTTONS", "buttons": 1}],
    }
    assert read_listed(odd).components == ({"type": "BODY"}, {"type": "BUTTONS"})
    assert fill(read_listed(odd).components, TemplateValues()).text == ""
