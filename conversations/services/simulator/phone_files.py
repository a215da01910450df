"""The files of simulated phones: what a person sends, and what reached them. They are in the media storage, for a day.

    details["file"] of an exchange names the stored file ─► a trigger queues its removal when the exchange is deleted

So a file goes with its exchange, whoever deletes that: the trimming of the log, the erasure of the person, the end of
the account or the client. What is older than LIFETIME is not handed out, and the daily clean-up of the storage deletes
it: no attachment has it. The copy that Convo fetched is a file of the conversation, and lives as long as that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core import signing
from django.utils import timezone
from django.utils.translation import gettext

from channels_out.kinds import MediaKind
from channels_out.simulators.contract import AcceptedFile, Simulator
from channels_out.simulators.phone_files import TYPES, PhoneFile, kind_and_type
from conversations.models import ChannelAccount, SimulatedExchange
from conversations.services.core import files
from conversations.services.core.errors import InvalidError, NotFoundError
from conversations.services.simulator.accounts import simulator_of
from conversations.services.simulator.exchanges import of_account
from conversations.services.tenants.channel_accounts import as_account

SALT = "convo.simulator"
LIFETIME = timedelta(days=1)
LONGEST_NAME = 120
MEGABYTE = 1_000_000
PICTURES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})  # shown in place


@dataclass(frozen=True, slots=True)
class ChosenFile:
    """A file that is chosen on the simulator's page, or uploaded by Convo. `content_type` is '' if nobody said it."""

    name: str
    content: IO[bytes]
    size: int
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a simulated phone that is in the storage."""

    account: ChannelAccount
    details: dict[str, Any]

    @property
    def stored_as(self) -> str:
        """Return the name in the storage."""
        return f"{files.folder_of(self.account.client_id, UUID(self.details['id']))}/file"

    @property
    def name(self) -> str:
        """Return the name by which it is saved."""
        return str(self.details["name"])

    @property
    def content_type(self) -> str:
        """Return the type that the sender's app says."""
        return str(self.details["content_type"])

    @property
    def path(self) -> str:
        """Return the path at which whoever has it gets the file, for LIFETIME."""
        token = signing.dumps([self.account.pk.hex, self.details["id"]], salt=SALT)
        return f"/files/{token}"

    def as_sent(self) -> PhoneFile:
        """Return the file as the simulators compose it."""
        return PhoneFile(
            kind=MediaKind(self.details["kind"]),
            content_type=self.content_type,
            name=self.name,
            media_id=self.details["media_id"],
            link=as_account(self.account).base_url + self.path,
            digest=self.details["sha256"],
            size=self.details["size"],
        )


def check(simulator: Simulator, chosen: ChosenFile, caption: str) -> tuple[MediaKind, str]:
    """Return as which kind and type the person's app sends the file.

    Raises InvalidError (`no_files`, `empty`, `unknown_file`, `too_large`, `no_caption`).
    """
    if not simulator.most_bytes:
        raise InvalidError(gettext("The simulator sends no files on this channel."), code="no_files")
    if chosen.size == 0:
        raise InvalidError(gettext("The file is empty."), code="empty")
    known = kind_and_type(chosen.name)
    if known is None:
        endings = ", ".join(sorted(each.removeprefix(".") for each in TYPES))
        raise InvalidError(
            gettext("The phone knows no such file. Choose one of these: %(endings)s.") % {"endings": endings},
            code="unknown_file",
        )
    kind, content_type = known
    most = min(simulator.most_bytes[kind], settings.MEDIA_MOST_MB * MEGABYTE)
    if chosen.size > most:
        raise InvalidError(
            gettext("The file is too large: at most %(most)s MB are possible.") % {"most": f"{most / MEGABYTE:g}"},
            code="too_large",
        )
    if caption.strip() and kind not in simulator.captions:
        said = gettext("On this channel such a file has no caption. Send the words as a message of their own.")
        raise InvalidError(said, code="no_caption")
    return kind, content_type


