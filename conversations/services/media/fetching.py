"""Fetching a file: ask the provider for a link, download it, look at what it is, and keep it.

    claims.claim ─► begin (rows) ─► fetch (waits for the network) ─► record_fetched | record_failed (rows)

No transaction is open while the network is waited for. Each try asks for a link anew and writes a file of its own name,
so that two that come in each other's way do no harm: who has lost the claim deletes what it wrote.
"""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from django.conf import settings
from django.db.models import QuerySet

from channels_out.contract import Account, Adapter, MediaLink
from channels_out.downloads import download, too_large
from channels_out.errors import SendError
from channels_out.kinds import MediaKind
from conversations.models import Attachment
from conversations.services.core import files
from conversations.services.core.backoff import backoff
from conversations.services.media import claims, content
from conversations.services.media.content import Thumbnail
from conversations.services.tenants.channel_accounts import adapter_of, as_account

log = logging.getLogger(__name__)

SENT_ATTEMPTS = 5  # for a file that we send: about a minute
GONE_TRIES = 4  # links may be slower than the message; after that the file is gone
MEGABYTE = 1_000_000
T = Attachment.Transcription
S = Attachment.State


@dataclass(frozen=True, slots=True)
class Fetch:
    """A file to be fetched now: all that the network call needs, nothing of the database.

    adapter     of the provider that has it; None for a file that we send, which is at a URL
    """

    client_id: UUID
    attachment_id: UUID
    token: UUID
    adapter: Adapter | None
    account: Account
    source: str
    tries: int
    kind: str
    name: str

    @property
    def is_ours(self) -> bool:
        """Return whether it is to be sent."""
        return self.adapter is None

    @property
    def most_tries(self) -> int:
        """Return how often it is tried: a message of ours cannot wait for hours."""
        return SENT_ATTEMPTS if self.is_ours else settings.MEDIA_ATTEMPTS

    @property
    def file(self) -> str:
        """Return the name in the storage under which this try keeps the file."""
        return f"{files.folder_of(self.client_id, self.attachment_id)}/{self.token}"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is in the storage."""

    size: int
    sha256: str
    content_type: str
    kind: str
    thumbnail: Thumbnail | None


def begin(client_id: UUID, attachment_id: UUID, token: UUID, now: datetime) -> Fetch | None:
    """Return what it takes to fetch the claimed file. None if the claim was lost, or there is nothing to fetch.

    A file whose account is gone, or that was tried too often, fails.
    """
    found = ours(client_id, attachment_id, token).select_related("channel_account").first()
    if found is None or found.state != S.WAITING:
        return None
    try:
        adapter = adapter_of(found.channel_account) if found.channel_account else None
    except LookupError:
        adapter = None
    is_url = found.channel_account is None and found.source.startswith(("https://", "http://"))
    if not (adapter or is_url) or found.tries > settings.MEDIA_ATTEMPTS:
        _fail(client_id, attachment_id, token, "exhausted" if adapter or is_url else "no_account", now)
        return None
    return Fetch(
        client_id=client_id,
        attachment_id=attachment_id,
        token=token,
        adapter=adapter,
        account=as_account(found.channel_account) if found.channel_account else Account(""),
        source=found.source,
        tries=found.tries,
        kind=found.kind,
        name=found.name,
    )


def ours(client_id: UUID, attachment_id: UUID, token: UUID) -> QuerySet[Attachment]:
    """Return the rows with the client's file, if the claim is still this one."""
    return Attachment.objects.filter(client_id=client_id, pk=attachment_id, claim=token)


def fetch(wanted: Fetch) -> Fetched | SendError:
    """Fetch the file, keep it in the storage, and return what it is; or the error."""
    try:
        with content.temporary() as file:
            return _keep(wanted, file, _download(wanted, file))
    except SendError as error:
        return error
    except Exception as error:
        log.exception("file not fetched: attachment=%s", wanted.attachment_id)
        return SendError("The file could not be kept.", code=f"crashed_{type(error).__name__}"[:40], retryable=True)


def keep_upload(client_id: UUID, name: str, content_of: IO[bytes], size: int) -> tuple[Fetch, Fetched]:
    """Keep an uploaded file of ours in the storage, and return its place and what it is; its row is yet to be written.

    Raises SendError (`empty`, `too_large`).
    """
    if size > settings.MEDIA_MOST_MB * MEGABYTE:
        raise too_large()
    place = Fetch(
        client_id=client_id,
        attachment_id=uuid4(),
        token=uuid4(),
        adapter=None,
        account=Account(""),
        source="",
        tries=0,
        kind=MediaKind.DOCUMENT.value,
        name=name,
    )
    return place, _keep(place, content_of, size)


