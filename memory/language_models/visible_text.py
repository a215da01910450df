"""Takes out of a model's text what is not meant for people: its reasoning, the marks of its format, and tool calls.

Servers that do not parse a model's format hand it on as text. These forms are known:

    <think>…</think>, and alike             reasoning, at the beginning of the text or of a line
    …</think>                               reasoning whose beginning the prompt's template had written already
    <|channel|>analysis<|message|>…         reasoning of gpt-oss ("harmony"); `final` is the answer, and `commentary
                                            to=functions.name` a tool call
    <tool_call>{…}</tool_call>, <function=name>…</function>, [TOOL_CALLS]…, <|python_tag|>{…}
    {"name": …, "arguments": {…}}           a tool call that was offered, as the whole text or in a fence of its own
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_WORDS = "think|thinking|thought|thoughts|reasoning"
_CLOSER = re.compile(rf"</(?:{_WORDS})>", re.IGNORECASE)
_MARK = re.compile(
    rf"(?P<reasoning><(?:{_WORDS})>)"
    rf"|(?P<stray></(?:{_WORDS})>)"
    r"|(?P<channel><\|channel\|>[^<]{0,200}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>)"
    r"|(?P<call><tool_call>|<function_call>|<function=[\w.-]{1,64}>|\[TOOL_CALLS\]|<\|python_tag\|>)"
    r"|(?P<fence>```[a-z_]{0,20}[ \t]*\n)"
    r"|(?P<start><\|start\|>)"
    r"|(?P<noise><\|(?!channel\||constrain\|)[a-z_]{2,20}\|>)",
    re.IGNORECASE,
)
_LONGEST_MARK = 300  # characters
_MARK_BEGINS = re.compile(
    r"(?:<[^<>\n]{0,290}|<\|channel\|>[^\n]{0,280}|\[[A-Z_]{0,11}|`{1,3}[a-z_]{0,20}[ \t]*)\Z", re.IGNORECASE
)
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>|(?=<\|channel\|>)", re.IGNORECASE)
_ROLE_ENDS = re.compile(r"<\|message\|>|(?=<\|channel\|>)", re.IGNORECASE)
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]{1,64})")
_CALL_ENDS = {"<tool_call>": "</tool_call>", "<function_call>": "</function_call>", "<function=": "</function>"}
_IN_LINE = {"reasoning", "call", "fence"}  # marks that count only where nothing stands before them on their line
_FENCE = "```"
_FENCE_ENDS = re.compile(r"\n[ \t]*```")
_XML_CALL = re.compile(r"<function=([\w.-]{1,64})>(.*?)(?:</function>|\Z)", re.DOTALL)
_XML_ARGUMENT = re.compile(r"<parameter=([\w.-]{1,64})>(.*?)</parameter>", re.DOTALL)
_NAMED_CALL = re.compile(r"\s*([\w.-]{1,64})\s*(?:\[ARGS\])?\s*(\{.*\})\s*\Z", re.DOTALL)


class VisibleText:
    """The visible part of a text that comes in pieces.

    tools       the names of the tools that were offered; a call of another one is dropped
    unmarked    the text is known to begin with reasoning that has no mark at its beginning
    """

    def __init__(self, tools: Collection[str] = (), *, unmarked: bool = False) -> None:
        self.calls: list[tuple[str, str]] = []  # name, arguments as JSON
        self.is_stray = False  # what was shown so far turned out to be reasoning
        self.is_unmarked = False  # the text did begin with reasoning that had no mark
        self._tools = set(tools)
        self._held = ""
        self._until: re.Pattern[str] | None = _CLOSER if unmarked else None
        self._call = ""  # the mark of the call, or "to=name" of a channel, that `_until` ends
        self._unmarked = unmarked
        self._shown = False
        self._line = ""  # the current line, as far as it was shown
        self._ended = False

    def feed(self, piece: str) -> str:
        """Return what may be shown now that the piece has come."""
        self._held += piece
        return "".join(self._steps())

    def end(self, *, cut: bool = False) -> str:
        """Return the rest of what may be shown. `cut`: the model was cut off."""
        self._ended = True
        rest = "".join(self._steps())
        if self._until is not None and self._call:
            if not self._take_call(self._held) and self._call.startswith(_FENCE):
                rest += self._seen(self._call + self._held)
        elif self._until is not None and self._unmarked and not cut:
            self._until = None  # no reasoning this time
            rest += "".join(self._steps())
        return rest

    def _steps(self) -> Iterator[str]:
        while True:
            if self._until is not None:
                found = self._until.search(self._held)
                if not found:
                    self._drop()
                    return
                yield self._leave(found)
            elif not self._shown and self._may_be_call():
                return
            else:
                shown, goes_on = self._show()
                yield shown
                if not goes_on:
                    return

    def _drop(self) -> None:
        """Forget reasoning that has come, but for what its end may yet begin with."""
        if not self._call and not self._unmarked:
            self._held = self._held[-_LONGEST_MARK:]

    def _leave(self, end: re.Match[str]) -> str:
        """Leave the hidden part at its end; return what of it is shown after all: a fence that holds no call."""
        inside, mark = self._held[: end.start()], self._call
        is_call = bool(mark) and self._take_call(inside)
        self._held = self._held[end.end() :]
        self.is_unmarked = self.is_unmarked or self._unmarked
        self._until, self._call, self._unmarked = None, "", False
        if mark.startswith(_FENCE) and not is_call:
            return self._seen(mark + inside + end[0])
        return ""

    def _may_be_call(self) -> bool:
        """Return whether the whole text may yet be a tool call, which is held back until its end."""
        text = self._held.lstrip()
        if not self._tools or (not text.startswith(("{", "[{")) and text != "["):
            return False
        if self._ended and self._take_call(text):
            self._held = ""
        return not self._ended

    def _show(self) -> tuple[str, bool]:
        """Return what comes before the next mark, and whether there is one."""
        for found in _MARK.finditer(self._held):
            if self._counts(found):
                break
        else:
            tail = None if self._ended else _MARK_BEGINS.search(self._held)
            kept = tail.start() if tail else len(self._held)
            shown, self._held = self._held[:kept], self._held[kept:]
            return self._seen(shown), False
        if found.lastgroup == "stray" and not self._ended and found.end() == len(self._held):
            return "", False  # what follows decides whether it counts
        shown = self._held[: found.start()]
        self._held = self._held[found.end() :]
        if found.lastgroup == "stray":
            self.is_stray, self._shown, self._line = True, False, ""
            return "", True
        self._enter(found)
        return self._seen(shown), True

    def _counts(self, found: re.Match[str]) -> bool:
        """Return whether the mark is one, and not a word about marks."""
        before = (self._line + self._held[: found.start()]).rpartition("\n")[2]
        if found.lastgroup == "fence" and not self._tools:
            return False
        if found.lastgroup in _IN_LINE:
            return not before.strip()
        if found.lastgroup == "stray":
            after = self._held[found.end() :]
            return not before.strip() or not after or after[0] == "\n"
        return True

    def _enter(self, found: re.Match[str]) -> None:
        mark = found[0]
        if found.lastgroup == "reasoning":
            self._until = _CLOSER
        elif found.lastgroup == "start":
            self._until = _ROLE_ENDS
        elif found.lastgroup == "channel":
            recipient = _RECIPIENT.search(mark)
            if recipient:
                self._until, self._call = _CHANNEL_ENDS, f"to={recipient[1]}"
            elif not mark.lower().startswith("<|channel|>final"):
                self._until = _CHANNEL_ENDS
        elif found.lastgroup == "fence":
            self._until, self._call = _FENCE_ENDS, mark
        elif found.lastgroup == "call":
            name = mark.lower() if not mark.startswith("<function=") else "<function="
            self._until = re.compile(re.escape(_CALL_ENDS[name])) if name in _CALL_ENDS else re.compile(r"(?!)")
            self._call = mark

    def _seen(self, text: str) -> str:
        if not self._shown:
            text = text.lstrip()
        if text:
            self._shown = True
            self._line = (self._line + text).rpartition("\n")[2][-_LONGEST_MARK:]
        return text

    def _take_call(self, content: str) -> bool:
        """Take the calls of offered tools in the text of a call; return whether there are any."""
        mark, before = self._call, len(self.calls)
        if mark.startswith("<|"):
            content = content.replace(mark, " ")
        if mark.startswith("<function="):
            content = mark + content
        elif mark.startswith("to="):
            content = json.dumps({"name": mark[3:], "arguments": next(_json_values(content), {})})
        self.calls += [(name, arguments) for name, arguments in _calls_in(content) if name in self._tools]
        return len(self.calls) > before


def _calls_in(content: str) -> Iterator[tuple[str, str]]:
    """Yield the calls in the text of a call, by name and arguments."""
    if named := _NAMED_CALL.match(content):
        for arguments in _json_values(named[2]):
            yield named[1], json.dumps(arguments)
        return
    for name, inside in _XML_CALL.findall(content):
        found: Any = next(_json_values(inside), None)
        if not isinstance(found, dict):
            found = {key: _value(text.strip("\n")) for key, text in _XML_ARGUMENT.findall(inside)}
        yield name, json.dumps(found)
    for given in _json_values(content):
        for call in given if isinstance(given, list) else [given]:
            yield from _call_of(call)


def _call_of(call: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(call, dict):
        return
    call = call["function"] if isinstance(call.get("function"), dict) else call
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(call.get("name"), str) and arguments is not None:
        yield call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)


def _json_values(text: str) -> Iterator[Any]:
    """Yield the JSON values that a text consists of, with blanks, commas or semicolons between them."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at] in " \t\r\n,;":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


def _value(text: str) -> Any:
    """Return the JSON value that the text is, or else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@dataclass(frozen=True, slots=True)
class Visible:
    """The visible part of a whole text, and what else it held.

    calls       the tool calls that it wrote as text: name, arguments as JSON
    unmarked    it began with reasoning that had no mark at its beginning
    """

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    unmarked: bool = False


def visible(text: str, tools: Collection[str] = (), *, cut: bool = False) -> Visible:
    """Return the visible part of a whole text. `cut`: the model was cut off."""
    found, shown = VisibleText(tools), ""
    for unmarked in (False, True):
        found = VisibleText(tools, unmarked=unmarked)
        shown = found.feed(text) + found.end(cut=cut)
        if not found.is_stray:
            return Visible(shown.strip(), tuple(found.calls), unmarked)
    return Visible(shown.strip(), tuple(found.calls), unmarked=True)
