"""Rendering of Markdown that a model wrote to safe HTML."""

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
    """Return CommonMark with tables and strikethrough. HTML and images are shown as text: nothing is fetched."""
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    return markdown.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])


def render(text: str) -> str:
    """Return the text as HTML with TAGS alone. Links are http, https or mailto and send no referrer.

    nh3 cleans the Markdown library's output and does not rely on it.
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


class StreamedMarkdown:
    """Markdown that comes in pieces. Each block is rendered once, as soon as it is whole."""

    def __init__(self) -> None:
        self.tail = ""  # the last block, which may still change

    def add(self, text: str) -> str:
        """Add a piece and return the blocks that are whole now as HTML; '' if none."""
        self.tail += text
        end = _end_of_blocks(self.tail)
        whole, self.tail = self.tail[:end], self.tail[end:]
        return render(whole) if whole.strip() else ""


def _end_of_blocks(text: str) -> int:
    """Return the index after the last blank line that is not inside a fence; 0 if there is none."""
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