def _download(wanted: Fetch, file: SpooledTemporaryFile[bytes]) -> int:
    account, most = wanted.account, settings.MEDIA_MOST_MB * MEGABYTE
    link = wanted.adapter.media_link(account, wanted.source) if wanted.adapter else MediaLink(wanted.source)
    if link.size > most:
        raise too_large()
    return download(
        link.url,
        file,
        headers=link.headers,
        own_host=urlsplit(account.base_url).netloc,
        most_bytes=most,
        timeout=account.timeout or (5.0, settings.PROVIDER_TIMEOUT_SECONDS),
        seconds=settings.MEDIA_FETCH_SECONDS,
        private=tuple(settings.MEDIA_PRIVATE_NETWORKS),
    )


def _keep(wanted: Fetch, file: IO[bytes], size: int) -> Fetched:
    if size == 0:
        raise SendError("The file is empty.", code="empty")
    content_type = content.type_of(file)
    thumbnail = content.small_picture(file) if content_type in content.PICTURES.values() else None
    file.seek(0)
    digest = _sha256(file)
    files.save(wanted.file, file)
    if thumbnail:
        files.save(small_name(wanted.file), io.BytesIO(thumbnail.data))
    # The name of a file of ours does not say that it is to be sent as a document.
    kind = kind_of(wanted.kind, "" if wanted.is_ours else wanted.name, content_type)
    return Fetched(size, digest, content_type, kind, thumbnail)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(files.BLOCK):
        digest.update(block)
    return digest.hexdigest()


def small_name(file: str) -> str:
    """Return the name of the thumbnail beside the file of this name."""
    return f"{file}.small"


def kind_of(kind: str, name: str, content_type: str) -> str:
    """Return the kind of a file: what the provider says, unless its content is of another.

    A document without a name is of an unknown kind: its content says which.
    """
    family = content_type.partition("/")[0]
    if kind == MediaKind.DOCUMENT and not name and family in ("image", "audio", "video"):
        return family
    expected = {MediaKind.STICKER: "image", MediaKind.VOICE: "audio"}.get(MediaKind(kind), kind)
    may_be_sound_alone = kind == MediaKind.VIDEO and family == "audio"
    is_video_container = expected == "audio" and content_type in ("video/mp4", "video/3gpp", "video/webm")
    if kind == MediaKind.DOCUMENT or expected == family or may_be_sound_alone or is_video_container:
        return kind
    return MediaKind.DOCUMENT.value


# --- outcomes ---------------------------------------------------------------------------------------------------------
def record_fetched(wanted: Fetch, fetched: Fetched, now: datetime) -> bool:
    """Record that the file is there, and return whether what is said in it is to be written down next.

    The claim lasts in that case. Where the row is gone or another has the claim, the file of this try is deleted.
    """
    ready = {**facts_of(wanted, fetched), "code": "", "tries": 0}
    mine = ours(wanted.client_id, wanted.attachment_id, wanted.token)
    hears = fetched.content_type.startswith(("audio/", "video/"))
    if hears and mine.filter(transcription=T.WANTED).update(**ready, due_at=now + claims.lease()):
        return True
    if not mine.update(**ready, **ended(now)):
        _drop_files(wanted)
    return False


def record_failed(wanted: Fetch, error: SendError, now: datetime) -> bool:
    """Record that the file could not be had: it is tried again later, or failed. Returns whether it failed."""
    may_go_on = error.retryable or error.ambiguous or (error.code == "gone" and wanted.tries < GONE_TRIES)
    # A refused account is mended by people: its files are tried as often as others.
    if (may_go_on or error.account_broken) and wanted.tries < wanted.most_tries:
        due_at = now + backoff(wanted.tries, error.retry_after)
        mine = ours(wanted.client_id, wanted.attachment_id, wanted.token)
        mine.update(due_at=due_at, claim=None, code=error.code[:40])
        has_failed = False
    else:
        has_failed = _fail(wanted.client_id, wanted.attachment_id, wanted.token, error.code, now)
    _drop_files(wanted)
    return has_failed


def _fail(client_id: UUID, attachment_id: UUID, token: UUID, code: str, now: datetime) -> bool:
    mine = ours(client_id, attachment_id, token)
    log.info("file failed: attachment=%s code=%s", attachment_id, code)
    return bool(mine.update(state=S.FAILED, code=code[:40], **ended(now)))


def facts_of(wanted: Fetch, fetched: Fetched) -> dict[str, Any]:
    """Return the fields of a file that is in the storage."""
    small = fetched.thumbnail
    return {
        "state": S.READY,
        "size": fetched.size,
        "sha256": fetched.sha256,
        "content_type": fetched.content_type,
        "kind": fetched.kind,
        "file": wanted.file,
        "thumbnail": small_name(wanted.file) if small else "",
        "width": small.width if small else None,
        "height": small.height if small else None,
    }


def ended(now: datetime) -> dict[str, object]:
    """Return the fields of a file on which nobody works any more."""
    return {"due_at": None, "claim": None, "reply_waits_until": None, "ended_at": now}


def _drop_files(wanted: Fetch) -> None:
    for name in (wanted.file, small_name(wanted.file)):
        files.storage().delete(name)
