"""A model's Markdown in the form that each channel shows or says, and where it may be divided."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels_out import registry
from channels_out.formatting import LONGEST_TEXT, Formatting, formatted
from channels_out.kinds import Channel
from channels_out.splitting import UNITS, split

WHATSAPP, PLAIN, SPEECH = Formatting

CASES = [
    ("Hello Ann", "Hello Ann", "Hello Ann", "Hello Ann"),
    ("**Total:** 120", "*Total:* 120", "Total: 120", "Total: 120"),
    ("a *quiet* word", "a _quiet_ word", "a quiet word", "a quiet word"),
    ("***both***", "_*both*_", "both", "both"),
    ("~~old~~ new", "~old~ new", "old new", "old new"),
    ("Run `ls` now", "Run `ls` now", "Run ls now", "Run ls now"),
    ("# Next\nSign", "*Next*\n\nSign", "Next\n\nSign", "Next.\n\nSign"),
    ("[Pay](https://x.example/y)", "Pay: https://x.example/y", "Pay: https://x.example/y", "Pay"),
    ("**[Pay](https://x.example)**", "Pay: https://x.example", "Pay: https://x.example", "Pay"),
    ("<https://x.example/y>", "https://x.example/y", "https://x.example/y", "x.example"),
    ("[ann@x.example](mailto:ann@x.example)", "ann@x.example", "ann@x.example", "ann@x.example"),
    ("![A roof](https://x.example/r.png)", *["A roof: https://x.example/r.png"] * 2, "A roof"),
    ("* a\n* b\n  * c", "- a\n- b\n  - c", "- a\n- b\n  - c", "a.\nb.\nc."),
    ("3. a\n4. b", "3. a\n4. b", "3. a\n4. b", "3. a.\n4. b."),
    ("> said", "> said", "said", "said"),
    ("```py\na*b*c\n```", "```\na*b*c\n```", "a*b*c", "a*b*c"),
    ("| a | b |\n|---|---|\n| 1 | **2** |", "a | b\n1 | *2*", "a | b\n1 | 2", "a, b.\n1, 2."),
    ("One\n\n---\n\nTwo", "One\n\nTwo", "One\n\nTwo", "One\n\nTwo"),
    ("**two\nlines**", "*two*\n*lines*", "two\nlines", "two\nlines"),
    # what WhatsApp would not show as a mark gets none
    ("这是**重要**的", *["这是重要的"] * 3),
    ("un**believ**able", *["unbelievable"] * 3),
    # no Markdown, though it looks like it
    *((text, text, text, text) for text in ("2*3*4 = 24", "2**3**2", "snake_case_name", "5 * 3", "<b>no HTML</b>")),
    *(
        (text, text, text, text)
        for text in ("  as   it\n\n\n is ", "    indented", "[1]: https://x.example", "#1 choice")
    ),
    ("[x](javascript:alert(1))", *["[x](javascript:alert(1))"] * 3),
    (">" * 40 + " **deep**", *[">" * 40 + " **deep**"] * 3),
    ("\ufdd0**a**\ufdd1", "*a*", "a", "a"),
    ("**a** " * LONGEST_TEXT, *["**a** " * LONGEST_TEXT] * 3),
]


@pytest.mark.parametrize("case", CASES, ids=[repr(case[0][:20]) for case in CASES])
def test_markdown_becomes_what_the_channel_shows_or_says(case):
    text, *wanted = case
    assert [formatted(text, each).text for each in Formatting] == wanted


def test_each_provider_has_its_channels_formatting():
    found = {(each.channel, each.formatting) for each in registry.ADAPTERS}
    others = {(channel, PLAIN) for channel in Channel if channel not in (Channel.WHATSAPP, Channel.VOICE)}
    assert found == {(Channel.WHATSAPP, WHATSAPP), (Channel.VOICE, SPEECH), *others}


@pytest.mark.parametrize("inner", ["one two. Three four", "`code of a line`", "_one_ two. *Three*"])
@pytest.mark.parametrize("before", range(0, 60, 7))
def test_a_text_is_not_cut_inside_a_mark(before, inner):
    found = formatted(f"{'word ' * before}**{inner}** and more.", WHATSAPP)
    parts = split(found.text, 60, whole=found.whole)
    assert "".join(parts) == found.text
    assert len(parts) > 1 or before < 12
    assert all(part.count(mark) % 2 == 0 for part in parts for mark in "*_`")


def test_what_is_too_long_to_stay_whole_is_not_marked():
    for text in ("**" + "word " * 2000 + "word**", "```\n" + "word\n" * 2000 + "```"):
        found = formatted(text, WHATSAPP)
        assert (found.whole, "*" in found.text, "`" in found.text) == ((), False, False)


MARKDOWN = st.lists(
    st.sampled_from([*"**__~~>#- \n\n", "**", "`word`", "](", "[", "https://x.example", "1. ", "```\n", "é", "word"]),
    max_size=60,
).map("".join)


@example("* ~~~word", 40, min(UNITS))
@example("~~~word\nword", 40, min(UNITS))
@given(MARKDOWN, st.integers(40, 80), st.sampled_from(sorted(UNITS)))
@settings(max_examples=300, deadline=None)
def test_whatever_the_text_nothing_written_is_lost_and_the_parts_are_it(text, limit, unit):
    for formatting in Formatting:
        found = formatted(text, formatting)
        assert found.text.count("word") == text.count("word")
        assert all(begin < end <= len(found.text) for begin, end in found.whole)
        parts = split(found.text, limit, unit, found.whole)
        assert "".join(parts).split() == found.text.split()
