"""Formatting: the Markdown that a model writes, in the form that a channel shows or says.

    Markdown ─► markdown-it's tree ─► WhatsApp's marks | plain text | words to be spoken

WhatsApp shows marks of its own, and only around whole words on one line. A mark that it would not show is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

LONGEST_MARK = 1500  # characters; marks around more are left out, so that no part of a text is cut inside a mark
LONGEST_TEXT = 32_000  # characters; a longer text is sent as it was written
_MOST_NESTED = 20  # markdown-it's own bound, from which on it leaves text out
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # noncharacters, which no text has, around what must not be cut

_PIECES = re.compile(f"([{_OPEN}{_CLOSE}])")

_MARKS = {"strong": "*", "em": "_", "s": "~", "code_inline": "`"}
_SCHEMES_NOT_SHOWN = ("mailto:", "tel:")


class Formatting(StrEnum):
    """The ways in which a channel shows emphasis, lists and links."""

    WHATSAPP = "whatsapp"
    PLAIN = "plain"
    SPEECH = "speech"


@dataclass(frozen=True, slots=True)
class Formatted:
    """A text for a channel. `whole` lists the ranges of it, in order, inside which it must not be cut."""

    text: str
    whole: tuple[tuple[int, int], ...] = ()


def formatted(text: str, formatting: Formatting) -> Formatted:
    """Return the Markdown text as the channel shows or says it. A text without Markdown stays as it is."""
    if len(text) > LONGEST_TEXT:
        return Formatted(text)
    tokens = _markdown().parse(text.replace(_OPEN, "").replace(_CLOSE, ""))
    if any(token.level >= _MOST_NESTED - 1 for token in tokens):
        return Formatted(text)
    found = _unwrap(_Writer(formatting).blocks(SyntaxTreeNode(tokens).children))
    is_same = found.text.split() == text.split()
    return Formatted(text) if is_same or not found.text.strip() else found


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    """Return CommonMark with tables and strikethrough.

    HTML is text. Indented text is no code, and what looks like the definition of a reference is not left out.
    """
    markdown = MarkdownIt("commonmark", {"html": False, "maxNesting": _MOST_NESTED})
    return markdown.enable(["table", "strikethrough"]).disable(["code", "reference", "html_block", "html_inline"])


def _unwrap(text: str) -> Formatted:
    """Return the text without the noncharacters, and the outermost ranges that they enclosed."""
    pieces: list[str] = []
    whole: list[tuple[int, int]] = []
    depth = at = began = 0
    for piece in _PIECES.split(text):
        if piece == _OPEN:
            began = at if depth == 0 else began
            depth += 1
        elif piece == _CLOSE:
            depth -= 1
            if depth == 0:
                whole.append((began, at))
        else:
            pieces.append(piece)
            at += len(piece)
    return Formatted("".join(pieces), tuple(whole))


class _Writer:
    """The text of a tree's nodes in one formatting."""

    def __init__(self, formatting: Formatting) -> None:
        self.has_marks = formatting is Formatting.WHATSAPP
        self.is_spoken = formatting is Formatting.SPEECH

    # --- blocks

    def blocks(self, nodes: Sequence[SyntaxTreeNode], between: str = "\n\n") -> str:
        """Return the blocks with `between` between them; those that say nothing are left out."""
        return between.join(filter(None, (self.block(node) for node in nodes)))

    def block(self, node: SyntaxTreeNode) -> str:
        """Return one block, '' for a line across the page."""
        match node.type:
            case "heading":
                return self.line(self.marked("strong", self.inline(node.children)))
            case "bullet_list" | "ordered_list":
                return self.list_of(node)
            case "blockquote":
                return self.quote(self.blocks(node.children))
            case "fence":
                return self.code(_written_in(node))
            case "table":
                return "\n".join(self.row(row) for part in node.children for row in part.children)
            case "hr":
                return ""
            case "inline":
                return self.inline(node.children)
            case _:
                return self.blocks(node.children)

    def list_of(self, node: SyntaxTreeNode) -> str:
        """Return the items, each on a line of its own."""
        between = "\n" if all(_is_tight(item) for item in node.children) else "\n\n"
        return between.join(self.item(item, between) for item in node.children)

    def item(self, node: SyntaxTreeNode, between: str) -> str:
        """Return an item with its number or dash, and its further lines indented."""
        mark = f"{node.info}{node.markup} " if node.info else "" if self.is_spoken else "- "
        indent = "" if self.is_spoken else "  "
        lines = between.join(filter(None, (self.line(self.block(child)) for child in node.children))).split("\n")
        return mark + "\n".join([lines[0], *(indent + line if line else "" for line in lines[1:])])

    def quote(self, text: str) -> str:
        """Return the text as quoted, where the channel has a mark for it."""
        return "\n".join(f"> {line}" for line in text.split("\n")) if self.has_marks else text

    def code(self, text: str) -> str:
        """Return the block of code."""
        return _whole(f"```\n{text}\n```") if self.has_marks and 0 < len(text) <= LONGEST_MARK else text

    def row(self, node: SyntaxTreeNode) -> str:
        """Return a row of a table."""
        cells = (self.inline(cell.children[0].children) if cell.children else "" for cell in node.children)
        return self.line((", " if self.is_spoken else " | ").join(cells))

    def line(self, text: str) -> str:
        """Return the text, which is no sentence. Where it is spoken it ends like one, so that there is a pause."""
        return f"{text}." if self.is_spoken and text[-1:].isalnum() else text

    # --- within a line

    def inline(self, nodes: Sequence[SyntaxTreeNode]) -> str:
        """Return the text of what stands within a line."""
        if len(nodes) == 1 and nodes[0].type == "inline":
            nodes = nodes[0].children
        written = ""
        for number, node in enumerate(nodes, start=1):
            after = nodes[number].content[:1] if number < len(nodes) else ""
            written += self.piece(node, written[-1:], after)
        return written

    def piece(self, node: SyntaxTreeNode, before: str, after: str) -> str:
        """Return one piece of a line. `before` and `after` are the characters around it."""
        match node.type:
            case "softbreak" | "hardbreak":
                return "\n"
            case "strong" | "em" | "s":
                inner = self.inline(node.children)
                if _is_product(node.markup, before, after):
                    return f"{node.markup}{inner}{node.markup}"
                return self.marked(node.type, inner, before + after)
            case "code_inline":
                return self.marked(node.type, node.content, before + after)
            case "link":
                return self.link(self.inline(node.children), str(node.attrs.get("href", "")))
            case "image":
                return self.link(node.content, str(node.attrs.get("src", "")))
            case _:
                return node.content

    def marked(self, kind: str, text: str, around: str = "") -> str:
        """Return the text with the mark around each of its lines, or without where the mark would not be shown.

        An address is not marked: the mark would be taken for a part of it.
        """
        mark = _MARKS[kind]
        is_shown = mark not in text and "://" not in text and not any(each.isalnum() for each in around)
        if not self.has_marks or not is_shown or len(text) > LONGEST_MARK:
            return text
        return "\n".join(_whole(f"{mark}{line.strip()}{mark}") if line.strip() else "" for line in text.split("\n"))

    def link(self, label: str, address: str) -> str:
        """Return the label and the address, once where they are the same; where it is spoken, the label."""
        shown = address
        for scheme in _SCHEMES_NOT_SHOWN:
            shown = shown.removeprefix(scheme)
        is_same = label.strip() in (address, shown)
        if self.is_spoken:
            return (urlsplit(address).netloc or shown) if is_same or not label.strip() else label
        if is_same or not label.strip():
            return shown
        return f"{label}: {shown}" if shown else label


def _written_in(fence: SyntaxTreeNode) -> str:
    """Return the text of a block of code, without the language that is named behind its backticks.

    Behind tildes people write text: it is kept as the first line.
    """
    first_line = "" if fence.markup.startswith("`") else fence.info
    return f"{first_line}\n{fence.content}".strip("\n")


def _is_tight(item: SyntaxTreeNode) -> bool:
    """Return whether the item's paragraphs have no blank line between them."""
    return all(child.hidden for child in item.children if child.type == "paragraph")


def _is_product(markup: str, before: str, after: str) -> bool:
    """Return whether the asterisks multiply, as in 2*3*4."""
    if not (before + after).isascii() or not (before.isalnum() and after.isalnum()):
        return False
    return markup == "*" or (markup == "**" and before.isdigit() and after.isdigit())


def _whole(text: str) -> str:
    return f"{_OPEN}{text}{_CLOSE}"
