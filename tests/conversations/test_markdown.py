"""A model's Markdown, rendered so that it can do no harm."""

from __future__ import annotations

import re

import pytest

from conversations.http.markdown import StreamedMarkdown, render


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:alert(1))",
        "![x](https://evil.example/pixel.png)",
        "<https://example.org/'onmouseover='alert(1)>",
        '[x](https://example.org "t\\" onclick=\\"alert(1)")',
        "<iframe src=https://evil.example></iframe>",
        "<svg/onload=alert(1)>",
        "```html\n<script>alert(1)</script>\n```",
        "[x]: javascript:alert(1)\n\n[x]",
        "|<b onclick=alert(1)>|\n|---|\n|x|",
        "<style>*{display:none}</style>",
        "# <form action=https://evil.example><input>",
    ],
)
def test_nothing_runs_and_nothing_is_fetched(text: str) -> None:
    for html in (render(text), _grown(text + "\n\nend")):
        tags = re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)([^>]*)>", html)
        assert {name for name, _ in tags} <= {
            "p",
            "br",
            "a",
            "pre",
            "code",
            "h4",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        }
        for name, attributes in tags:
            assert not re.search(r"\son\w+\s*=|style\s*=|src\s*=", re.sub(r'"[^"]*"', '""', attributes)), html
            if name == "a" and "href" in attributes:
                assert re.search(r'href="(https?:|mailto:)', attributes), html
                assert "noopener" in attributes


def _grown(text: str) -> str:
    growing = StreamedMarkdown()
    return "".join(growing.add(character) for character in text)


def test_blocks_are_rendered_as_soon_as_they_are_whole() -> None:
    growing = StreamedMarkdown()
    assert growing.add("# Title\n\nOne ") == "<h4>Title</h4>\n"
    assert growing.tail == "One "
    assert growing.add("two\n\n```\na\n\nb") == "<p>One two</p>\n"
    assert growing.add("\n```\n") == ""
    assert growing.add("\nafter") == "<pre><code>a\n\nb\n</code></pre>\n"
    assert growing.tail == "after"


def test_what_people_like_is_shown() -> None:
    html = render("**a** *b* ~~c~~ `d`\n\n1. x\n\n- z\n\n|a|b|\n|-|-|\n|1|2|\n\n> q\n\n---\n\n[l](mailto:a@b.example)")
    for tag in ("strong", "em", "s", "code", "ol", "ul", "table", "blockquote", "hr"):
        assert f"<{tag}" in html
    assert 'href="mailto:a@b.example"' in html
