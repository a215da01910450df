"""Markdown that a model wrote, as HTML that can do no harm."""

from __future__ import annotations

from functools import lru_cache

import nh3
from markdown_it import MarkdownIt

TAGS = {
    *("p", "br", "hr", "h4", "strong", "em", "s", "code", "pre", "blockquote"),
    *("ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
HEADING = "h4"  # whatever its level: below the headings of the page around it
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}}
SCHEMES = {"http", "https", "mailto"}


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    """CommonMark with tables and strikethrough. HTML in it is text, and so are images: nothing is fetched."""
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    return markdown.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])


def render(text: str) -> str:
    """The text as HTML of a few harmless tags; its links are http, https or mailto, and tell nobody whence they came.

    nh3 cleans what the Markdown library made, and does not rely on it.
    """
    markdown = _markdown()
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = HEADING
    return nh3.clean(
        markdown.renderer.render(tokens, markdown.options, {}),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes=SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


class Growing:
    """Markdown that comes piece by piece: its blocks are rendered as soon as they are whole, each once."""

    def __init__(self) -> None:
        self.tail = ""  # what may still become something else

    def add(self, text: str) -> str:
        """The blocks that the piece has made whole, as HTML; '' if none."""
        self.tail += text
        end = _end_of_blocks(self.tail)
        whole, self.tail = self.tail[:end], self.tail[end:]
        return render(whole) if whole.strip() else ""


def _end_of_blocks(text: str) -> int:
    """Behind the last blank line that is not inside of a fence; 0 if there is none."""
    end, at, fence = 0, 0, ""
    for line in text.splitlines(keepends=True):
        at += len(line)
        words = line.strip()
        if fence:
            fence = "" if words.startswith(fence) else fence
        elif words.startswith(("```", "~~~")):
            fence = words[:3]
        if not fence and not words and line.endswith("\n"):
            end = at
    return end