def keep_sent(account: ChannelAccount, chosen: ChosenFile, caption: str, media_id: str) -> StoredFile:
    """Store a file that the person sends, and return it. Raises InvalidError, see `check`."""
    kind, content_type = check(simulator_of(account), chosen, caption)
    return _keep(account, chosen, kind, content_type, media_id)


def keep_upload(account: ChannelAccount, chosen: ChosenFile, media_id: str) -> StoredFile:
    """Store a file that Convo uploaded, and return it."""
    return _keep(account, chosen, MediaKind.DOCUMENT, chosen.content_type, media_id)


def _keep(account: ChannelAccount, chosen: ChosenFile, kind: MediaKind, content_type: str, media_id: str) -> StoredFile:
    digest = hashlib.sha256()
    chosen.content.seek(0)
    while block := chosen.content.read(files.BLOCK):
        digest.update(block)
    stored = StoredFile(
        account,
        {
            "id": uuid4().hex,
            "media_id": media_id,
            "kind": kind.value,
            "content_type": content_type[:LONGEST_NAME],
            "name": chosen.name[-LONGEST_NAME:],
            "sha256": digest.hexdigest(),
            "size": chosen.size,
        },
    )
    files.save(stored.stored_as, chosen.content)
    return stored


def drop(stored: StoredFile) -> None:
    """Delete a file that no exchange has."""
    files.delete_folder(stored.account.client_id, UUID(stored.details["id"]))


def find(account: ChannelAccount, **known: str) -> StoredFile | None:
    """Return the account's file of which this is known (`media_id` or `id`); None if there is none, or no longer."""
    young = of_account(account).filter(created_at__gt=timezone.now() - LIFETIME)
    of_this = {f"details__file__{name}": value for name, value in known.items() if value}
    exchange = young.filter(**of_this).first() if of_this else None
    return StoredFile(account, exchange.details["file"]) if exchange else None


def behind_link(account_id: UUID, token: str) -> StoredFile | None:
    """Return the file to which the last part of a link leads; None if there is none, or no longer."""
    try:
        account_hex, file_id = signing.loads(token, salt=SALT, max_age=LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    account = ChannelAccount.objects.filter(pk=account_id, is_simulated=True, is_active=True).first()
    return find(account, id=file_id) if account and account_hex == account_id.hex else None


def hand_over(account: ChannelAccount, taken: AcceptedFile | None) -> dict[str, Any]:
    """Return what the exchange of an accepted message has of its file. The upload's exchange has it no longer."""
    if taken is None:
        return {}
    shown = {"kind": taken.kind, "link": taken.link, "name": taken.name}
    upload = of_account(account).filter(details__file__media_id=taken.media_id, kind=SimulatedExchange.Kind.QUESTION)
    found = upload.first() if taken.media_id else None
    if found is None:
        return {"shown": shown}
    given = found.details["file"]
    found.details = {name: value for name, value in found.details.items() if name != "file"}
    found.save(update_fields=["details"])
    return {"shown": shown, "file": given}


def address_of(account: ChannelAccount, exchange_id: int) -> str:
    """Return the path from which a browser gets the file of an exchange.

    Raises NotFoundError if it has none, or none any more.
    """
    exchange = of_account(account).filter(pk=exchange_id).first()
    details = exchange.details if exchange else {}
    if named := details.get("file"):
        found = find(account, id=named["id"])
        if found:
            return f"/simulator/{account.pk}{found.path}"
    link = str((details.get("shown") or {}).get("link", ""))
    if is_ours(link):
        return link.removeprefix(settings.PUBLIC_BASE_URL)
    raise NotFoundError(gettext("This file is not on the phone any more."))


def is_ours(link: str) -> bool:
    """Return whether a link leads to a file that Convo hands out."""
    return link.startswith(f"{settings.PUBLIC_BASE_URL}/media/")
