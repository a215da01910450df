"""The set-up of a client's tools: at a URL of its own, or at an MCP server, whose tools are listed and then chosen."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import translation
from django.utils.translation import gettext, gettext_noop

from channels_out import mcp_tools
from channels_out.mcp_tools import ListedTool, McpError
from channels_out.tools import ToolRequest
from conversations.engines.tool_schemas import InvalidSchemaError, check_schema
from conversations.engines.tools import BUILT_IN
from conversations.models import Assistant, Client, McpServer, Tool
from conversations.models.tool import LONGEST_NAME
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.sql import release_connection
from conversations.words import whole

LONGEST_DESCRIPTION = 4_000
NOTHING_TAKEN: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
NOT_LISTED = gettext_noop("The server does not list this tool any more.")


def new_secret() -> str:
    """Return a secret that signs the calls of a tool, as Standard Webhooks has them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def create_tool(
    client: Client,
    name: str,
    *,
    url: str,
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    assistants: Sequence[str] = (),
    **fields: Any,
) -> tuple[Tool, str]:
    """Create a tool of the client at a URL, and return it with the secret that signs its calls.

    The secret is stored encrypted and cannot be shown again.

    parameters: the JSON Schema of its arguments; None for a tool that takes none
    assistants: the keys of those that may call it; empty for all
    fields: values for other fields of Tool

    Raises InvalidError, NotFoundError for an unknown assistant, or ConflictError `name_taken`.
    """
    secret = new_secret()
    tool = Tool(
        client=client,
        name=name,
        url=url,
        description=description,
        parameters=dict(NOTHING_TAKEN if parameters is None else parameters),
        assistant_ids=[_assistant_id(client, key) for key in assistants],
        **fields,
    )
    tool.credentials = {"secret": secret}
    check(tool)
    _save(tool, gettext("%(client)s has a tool %(name)s already."))
    return tool, secret


def check(tool: Tool) -> None:
    """Check everything about the tool that no single field can say. Raises InvalidError."""
    if tool.name in BUILT_IN:
        raise InvalidError(
            gettext("%(name)s is a built-in tool. Choose another name.") % {"name": tool.name}, code="name_is_built_in"
        )
    if not (tool.url or tool.server_id):
        raise InvalidError(gettext("A tool needs a URL."), code="missing_url")
    if len(tool.description) > LONGEST_DESCRIPTION:
        raise InvalidError(
            gettext("A description has at most %(most)s characters.") % {"most": whole(LONGEST_DESCRIPTION)},
            code="too_long",
        )
    try:
        check_schema(tool.parameters)
    except InvalidSchemaError as error:
        raise InvalidError(str(error), code="invalid_schema") from None


def renew_secret(tool: Tool) -> str:
    """Replace the secret that signs the tool's calls and return the new one, which cannot be shown again."""
    secret = new_secret()
    Tool.objects.filter(pk=tool.pk).update(credentials={"secret": secret})
    return secret


# --- MCP servers ------------------------------------------------------------------------------------------------------
def create_mcp_server(client: Client, name: str, *, url: str, bearer: str = "", **fields: Any) -> McpServer:
    """Create an MCP server of the client and return it. Raises InvalidError, or ConflictError `name_taken`.

    bearer: sent as `Authorization: Bearer …`; '' for none
    """
    server = McpServer(client=client, name=name, url=url, **fields)
    server.headers = bearer_header(bearer)
    _save(server, gettext("%(client)s has an MCP server %(name)s already."))
    return server


def bearer_header(token: str) -> dict[str, str]:
    """Return the headers that carry the token, none for ''. Raises InvalidError for a token that fits in no header."""
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()):
        raise InvalidError(gettext("The token has characters that cannot be sent in a header."), code="invalid_token")
    return {"Authorization": f"Bearer {token}"}


def list_tools(server: McpServer, now: datetime) -> list[Tool]:
    """Ask the server for its tools, store them, and return those that are new, none of which is offered yet.

    A known tool gets its new description and arguments; what staff have set of it stays. One that is not listed any
    more, or whose arguments are refused, says so and is not offered.

    Do not call it within a transaction: it waits for the server. Raises ConflictError (`no_answer`).
    """
    request = ToolRequest(
        name="",
        url=server.url,
        arguments={},
        key="",
        seconds=server.timeout_seconds,
        headers=server.headers,
        private=tuple(settings.TOOL_PRIVATE_NETWORKS),
    )
    release_connection()
    try:
        listed = mcp_tools.list_tools(request)
    except McpError as error:
        raise ConflictError(str(error), code="no_answer") from None
    with transaction.atomic():
        McpServer.objects.select_for_update().get(pk=server.pk)
        McpServer.objects.filter(pk=server.pk).update(listed_at=now)
        known = {tool.remote_name: tool for tool in Tool.objects.filter(server=server)}
        new = [tool for each in listed if (tool := _store(server, each, known.get(each.name[:200]))) is not None]
        names = {each.name[:200] for each in listed}
        Tool.objects.filter(server=server).exclude(remote_name__in=names).update(problem=NOT_LISTED)
    return new


def _store(server: McpServer, listed: ListedTool, known: Tool | None) -> Tool | None:
    """Store a listed tool, and return it if it is new."""
    tool = known or Tool(
        client_id=server.client_id,
        server=server,
        remote_name=listed.name[:200],
        name=_free_name(server, listed.name),
        changes_something=listed.read_only is not True,
        may_repeat=listed.read_only is True or listed.idempotent is True,
        is_active=False,
    )
    tool.description = listed.description[:LONGEST_DESCRIPTION]
    tool.parameters, tool.problem = listed.parameters, ""
    try:
        with translation.override("en"):  # the sentence is stored
            check(tool)
    except InvalidError as error:
        tool.parameters, tool.problem = dict(NOTHING_TAKEN), str(error)[:300]
    tool.save()
    return None if known else tool


def _free_name(server: McpServer, listed: str) -> str:
    """Return the tool's name as models accept it, with the server's name before it where another tool has it."""
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in listed)
    plain = plain[:LONGEST_NAME] or "tool"
    taken = BUILT_IN | set(Tool.objects.filter(client=server.client_id).values_list("name", flat=True))
    if plain not in taken:
        return plain
    prefixed = f"{server.name}_{plain}"[:LONGEST_NAME]
    number = 2
    while prefixed in taken:
        prefixed = f"{f'{server.name}_{plain}'[: LONGEST_NAME - 4]}_{number}"
        number += 1
    return prefixed


# --- saving -----------------------------------------------------------------------------------------------------------
def _assistant_id(client: Client, key: str) -> UUID:
    found = Assistant.objects.filter(client=client, key=key).values_list("pk", flat=True).first()
    if found is None:
        raise NotFoundError(
            gettext("%(client)s has no assistant %(key)s. Create it with create_assistant.")
            % {"client": client, "key": repr(key)}
        )
    return found


def _save(row: Any, taken: str) -> None:
    """Validate the new row as a form would, and store it. Raises the first error as a sentence.

    taken: the sentence if the client has one of that name already
    """
    try:
        row.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise InvalidError(messages[0] if field == "__all__" else f"{field}: {messages[0]}") from None
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise ConflictError(
            taken % {"client": row.client, "name": repr(row.name)},
            code="name_taken",
        ) from None
